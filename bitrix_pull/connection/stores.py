"""Where a resume point outlives the process: in a file, in SQLite, or nowhere."""

import asyncio
import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

import orjson

from bitrix_pull.connection.cursor import Beginning, ResumePoint
from bitrix_pull.errors import InvalidArgument

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no flock
    fcntl = None  # type: ignore[assignment]


@runtime_checkable
class ResumeStore(Protocol):
    """Keeps resume points. They hold message ids only: no token, no channel.

    A client opens its store when it starts and closes it when it stops; a store that
    serves several clients counts. ``key`` tells portal, application and user.
    """

    async def open(self) -> None:
        """Make ready.

        Raises:
            InvalidArgument: It cannot be used; another process may be using it.
        """
        ...

    async def load(self, key: str) -> ResumePoint | None:
        """Return what was saved last, or None."""
        ...

    async def save(self, key: str, point: ResumePoint) -> None:
        """Save durably: once this returns, a crash cannot undo it."""
        ...

    async def close(self) -> None:
        """Let go of it; it may be opened again."""
        ...


class MemoryStore:
    """Keeps resume points for as long as the process lives."""

    def __init__(self) -> None:
        """Create an empty store."""
        self._points: dict[str, ResumePoint] = {}

    async def open(self) -> None:
        """Do nothing."""

    async def load(self, key: str) -> ResumePoint | None:
        """Return what was saved last, or None."""
        return self._points.get(key)

    async def save(self, key: str, point: ResumePoint) -> None:
        """Save for this process."""
        self._points[key] = point

    async def close(self) -> None:
        """Do nothing."""


