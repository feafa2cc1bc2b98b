"""Portals, their tokens and their resume points in one SQLite database."""

import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import orjson

from bitrix_pull.connection.sqlite_store import SqliteStore
from bitrix_pull.connection.stores import ResumeStore
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.files import in_thread
from bitrix_pull.hub.looks import Looks
from bitrix_pull.hub.portals import Portal, PortalChange, unknown
from bitrix_pull.hub.records import read_portal, write_portal
from bitrix_pull.hub.told import Told
from bitrix_pull.portal.oauth import OAuth
from bitrix_pull.portal.token_database import OPENING, SqliteTokenStore
from bitrix_pull.portal.token_files import keep_private

T = TypeVar("T")

_Row = tuple[str, bytes, int, int]
"""Key, record, whether it is paused, and the number of its last change."""

_BUSY_TIMEOUT_S = 10.0

_TABLES = """
    CREATE TABLE IF NOT EXISTS portal (
        key TEXT PRIMARY KEY, record BLOB NOT NULL, paused INTEGER NOT NULL, changed INTEGER NOT NULL
    );
    CREATE TABLE IF NOT EXISTS portal_change (
        only INTEGER PRIMARY KEY CHECK (only = 1), last INTEGER NOT NULL
    );
    CREATE TABLE IF NOT EXISTS hub_worker (
        name TEXT PRIMARY KEY, at REAL NOT NULL, health BLOB NOT NULL
    );
    INSERT OR IGNORE INTO portal_change VALUES (1, 0);
"""


