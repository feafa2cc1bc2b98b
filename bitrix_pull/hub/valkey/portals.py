"""Portals of many hubs in Valkey or Redis, with their tokens and resume points."""

import contextlib
from collections.abc import AsyncGenerator, Collection
from typing import Any, Final

import orjson

from bitrix_pull.connection.stores import ResumeStore
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.hub.ciphers import Cipher, checked_cipher, read_secret, write_secret
from bitrix_pull.hub.looks import Looks
from bitrix_pull.hub.portals import Portal, PortalChange, unknown
from bitrix_pull.hub.records import read_portal, write_portal
from bitrix_pull.hub.told import Told
from bitrix_pull.hub.valkey.engine import Engine, Script, as_engine, pairs
from bitrix_pull.hub.valkey.resume import ValkeyResumeStore
from bitrix_pull.hub.valkey.tokens import ValkeyTokenStore
from bitrix_pull.portal.oauth import OAuth
from bitrix_pull.portal.token_stores import own_store

_CHANGE: Final = Script("change")


class ValkeyPortals:
    """Keeps the portals of one application, their tokens and their resume points in Valkey or Redis.

    Any number of hubs follow it, and any process may add, remove and pause portals: hubs see
    that within a second.

    Args:
        engine: Its address (see ``Engine``), or one that others use too.
        name: Tells these portals from others on the same engine.
        cipher: Encrypts what holds secrets: records, tokens, configurations; None: they are kept as they are.
        timeout_s: For how long to wait for the engine, where its address is given.

    Attributes:
        resume: The resume points.

    Raises:
        InvalidArgument: An argument cannot work.
    """

    def __init__(
        self,
        engine: str | Engine,
        *,
        name: str = "bitrix-pull",
        cipher: Cipher | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        if not name.isprintable() or not name or set(name) & set("{} "):
            raise InvalidArgument("the name must be printable, without braces and blanks")
        self._engine = as_engine(engine, timeout_s=timeout_s)
        self._name = name
        self._cipher = checked_cipher(cipher)
        self._records = f"{{{name}:portals}}:records"
        self._versions = f"{{{name}:portals}}:versions"
        self.resume: ResumeStore | None = ValkeyResumeStore(self._engine, name=name)
        self._told = Told()
        self._last: Any = None
        self._opened = 0
        self._looks = Looks()

    async def open(self) -> None:
        """Connect.

        Raises:
            InvalidArgument: The engine cannot be used.
            EngineUnavailable: It does not answer. Later it may.
        """
        await self._engine.open()
        self._opened += 1

    async def close(self) -> None:
        """Let go of it; it may be opened again."""
        self._opened = max(self._opened - 1, 0)
        self._looks.hurry()
        await self._engine.close()

    async def portals(self) -> Collection[Portal]:
        """Return all portals. One with a damaged record, or of another cipher, fails when it is served.

        Raises:
            EngineUnavailable: The engine does not answer.
        """
        # The versions first: what changes in between is told once too often.
        last = await self._engine.call("HGET", self._versions, "")
        versions = await self._present()
        records = dict(pairs(await self._engine.call("HGETALL", self._records)))
        present = {key: versions.get(key) for key in records}
        portals = self._told.all(present, lambda key: self._read(key, records[key]))
        self._last = last
        return portals

    async def changes(self) -> AsyncGenerator[PortalChange]:
        """Tell what this object and other processes change."""
        while self._opened:
            last = await self._engine.call("HGET", self._versions, "")
            if last != self._last:
                for change in await self._news():
                    yield change
                self._last = last
            await self._looks.wait()

    async def _news(self) -> list[PortalChange]:
        versions = await self._present()
        records = {
            key: await self._engine.call("HGET", self._records, key) for key in self._told.changed(versions)
        }
        present = [key for key, record in records.items() if record is not None]
        return self._told.news(versions, present, lambda key: self._read(key, records[key]))

    async def _present(self) -> dict[str, object]:
        versions: dict[str, object] = dict(pairs(await self._engine.call("HGETALL", self._versions)))
        versions.pop("", None)
        return versions

    async def put(self, portal: Portal) -> None:
        """Keep a portal and its tokens, in place of what was kept under its key.

        Raises:
            InvalidArgument: It holds what cannot be written down.
            EngineUnavailable: The engine does not answer.
        """
        record = self._written({**write_portal(portal), "paused": portal.paused})
        credentials = portal.credentials
        if isinstance(credentials, OAuth):
            tokens = self.tokens(portal.key)
            store = credentials.store
            # Its own are not read and written back: a refresh may come in between.
            if own_store(store) != tokens:
                await tokens.save(await store.load())
        await self._change(portal.key, "put", record)

    async def remove(self, key: str) -> None:
        """Forget a portal, and its tokens."""
        await self._change(key, "remove", b"")
        await self.tokens(key).delete()

    async def pause(self, key: str, paused: bool) -> None:
        """Say whether a portal is paused."""
        async with self._open():
            record = await self._engine.call("HGET", self._records, key)
        if record is None:
            raise unknown(key)
        await self._change(key, "change", self._written({**self._content(key, record), "paused": paused}))

    def tokens(self, key: str) -> ValkeyTokenStore:
        """Return where the tokens of a portal are."""
        return ValkeyTokenStore(self._engine, key, name=self._name, cipher=self._cipher)

    async def _change(self, key: str, how: str, record: bytes) -> None:
        async with self._open():
            if not await self._engine.run(_CHANGE, [self._records, self._versions], key, how, record):
                raise unknown(key)
        self._looks.hurry()

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncGenerator[None]:
        await self._engine.open()
        try:
            yield
        finally:
            await self._engine.close()

    def _written(self, content: dict[str, Any]) -> bytes:
        return write_secret(orjson.dumps(content), self._cipher)

    def _content(self, key: str, record: bytes) -> dict[str, Any]:
        try:
            content: dict[str, Any] = dict(orjson.loads(read_secret(record, self._cipher)))
        except (ValueError, TypeError):
            raise InvalidArgument(
                f"the record of portal {key!r:.60} is damaged, or was encrypted with another key",
                advice="Add the portal again, or pass the cipher that it was kept with.",
            ) from None
        return content

    def _read(self, key: str, record: bytes) -> Portal:
        content = self._content(key, record)
        paused = bool(content.pop("paused", False))
        return read_portal(key, content, self.tokens(key), paused=paused)

    def __repr__(self) -> str:
        return f"ValkeyPortals({self._engine.name}, {self._name})"
