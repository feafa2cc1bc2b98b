"""What keeps tokens unreadable for whoever reads an engine's or a database's memory, disk or replicas."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from bitrix_pull.errors import InvalidArgument


@runtime_checkable
class Cipher(Protocol):
    """Encrypts and decrypts. The key is the user's affair."""

    def encrypt(self, content: bytes, /) -> bytes:
        """Return what is kept in the place of the content."""
        ...

    def decrypt(self, kept: bytes, /) -> bytes:
        """Return the content again.

        Raises:
            ValueError: It was changed, or encrypted with another key. The text may be shown.
        """
        ...


def checked_cipher(cipher: Cipher | None) -> Cipher | None:
    """Return a cipher.

    Raises:
        InvalidArgument: It is none.
    """
    if cipher is not None and not isinstance(cipher, Cipher):
        raise InvalidArgument("the cipher has no encrypt() and decrypt()")
    return cipher


def write_secret(content: bytes, cipher: Cipher | None) -> bytes:
    """Return what is kept of a JSON object."""
    return content if cipher is None else cipher.encrypt(content)


def read_secret(kept: bytes, cipher: Cipher | None) -> bytes:
    """Return the JSON object that ``write_secret`` was given; also where it had no cipher yet.

    Raises:
        ValueError: See ``Cipher.decrypt``.
    """
    return kept if cipher is None or kept.lstrip().startswith(b"{") else cipher.decrypt(kept)


class FernetCipher:
    """Fernet of the ``cryptography`` package: ``pip install 'bitrix-pull[encryption]'``.

    Args:
        keys: As ``Fernet.generate_key()`` makes them. The first one encrypts, all decrypt:
            put a new one before the old, and drop that once every portal has refreshed.

    Raises:
        InvalidArgument: There is none, or one is none.
    """

    def __init__(self, *keys: str | bytes) -> None:
        try:
            from cryptography.fernet import Fernet, InvalidToken, MultiFernet
        except ImportError as error:  # pragma: no cover - the tests have it
            raise ImportError("this needs cryptography: pip install 'bitrix-pull[encryption]'") from error
        try:
            fernets: Sequence[Fernet] = [Fernet(key) for key in keys]
            self._fernet = MultiFernet(fernets)
        except (ValueError, TypeError):
            # Its text may hold the key.
            raise InvalidArgument(
                "a Fernet key is 32 bytes in URL-safe base64", advice="Make one with Fernet.generate_key()."
            ) from None
        self._invalid = InvalidToken

    def encrypt(self, content: bytes, /) -> bytes:
        """See ``Cipher.encrypt``."""
        return self._fernet.encrypt(content)

    def decrypt(self, kept: bytes, /) -> bytes:
        """See ``Cipher.decrypt``."""
        try:
            return self._fernet.decrypt(kept)
        except self._invalid:
            raise ValueError("it was changed, or encrypted with another key") from None

    def __repr__(self) -> str:
        return "FernetCipher()"
