"""OAuth tokens in PostgreSQL: refreshed once, whichever processes share them."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bitrix_pull.errors import EngineUnavailable
from bitrix_pull.hub.ciphers import Cipher
from bitrix_pull.hub.postgres.database import Database, Locked, Row
from bitrix_pull.hub.shared_tokens import SharedTokenStore
from bitrix_pull.portal.token_stores import TokenStore
from bitrix_pull.portal.tokens import Tokens

if TYPE_CHECKING:
    from typing import LiteralString

_ASK_AGAIN_S: Final = (0.02, 0.05, 0.1, 0.2, 0.5)

_LOAD = "SELECT content FROM {schema}.token WHERE key = %(key)s"

_SAVE = """
    INSERT INTO {schema}.token AS present (key, epoch, version, content)
    VALUES (%(key)s, 0, 1, %(content)s)
    ON CONFLICT (key) DO UPDATE SET content = excluded.content, version = present.version + 1
"""

_DELETE = "UPDATE {schema}.token SET content = NULL WHERE key = %(key)s"

_BEGIN = """
    INSERT INTO {schema}.token AS present (key, epoch, version) VALUES (%(key)s, %(epoch)s, 0)
    ON CONFLICT (key) DO UPDATE SET epoch = greatest(present.epoch, excluded.epoch)
    WHERE excluded.epoch = 0 OR present.epoch <= excluded.epoch
    RETURNING version, content
"""
"""Shuts earlier owners out, and gives no row where a later one was here. Whoever has no lease is
no owner of before: it may refresh beside the owner, as both take the lock."""

_PROVE = """
    UPDATE {schema}.token SET content = content WHERE key = %(key)s AND version = %(version)s
    RETURNING version
"""

_REPLACE = """
    UPDATE {schema}.token SET content = %(content)s, version = version + 1
    WHERE key = %(key)s AND version = %(version)s RETURNING version
"""

_AFTER_ALL = """
    SELECT version FROM {schema}.token WHERE key = %(key)s AND content = %(content)s
"""


@dataclass(slots=True)
class _Held:
    """The right to refresh, while this process has it."""

    locked: Locked
    version: int
    tokens: Tokens | None
    """What is kept, of this version."""


class PostgresTokenStore(SharedTokenStore):
    """Keeps the tokens of one application on one portal in PostgreSQL; see ``PostgresStore.tokens``.

    One process at a time refreshes: it holds an advisory lock, which the server frees when the
    process dies, proves that right before it spends the refresh token, and once it has spent
    that, is the only one that can replace it, however late its answer comes.
    """

    def __init__(self, database: Database, key: str, *, cipher: Cipher | None, hold_s: float) -> None:
        super().__init__(database, key, cipher)
        self._database = database
        self._hold_s = hold_s
        self._held: _Held | None = None

    async def load(self) -> Tokens:
        """Return the tokens that were saved last.

        Raises:
            InvalidArgument: There are none, they cannot be read, or the database refuses us.
            TokenStoreFailed: The database does not answer.
        """
        async with self._opened():
            row = await self._run(_LOAD)
        return self._read(None if row is None else row[0])

    async def save(self, tokens: Tokens, /) -> None:
        """Keep tokens.

        Within ``lock``, new ones are the only copy: while the database does not answer it is
        asked again, for up to ``hold_s``.

        Raises:
            InvalidArgument: They cannot be written, or the database refuses us.
            TokenStoreFailed: The database does not answer; or, within ``lock``, somebody else has the
                right to refresh by now, or may have the portal.
        """
        held, content = self._held, self._write(tokens)
        async with self._opened():
            if held is None:
                await self._run(_SAVE, content=content)
                return
            if tokens == held.tokens:
                self._require()
                await held.locked.require()
                row = await self._run(_PROVE, version=held.version)
            else:
                # What was spent for them is gone: they are kept also where the lock is lost.
                row = await self._replaced(content, held.version)
        if row is None:
            raise self._not_the_holder()
        held.version, held.tokens = row[0], tokens

    async def delete(self) -> None:
        """Forget the tokens, as where the application was uninstalled. Raises as ``load`` does."""
        async with self._opened():
            await self._run(_DELETE)

    @asynccontextmanager
    async def lock(self, timeout_s: float = 30.0) -> AsyncGenerator[TokenStore]:
        """Hold the right to refresh; what is entered loads and saves meanwhile.

        Raises:
            TokenStoreFailed: Somebody else had it for ``timeout_s``, or has the portal by now; or the
                database does not answer.
            InvalidArgument: The database refuses us.
        """
        self._require()
        async with (
            self._opened(),
            self._database.locked(self._number, timeout_s=timeout_s, hold_s=self._hold_s) as locked,
        ):
            self._require()
            row = await self._run(_BEGIN, epoch=self._epoch)
            if row is None:
                raise self._not_the_owner()
            version, content = row
            self._held = _Held(locked, version, self._readable(content))
            try:
                yield self
            finally:
                self._held = None

    async def _replaced(self, content: bytes, version: int) -> Row | None:
        """Keep the only copy: while the database does not answer, it is asked again."""
        began = asyncio.get_running_loop().time()
        pauses = iter(_ASK_AGAIN_S)
        while True:
            try:
                row = await self._run(_REPLACE, version=version, content=content)
                # If only the answer was lost.
                return row or await self._run(_AFTER_ALL, content=content)
            except EngineUnavailable:
                if asyncio.get_running_loop().time() - began > self._hold_s:
                    raise
            await asyncio.sleep(next(pauses, _ASK_AGAIN_S[-1]))

    async def _run(self, query: "LiteralString", **values: object) -> Row | None:
        async with self._database.connection() as connection:
            cursor = await connection.execute(self._database.sql(query), {"key": self._key, **values})
            return await cursor.fetchone() if cursor.description else None

    @property
    def _number(self) -> int:
        """What the advisory lock is called."""
        digest = hashlib.sha256(f"{self._database.schema}\0{self._key}".encode("utf-8", "replace")).digest()
        return int.from_bytes(digest[:8], signed=True)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PostgresTokenStore):
            return NotImplemented
        here, there = self._database, other._database
        return (here.name, here.schema, self._key) == (there.name, there.schema, other._key)

    def __hash__(self) -> int:
        return hash((self._database.schema, self._key))

    def __repr__(self) -> str:
        return f"PostgresTokenStore({self._database.name}, {self._key!r:.60})"
