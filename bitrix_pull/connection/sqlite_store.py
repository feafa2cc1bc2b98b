"""Resume points of many clients in one SQLite database."""

import os
import sqlite3
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import ClassVar

import orjson

from bitrix_pull.connection.disk_store import DiskStore
from bitrix_pull.connection.resume_point import ResumePoint
from bitrix_pull.errors import InvalidArgument, ResumeStoreFailed

_BUSY_TIMEOUT_S = 5.0

_TABLES = {"resume_point": ["id", "key", "record"], "resume_advance": ["id", "record"]}
_FIRST_TABLES = {
    "point": ["key", "mid", "began", "server_unix", "portal_unix"],
    "settled": ["key", "mid"],
}
"""What the first release made."""
_ADVANCES = 2**32
"""The advances of a point have the ids from its own id times this on: so each point's are together,
and a save writes the one page at their end."""
_FRIENDS = {"tokens", "portal", "portal_change", "hub_worker"}
"""The tables of the token store and of a hub: all may live in one database."""


class SqliteStore(DiskStore):
    """Keeps the resume points of any number of clients of one process in an SQLite database.

    Mode 0600; beside it lies an empty ``.lock`` file. The database may be that of
    ``SqliteTokenStore`` too.
    """

    one_at_a_time = (
        "Give each process a database of its own; within one process, let all clients share one "
        "SqliteStore object."
    )
    unreadable: ClassVar[tuple[type[Exception], ...]] = (sqlite3.Error,)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Use this database; it is made if need be, its directory must exist."""
        super().__init__(path)
        self._connected: sqlite3.Connection | None = None
        self._identity: os.stat_result | None = None

    def _begin(self) -> None:
        target = self._target
        with suppress(FileExistsError):
            os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        self._identity = os.stat(target)
        if not stat.S_ISREG(self._identity.st_mode):
            raise InvalidArgument(f"{self._name} is no regular file", advice="Name another file.")
        os.chmod(target, 0o600)
        database = sqlite3.connect(
            target, timeout=_BUSY_TIMEOUT_S, check_same_thread=False, isolation_level=None
        )
        try:
            _prepare(database)
        except BaseException:
            database.close()
            raise
        self._connected = database

    def _end(self) -> None:
        database, self._connected = self._connected, None
        if database is not None:
            database.close()

    def _load(self, key: str) -> ResumePoint | None:
        with self._problems():
            row = self._database.execute(
                "SELECT id, record FROM resume_point WHERE key = ?", (key,)
            ).fetchone()
            if row is None:
                return None
            advances = self._database.execute(
                "SELECT record FROM resume_advance WHERE id >= ? AND id < ? ORDER BY id", _ids(row[0])
            )
            return _read(row[1]).joined([_read(record) for (record,) in advances])

    def _save(self, key: str, point: ResumePoint) -> None:
        if not self._is_in_place():
            # Somebody has removed it; where its folder is still there, it can be made anew.
            self._end()
            with self._problems():
                self._begin()
        with _transaction(self._database) as database:
            _put(database, key, point)

    def _advance(self, key: str, news: ResumePoint) -> None:
        if not self._is_in_place():
            raise ResumeStoreFailed(f"{self._name} was removed while it was in use")
        record = orjson.dumps(news.write())
        with _transaction(self._database) as database:
            row = database.execute("SELECT id FROM resume_point WHERE key = ?", (key,)).fetchone()
            if row is None:
                raise ResumeStoreFailed(f"{self._name} has lost the resume point that was saved in it")
            first, end = _ids(row[0])
            database.execute(
                """
                INSERT INTO resume_advance
                SELECT coalesce(max(id) + 1, ?), ? FROM resume_advance WHERE id >= ? AND id < ?
                """,
                (first, record, first, end),
            )

    @property
    def _database(self) -> sqlite3.Connection:
        if self._connected is None:
            raise ResumeStoreFailed(f"{self._name} is not open")
        return self._connected

    def _is_in_place(self) -> bool:
        """Tell whether the open database is the one that a start would read.

        SQLite itself goes on writing to a file that somebody has removed.
        """
        try:
            return self._identity is not None and os.path.samestat(self._identity, os.stat(self._target))
        except FileNotFoundError:
            return False


def _prepare(database: sqlite3.Connection) -> None:
    """Make sure that it is a sound database of ours, and make its tables if need be.

    Raises:
        sqlite3.Error: It is no database, or cannot be written.
        ValueError: It is damaged, or one of something else.
    """
    if database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise ValueError("SQLite finds it malformed")
    names = database.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
    )
    columns = "SELECT name FROM pragma_table_info(?) ORDER BY cid"
    tables = {
        name: [column for (column,) in database.execute(columns, (name,))] for (name,) in names.fetchall()
    }
    known = {**_TABLES, **_FIRST_TABLES}
    for name, found in tables.items():
        if name not in _FRIENDS and known.get(name) != found:
            raise ValueError("it is a database of something else")
    # What is written is written by the page, and a save is small.
    database.execute("PRAGMA page_size = 512")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    with _transaction(database):
        database.execute(
            """
            CREATE TABLE IF NOT EXISTS resume_point (
                id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, record BLOB NOT NULL
            )
            """
        )
        database.execute(
            """
            CREATE TABLE IF NOT EXISTS resume_advance (id INTEGER PRIMARY KEY, record BLOB NOT NULL)
            """
        )
        if _FIRST_TABLES.keys() <= tables.keys():
            _take_over_first_tables(database)


def _take_over_first_tables(database: sqlite3.Connection) -> None:
    rows = database.execute("SELECT key, mid, began, server_unix, portal_unix FROM point").fetchall()
    for key, mid, began, *beginning in rows:
        settled = database.execute("SELECT mid FROM settled WHERE key = ? ORDER BY mid", (key,))
        record = {
            "mid": mid,
            "began": beginning if began else None,
            "settled": [settled_mid for (settled_mid,) in settled],
        }
        _put(database, key, ResumePoint.read(record))
    database.execute("DROP TABLE point")
    database.execute("DROP TABLE settled")


def _put(database: sqlite3.Connection, key: str, point: ResumePoint) -> None:
    database.execute("INSERT OR IGNORE INTO resume_point (key, record) VALUES (?, x'')", (key,))
    database.execute("UPDATE resume_point SET record = ? WHERE key = ?", (orjson.dumps(point.write()), key))
    (identity,) = database.execute("SELECT id FROM resume_point WHERE key = ?", (key,)).fetchone()
    database.execute("DELETE FROM resume_advance WHERE id >= ? AND id < ?", _ids(identity))


def _ids(point: int) -> tuple[int, int]:
    return point * _ADVANCES, (point + 1) * _ADVANCES


@contextmanager
def _transaction(database: sqlite3.Connection) -> Generator[sqlite3.Connection]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield database
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _read(record: object) -> ResumePoint:
    if not isinstance(record, bytes | str):
        raise ValueError("a record is no text")
    try:
        return ResumePoint.read(orjson.loads(record))
    except orjson.JSONDecodeError:
        raise ValueError("a record is no JSON") from None
