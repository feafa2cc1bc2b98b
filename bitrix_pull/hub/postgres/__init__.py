"""Resume points and tokens in PostgreSQL (12 or newer): ``pip install 'bitrix-pull[postgres]'``."""

from bitrix_pull.hub.ciphers import Cipher, FernetCipher
from bitrix_pull.hub.postgres.resume import PostgresStore
from bitrix_pull.hub.postgres.tokens import PostgresTokenStore

__all__ = ["Cipher", "FernetCipher", "PostgresStore", "PostgresTokenStore"]
