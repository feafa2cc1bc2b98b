"""What the stores of tokens have in common that workers share: for whom they act, and what they refuse."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Protocol

from bitrix_pull.errors import EngineUnavailable, InvalidArgument, TokenStoreFailed
from bitrix_pull.hub.ciphers import Cipher, read_secret, write_secret
from bitrix_pull.hub.cluster import Lease, checked_keys
from bitrix_pull.portal.token_files import read_tokens, write_tokens
from bitrix_pull.portal.token_stores import AUTHORISE
from bitrix_pull.portal.tokens import Tokens


class Openable(Protocol):
    """An engine or a database, which counts who has opened it."""

    async def open(self) -> None:
        """Connect."""
        ...

    async def close(self) -> None:
        """Let go, once for each ``open``."""
        ...


class SharedTokenStore:
    """The tokens of one application on one portal, where several workers may refresh them."""

    def __init__(self, place: Openable, key: str, cipher: Cipher | None) -> None:
        """Keep them at a place, under the portal's key.

        Raises:
            InvalidArgument: The key is none.
        """
        checked_keys([key])
        self._place = place
        self._key = key
        self._cipher = cipher
        self._lease: Lease | None = None

    def fence(self, lease: Lease) -> None:
        """From now on, act for this owner of the portal: once a later one has refreshed, it may not."""
        self._lease = lease

    @property
    def _epoch(self) -> int:
        return 0 if self._lease is None else self._lease.epoch

    def _require(self) -> None:
        if self._lease is not None and not self._lease.valid():
            raise TokenStoreFailed(f"this worker does not have the portal {self._key!r:.60} any more")

    def _not_the_owner(self) -> TokenStoreFailed:
        return TokenStoreFailed(f"another worker has the portal {self._key!r:.60} by now")

    def _not_the_holder(self) -> TokenStoreFailed:
        return TokenStoreFailed(f"another worker is refreshing the tokens of {self._key!r:.60}")

    def seal(self, content: bytes) -> bytes:
        """Return what is kept of a JSON object that is as secret as the tokens."""
        return write_secret(content, self._cipher)

    def unseal(self, kept: bytes) -> bytes:
        """Return the JSON object again; see ``read_secret``."""
        return read_secret(kept, self._cipher)

    def _write(self, tokens: Tokens) -> bytes:
        return self.seal(write_tokens(tokens))

    def _read(self, content: bytes | None) -> Tokens:
        if content is None:
            raise InvalidArgument(f"{self!r} holds no tokens", advice=AUTHORISE)
        try:
            written = self.unseal(content)
        except ValueError as error:
            raise InvalidArgument(f"the tokens of {self!r} cannot be decrypted: {error}") from None
        return read_tokens(written, repr(self))

    def _readable(self, content: bytes | None) -> Tokens | None:
        """Return what is kept, or None: whoever authorises anew replaces it."""
        try:
            return self._read(content)
        except InvalidArgument:
            return None

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[None]:
        try:
            await self._place.open()
            try:
                yield
            finally:
                await self._place.close()
        except EngineUnavailable as error:
            raise TokenStoreFailed(str(error)) from None
