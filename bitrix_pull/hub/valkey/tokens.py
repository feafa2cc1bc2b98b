"""OAuth tokens in Valkey or Redis: refreshed once, whichever workers share them."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from bitrix_pull.errors import EngineUnavailable, PullError, TokenStoreFailed
from bitrix_pull.hub.ciphers import Cipher, checked_cipher
from bitrix_pull.hub.shared_tokens import SharedTokenStore
from bitrix_pull.hub.valkey.engine import Engine, Script, as_engine
from bitrix_pull.portal.token_stores import TokenStore
from bitrix_pull.portal.tokens import Tokens

_LOCK, _UNLOCK, _KEEP = Script("lock"), Script("unlock"), Script("keep")

_ASK_EVERY_S: Final = (0.02, 0.05, 0.1, 0.2, 0.5)


@dataclass(slots=True)
class _Held:
    """The right to refresh, while this process has it."""

    holder: str
    version: int
    tokens: Tokens | None
    """What is kept, of this version."""


class ValkeyTokenStore(SharedTokenStore):
    """Keeps the tokens of one application on one portal in Valkey or Redis (6.2 or newer).

    One worker at a time refreshes: it holds a right that ends by the engine's clock, proves it
    right before it spends the refresh token, and once it has spent that, is the only one that
    can replace it, however late its answer comes.

    Example:
        OAuth("acme.bitrix24.com", …, tokens=ValkeyTokenStore("redis://…", "member-id"))

    Args:
        engine: Its address (see ``Engine``), or one that others use too.
        key: Tells this portal's tokens from others. A portal keeps its ``member_id`` for good.
            With several applications, name that too.
        name: Tells these tokens from others on the same engine.
        cipher: Encrypts what is kept; None: it is kept as it is. What was kept without one is
            read all the same, and encrypted by the next refresh. A hub keeps the portal's
            configuration for its next owner in the same way.
        hold_s: For how long one worker may be refreshing before another one tries.
        timeout_s: For how long to wait for the engine, where its address is given.

    Raises:
        InvalidArgument: An argument cannot work.
    """

    def __init__(
        self,
        engine: str | Engine,
        key: str,
        *,
        name: str = "bitrix-pull",
        cipher: Cipher | None = None,
        hold_s: float = 30.0,
        timeout_s: float = 5.0,
    ) -> None:
        self._engine = as_engine(engine, timeout_s=timeout_s)
        super().__init__(self._engine, key, checked_cipher(cipher))
        self._at = f"{name}:tokens:{key}"
        self._hold_ms = round(hold_s * 1000)
        self._held: _Held | None = None

    async def load(self) -> Tokens:
        """Return the tokens that were saved last.

        Raises:
            InvalidArgument: There are none, or they cannot be read.
            TokenStoreFailed: The engine does not answer.
        """
        async with self._opened():
            return self._read(await self._content())

    async def _content(self) -> bytes | None:
        content: bytes | None = await self._engine.call("HGET", self._at, "content")
        return content

    async def save(self, tokens: Tokens, /) -> None:
        """Keep tokens.

        Within ``lock``, new ones are the only copy: while the engine does not answer it is asked
        again, for up to ``hold_s``.

        Raises:
            InvalidArgument: They cannot be written.
            TokenStoreFailed: The engine does not answer; or, within ``lock``, somebody else has the
                right to refresh by now, or may have the portal.
        """
        kept = self._write(tokens)
        async with self._opened():
            if self._held is None:
                await self._run_keep(kept)
            else:
                await self._save_as_holder(tokens, kept, self._held)

    async def _save_as_holder(self, tokens: Tokens, kept: bytes, held: _Held) -> None:
        same = tokens == held.tokens
        if same:
            # What they are traded for is kept in any case.
            self._require()
        began = asyncio.get_running_loop().time()
        pauses = iter(_ASK_EVERY_S)
        while True:
            try:
                version = await self._run_keep(kept, held, "same" if same else "")
                break
            except EngineUnavailable:
                if same or (asyncio.get_running_loop().time() - began) * 1000 > self._hold_ms:
                    raise
            await asyncio.sleep(next(pauses, _ASK_EVERY_S[-1]))
        if version < 0:
            raise self._not_the_holder()
        held.version, held.tokens = version, tokens

    async def _run_keep(self, kept: bytes, held: _Held | None = None, same: str = "") -> int:
        holder, version = ("", 0) if held is None else (held.holder, held.version)
        now_kept: int = await self._engine.run(_KEEP, [self._at], holder, version, same, self._hold_ms, kept)
        return now_kept

    async def delete(self) -> None:
        """Forget the tokens, as where the application was uninstalled.

        Raises:
            TokenStoreFailed: The engine does not answer.
        """
        async with self._opened():
            await self._engine.call("HDEL", self._at, "content")

    @asynccontextmanager
    async def lock(self, timeout_s: float = 30.0) -> AsyncGenerator[TokenStore]:
        """Hold the right to refresh.

        Raises:
            TokenStoreFailed: Somebody else had it for ``timeout_s``, or has the portal by now.
        """
        holder = secrets.token_hex(8)
        async with self._opened():
            try:
                version = await self._taken(holder, timeout_s)
                self._held = _Held(holder, version, self._readable(await self._content()))
                try:
                    yield self
                finally:
                    self._held = None
            finally:
                # Also where the answer that it is taken was not waited for, or lost. Else it ends by itself.
                with contextlib.suppress(PullError):
                    await self._engine.run(_UNLOCK, [self._at], holder)

    async def _taken(self, holder: str, timeout_s: float) -> int:
        pauses = iter(_ASK_EVERY_S)
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            self._require()
            told, *version = await self._engine.run(_LOCK, [self._at], self._epoch, holder, self._hold_ms)
            if told == 1:
                taken: int = version[0]
                return taken
            if told < 0:
                raise self._not_the_owner()
            pause_s = next(pauses, _ASK_EVERY_S[-1])
            if asyncio.get_running_loop().time() + pause_s > deadline:
                raise TokenStoreFailed(
                    f"the tokens of {self._key!r:.60} have been in refresh elsewhere for {timeout_s:g} s"
                )
            await asyncio.sleep(pause_s)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ValkeyTokenStore):
            return NotImplemented
        return (self._engine.name, self._at) == (other._engine.name, other._at)

    def __hash__(self) -> int:
        return hash(self._at)

    def __repr__(self) -> str:
        return f"ValkeyTokenStore({self._engine.name}, {self._key!r:.60})"