class _Lock:
    """Keeps a second process away: an advisory lock on a file of its own beside the store."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f"{path.name}.lock")
        self._file: IO[str] | None = None
        self._users = 0

    def acquire(self) -> None:
        if self._users == 0:
            self._file = _take(self._path)
        self._users += 1

    def release(self) -> bool:
        """Return True if nobody uses it any more."""
        self._users -= 1
        if self._users == 0 and self._file is not None:
            self._file.close()
            self._file = None
        return self._users == 0


def _take(path: Path) -> IO[str]:
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+")
    except OSError as error:
        raise InvalidArgument(f"the resume store {path} cannot be used: {error.strerror}") from None
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise InvalidArgument(
                f"the resume store {path.with_suffix('')} is in use by another client",
                advice="Give each client a store of its own, or share one SqliteStore object.",
            ) from None
    return file


class FileStore:
    """Keeps the resume point of one client in a JSON file, mode 0600.

    Each save writes a new file, syncs it and puts it in the place of the old one, so the
    file is whole at any moment.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Use this file; its directory must exist."""
        self._path = Path(path)
        self._lock = _Lock(self._path)
        self._points: dict[str, dict[str, Any]] = {}

    async def open(self) -> None:
        """Lock the file and read it."""
        await _to_the_end(self._open, undo=self._lock.release)

    def _open(self) -> None:
        self._lock.acquire()
        try:
            self._points = orjson.loads(self._path.read_bytes())["points"]
        except FileNotFoundError:
            self._points = {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._lock.release()
            raise InvalidArgument(
                f"the resume store {self._path} cannot be read ({type(error).__name__})",
                advice="Delete it to start anew, or name another file.",
            ) from None

    async def load(self, key: str) -> ResumePoint | None:
        """Return what was saved last, or None."""
        point = self._points.get(key)
        if point is None:
            return None
        began = point["began"]
        return ResumePoint(point["mid"], tuple(point["settled"]), began and Beginning(*began))

    async def save(self, key: str, point: ResumePoint) -> None:
        """Replace the file, durably."""
        self._points[key] = {
            "mid": point.mid,
            "settled": list(point.settled),
            "began": point.began and [point.began.server_unix, point.began.portal_unix],
        }
        # Indented for a person's sake, and by orjson, as the standard library takes its time for that.
        text = orjson.dumps({"points": self._points}, option=orjson.OPT_INDENT_2)
        await asyncio.to_thread(self._write, text)

    def _write(self, text: bytes) -> None:
        handle, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise

    async def close(self) -> None:
        """Unlock the file."""
        self._lock.release()


class SqliteStore:
    """Keeps the resume points of any number of clients of one process in an SQLite database."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Use this database; it is made if need be, its directory must exist."""
        self._path = Path(path)
        self._lock = _Lock(self._path)
        self._database: sqlite3.Connection | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Lock the database, and make its tables if need be."""
        async with self._turn:
            await _to_the_end(self._open, undo=self._close)

    def _open(self) -> None:
        self._lock.acquire()
        if self._database is not None:
            return
        try:
            database = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
            self._path.chmod(0o600)
            database.executescript(
                """
                PRAGMA journal_mode = WAL;
                PRAGMA synchronous = FULL;
                CREATE TABLE IF NOT EXISTS point (
                    key TEXT PRIMARY KEY, mid TEXT NOT NULL,
                    began INTEGER NOT NULL, server_unix REAL, portal_unix REAL
                );
                CREATE TABLE IF NOT EXISTS settled (
                    key TEXT NOT NULL, mid TEXT NOT NULL, PRIMARY KEY (key, mid)
                ) WITHOUT ROWID;
                """
            )
        except (sqlite3.Error, OSError) as error:
            self._lock.release()
            raise InvalidArgument(
                f"the resume store {self._path} is no database that can be used ({error})",
                advice="Delete it to start anew, or name another file.",
            ) from None
        self._database = database

    async def load(self, key: str) -> ResumePoint | None:
        """Return what was saved last, or None."""
        async with self._turn:
            return await asyncio.to_thread(self._load, key)

    def _load(self, key: str) -> ResumePoint | None:
        assert self._database is not None
        row = self._database.execute(
            "SELECT mid, began, server_unix, portal_unix FROM point WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            return None
        settled = self._database.execute("SELECT mid FROM settled WHERE key = ? ORDER BY mid", (key,))
        began = Beginning(row[2], row[3]) if row[1] else None
        return ResumePoint(row[0], tuple(mid for (mid,) in settled), began)

    async def save(self, key: str, point: ResumePoint) -> None:
        """Write what has changed, in one transaction."""
        async with self._turn:
            await asyncio.to_thread(self._save, key, point)

    def _save(self, key: str, point: ResumePoint) -> None:
        database = self._database
        assert database is not None
        database.execute("BEGIN IMMEDIATE")
        try:
            began = point.began or Beginning(None, None)
            database.execute(
                "INSERT OR REPLACE INTO point VALUES (?, ?, ?, ?, ?)",
                (key, point.mid, point.began is not None, began.server_unix, began.portal_unix),
            )
            database.execute("DELETE FROM settled WHERE key = ? AND mid <= ?", (key, point.mid))
            database.executemany(
                "INSERT OR IGNORE INTO settled VALUES (?, ?)", ((key, mid) for mid in point.settled)
            )
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")

    async def close(self) -> None:
        """Close the database when its last client has gone."""
        async with self._turn:
            self._close()

    def _close(self) -> None:
        if self._lock.release() and self._database is not None:
            self._database.close()
            self._database = None


async def _to_the_end(work: Callable[[], None], *, undo: Callable[[], object]) -> None:
    """Do something in a thread; if cancelled, wait for it and undo it: a thread cannot be stopped."""
    doing = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait({doing})
        if not doing.cancelled() and doing.exception() is None:
            undo()
        raise


def as_store(resume: "str | os.PathLike[str] | ResumeStore | None") -> ResumeStore:
    """Return the store that a user means: a path stands for a file.

    Raises:
        InvalidArgument: It is none.
    """
    if resume is None:
        return MemoryStore()
    if isinstance(resume, str | os.PathLike):
        return FileStore(resume)
    if isinstance(resume, ResumeStore):
        return resume
    raise InvalidArgument(f"resume must be a path or a ResumeStore, not {type(resume).__name__}")
