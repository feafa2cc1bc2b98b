"""Tokens of many portals in one SQLite database."""

import os
import sqlite3
import threading
import zlib
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from os import PathLike
from typing import Any

from bitrix_pull.errors import InvalidArgument, TokenStoreFailed
from bitrix_pull.files import in_thread
from bitrix_pull.portal.token_files import DiskTokenStore, keep_private, read_tokens, write_tokens
from bitrix_pull.portal.token_stores import AUTHORISE, TokenStore
from bitrix_pull.portal.tokens import Tokens

_LOCKS = 16
_BUSY_TIMEOUT_S = 10.0

OPENING = threading.Lock()
"""A process that closes a file lets go of all locks that it has on it, SQLite's included: what
makes the file has closed it before SQLite opens it."""


class SqliteTokenStore(DiskTokenStore):
    """Keeps the tokens of one application on one portal in a database that holds many.

    Beside the database, mode 0600, lie up to 16 empty ``.lock`` files, among which the keys
    are shared out: refreshes of different portals mostly do not wait for each other.

    Args:
        path: The database. The first save makes it; its folder must exist.
        key: Tells this portal's tokens from others. A portal keeps its ``member_id`` for
            good, while its domain may change. With several applications, name that too.
            ``members()`` lists the keys of the database, whatever this one is.

    Raises:
        InvalidArgument: The key is empty or no printable text, or the path cannot be one.
    """

    what = "token database"

    def __init__(self, path: str | PathLike[str], key: str) -> None:
        super().__init__(path)
        if not isinstance(key, str) or not key or not key.isprintable():
            raise InvalidArgument(
                "the key of the tokens is missing, empty or not printable", advice="Use the member_id."
            )
        self._key = key

    def __eq__(self, other: object) -> bool:
        """Tell whether both are the same place."""
        if not isinstance(other, SqliteTokenStore):
            return NotImplemented
        return (self._path, self._key) == (other._path, other._key)

    def __hash__(self) -> int:
        return hash((self._path, self._key))

    @property
    def _lock_suffix(self) -> str:
        return f"-{zlib.crc32(self._key.encode('utf-8', 'replace')) % _LOCKS:02}.lock"

    def _load(self) -> Tokens:
        with self._problems("read"), closing(self._connect()) as database:
            return self._read(database)

    def _members(self) -> tuple[str, ...]:
        if not self._path.exists():
            return ()
        with self._problems("read"), closing(self._connect()) as database:
            return tuple(key for (key,) in self._select(database, "SELECT key FROM tokens ORDER BY key"))

    def _delete(self) -> None:
        with self._problems("written"), closing(self._connect()) as database, self._sqlite_problems():
            database.execute("DELETE FROM tokens WHERE key = ?", (self._key,))

    @asynccontextmanager
    async def _locked(self) -> AsyncGenerator[TokenStore]:
        # All that can be done before is done before the refresh token is spent; and while this
        # connection is open, SQLite keeps its log, which a commit would else begin by syncing.
        database = self._create()
        try:
            await in_thread(lambda: self._prepare(database))
            yield _LockedDatabase(lambda: self._read(database), lambda tokens: self._write(database, tokens))
        finally:
            await in_thread(database.close)

    def _create(self) -> sqlite3.Connection:
        with self._problems("written"):
            with OPENING, suppress(FileExistsError):
                os.close(os.open(self._path.resolve(), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            return self._connect()

    def _prepare(self, database: sqlite3.Connection) -> None:
        with self._sqlite_problems():
            # A commit to a log survives a kill as soon as it is written, and is synced after that.
            with suppress(sqlite3.OperationalError):  # Somebody else is just setting it.
                database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute(
                "CREATE TABLE IF NOT EXISTS tokens (key TEXT PRIMARY KEY, content BLOB NOT NULL)"
            )

    def _connect(self) -> sqlite3.Connection:
        keep_private(self._path, self._name)
        with OPENING, self._sqlite_problems():
            return sqlite3.connect(
                self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )

    def _read(self, database: sqlite3.Connection) -> Tokens:
        rows = self._select(database, "SELECT content FROM tokens WHERE key = ?", self._key)
        if not rows:
            raise InvalidArgument(f"{self._name} holds none for {self._key!r:.60}", advice=AUTHORISE)
        return read_tokens(rows[0][0], self._name)

    def _select(self, database: sqlite3.Connection, query: str, *values: str) -> list[tuple[Any, ...]]:
        """Return what a query finds; nothing before the first save has made the table."""
        with self._sqlite_problems():
            try:
                return database.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" not in str(error):
                    raise
                return []

    def _write(self, database: sqlite3.Connection, tokens: Tokens) -> None:
        statement = "INSERT OR REPLACE INTO tokens VALUES (?, ?)"
        with self._sqlite_problems():
            database.execute(statement, (self._key, write_tokens(tokens)))

    @contextmanager
    def _sqlite_problems(self) -> Generator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise TokenStoreFailed(f"{self._name} is in use by others ({error})") from None
            raise InvalidArgument(f"{self._name} cannot be used ({error})") from None
        except sqlite3.Error as error:
            raise InvalidArgument(f"{self._name} is no database that can be used ({error})") from None


@dataclass(frozen=True, slots=True)
class _LockedDatabase:
    """The tokens of one key while that is locked."""

    read: Callable[[], Tokens]
    write: Callable[[Tokens], None]

    async def load(self) -> Tokens:
        return await in_thread(self.read)

    async def save(self, tokens: Tokens, /) -> None:
        await in_thread(lambda: self.write(tokens))