class SqlitePortals:
    """Keeps the portals of one hub, their tokens and their resume points in an SQLite database.

    Mode 0600: it holds tokens and the application's secret. One hub runs on it at a time,
    and other processes may add, remove and pause portals meanwhile, as
    ``bitrix-pull hub add`` does: the hub sees that within a second.

    Args:
        path: The database. It is made if need be; its folder must exist.

    Attributes:
        resume: The resume points.

    Raises:
        InvalidArgument: It cannot be a path.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.resume: ResumeStore | None = SqliteStore(path)
        self._path = Path(path).absolute()
        self._told = Told()
        self._last = -1
        self._is_open = False
        self._is_made = False
        self._looks = Looks()

    async def open(self) -> None:
        """See that it can be used, and make its tables if need be.

        Raises:
            InvalidArgument: It cannot be used.
        """
        await self._do(lambda database: None)
        self._is_open = True

    async def portals(self) -> Collection[Portal]:
        """Return all portals. One whose record cannot be read fails when it is served.

        Raises:
            InvalidArgument: The database is damaged.
        """
        last, rows = await self._do(lambda database: (_last(database), _rows(database)))
        portals = self._told.all(_versions(rows), self._reader(rows))
        self._last = last
        return portals

    async def changes(self) -> AsyncGenerator[PortalChange]:
        """Tell what this object and other processes change."""
        while self._is_open:
            for change in await self._news():
                yield change
            await self._looks.wait()

    async def _news(self) -> list[PortalChange]:
        def look(database: sqlite3.Connection) -> tuple[int, list[_Row] | None]:
            last = _last(database)
            return last, None if last == self._last else _rows(database)

        last, rows = await self._do(look)
        self._last = last
        if rows is None:
            return []
        versions = _versions(rows)
        return self._told.news(versions, self._told.changed(versions), self._reader(rows))

    async def put(self, portal: Portal) -> None:
        """Keep a portal and its tokens, in place of what was kept under its key.

        Raises:
            InvalidArgument: It holds what cannot be written down, or the database cannot be used.
        """
        record = orjson.dumps(write_portal(portal))
        credentials = portal.credentials
        if isinstance(credentials, OAuth):
            tokens = self.tokens(portal.key)
            # Its own are not read and written back: a refresh may come in between.
            if credentials.store != tokens:
                await tokens.save(await credentials.store.load())
        await self._change(
            "INSERT OR REPLACE INTO portal VALUES (?, ?, ?, (SELECT last FROM portal_change))",
            (portal.key, record, portal.paused),
        )

    async def remove(self, key: str) -> None:
        """Forget a portal, and its tokens."""
        if not await self._change("DELETE FROM portal WHERE key = ?", (key,)):
            raise unknown(key)
        await self.tokens(key).delete()

    async def pause(self, key: str, paused: bool) -> None:
        """Say whether a portal is paused."""
        statement = "UPDATE portal SET paused = ?, changed = (SELECT last FROM portal_change) WHERE key = ?"
        if not await self._change(statement, (paused, key)):
            raise unknown(key)

    def tokens(self, key: str) -> SqliteTokenStore:
        """Return where the tokens of a portal are."""
        return SqliteTokenStore(self._path, key)

    async def report(self, worker: str, health: Mapping[str, Any]) -> None:
        """Write down how the hub is doing, for ``reports``."""
        content = orjson.dumps(dict(health))
        await self._do(
            lambda database: (
                database.execute(
                    "INSERT OR REPLACE INTO hub_worker VALUES (?, ?, ?)", (worker, time.time(), content)
                ).rowcount
            )
        )

    async def reports(self) -> dict[str, tuple[float, dict[str, Any]]]:
        """Return what hubs have written down last: when (unix), and how they were, by their names."""
        rows = await self._do(
            lambda database: database.execute("SELECT name, at, health FROM hub_worker").fetchall()
        )
        return {name: (at, orjson.loads(health)) for name, at, health in rows}

    async def withdraw(self, worker: str) -> None:
        """Take back what a hub has written down: it runs no more."""
        await self._do(
            lambda database: database.execute("DELETE FROM hub_worker WHERE name = ?", (worker,)).rowcount
        )

    async def close(self) -> None:
        """End ``changes``."""
        self._is_open = False
        self._looks.hurry()

    def _reader(self, rows: Iterable[_Row]) -> Callable[[str], Portal]:
        by_key = {row[0]: row for row in rows}

        def read(key: str) -> Portal:
            _, record, paused, _ = by_key[key]
            content: Any = {}
            with contextlib.suppress(orjson.JSONDecodeError):
                content = orjson.loads(record)
            return read_portal(key, content, self.tokens(key), paused=bool(paused))

        return read

    async def _change(self, statement: str, values: tuple[Any, ...]) -> int:
        """Change something, and number the change; return how many rows there were."""

        def change(database: sqlite3.Connection) -> int:
            database.execute("BEGIN IMMEDIATE")
            database.execute("UPDATE portal_change SET last = last + 1")
            changed = database.execute(statement, values).rowcount
            database.execute("COMMIT")
            return changed

        changed = await self._do(change)
        self._looks.hurry()
        return changed

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def with_database() -> T:
            with self._problems():
                with OPENING, contextlib.suppress(FileExistsError):
                    os.close(os.open(self._path.resolve(), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
                keep_private(self._path, f"the database {self._path}")
                # Closed within the block, so a transaction that broke off is rolled back.
                with OPENING:
                    database = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
                with closing(database):
                    if not self._is_made:
                        # It takes effect in a new database only.
                        database.execute("PRAGMA page_size = 512")
                        database.execute("PRAGMA journal_mode = WAL")
                        database.executescript(_TABLES)
                        self._is_made = True
                    database.execute("PRAGMA synchronous = FULL")
                    return work(database)

        return await in_thread(with_database)

    @contextlib.contextmanager
    def _problems(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            text = f"the portals in {self._path} cannot be used: {error}"
        except OSError as error:
            text = f"the portals in {self._path} cannot be used: {error.strerror}"
        else:
            return
        raise InvalidArgument(text, advice="Name a database of bitrix_pull's own, in a folder that exists.")

    def __repr__(self) -> str:
        return f"SqlitePortals({str(self._path)!r})"


def _last(database: sqlite3.Connection) -> int:
    (last,) = database.execute("SELECT last FROM portal_change").fetchone()
    return int(last)


def _rows(database: sqlite3.Connection) -> list[_Row]:
    return database.execute("SELECT key, record, paused, changed FROM portal ORDER BY key").fetchall()


def _versions(rows: Iterable[_Row]) -> dict[str, object]:
    return {key: changed for key, _, _, changed in rows}
