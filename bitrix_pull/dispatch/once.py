"""Handled once, also over a crash: what is handled is written down with what the handler writes."""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from inspect import isawaitable
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from bitrix_pull.dispatch.registry import CallNext, Context
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import Event, PullEvent
from bitrix_pull.redaction import get_logger
from bitrix_pull.telemetry import log_fields

C = TypeVar("C")

logger: Final = get_logger("dispatch")

_FORGET_EVERY_S = 3600.0

_CREATE = """
CREATE TABLE IF NOT EXISTS bitrix_pull_once (
    portal VARCHAR(255) NOT NULL, handler VARCHAR(255) NOT NULL, event VARCHAR(100) NOT NULL,
    handled_at BIGINT NOT NULL, PRIMARY KEY (portal, handler, event)
)
"""
_LOOK = "SELECT portal FROM bitrix_pull_once WHERE portal IS NULL"
_ENTER = "INSERT INTO bitrix_pull_once VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_FORGET = "DELETE FROM bitrix_pull_once WHERE portal = ? AND handled_at < ?"


@dataclass(slots=True, frozen=True)
class Entry:
    """That a handler has handled an event.

    Attributes:
        portal: ``event.portal``.
        handler: The handler's module and name.
        event: What tells the event from all others of the portal: its mid, and when it was taken.
        handled_at: When that was (unix).
    """

    portal: str
    handler: str
    event: str
    handled_at: int


@runtime_checkable
class Ledger(Protocol):
    """Where it is written down which events are handled: in the database that handlers write to."""

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """Begin a transaction, and return what handlers write to in it.

        It is committed when the block is left, and rolled back if that is by an exception.
        """
        ...

    async def enter(self, connection: Any, entry: Entry) -> bool:
        """Write an entry in a transaction; return False if it is there already.

        Where another process has just written it and not committed yet, wait for that one.
        """
        ...

    async def forget(self, connection: Any, portal: str, before: int) -> None:
        """Remove, in a transaction, the entries of a portal that are older than a time (unix)."""
        ...


class Once:
    """A middleware that lets a handler have one effect an event, whatever crashes and restarts.

    What a process has handled in the moment before it was killed comes again to the next one:
    then it is written down nowhere that it was handled. ``Once`` writes it into your database,
    in the same transaction as what the handler writes there, so that both are there or neither
    is; what is there already is not handled again. Each handler has its own entries, under its
    module and name.

    It holds for what is written by the connection that it hands to handlers, in one
    transaction, which is not for the handler to commit. An e-mail, say, cannot be taken back.
    Events without a mid, and the portal's own events, which say that there is a new state to
    fetch, are handled in a transaction too, and as often as they come.

    Example:
        database = sqlite3.connect("orders.db")
        pull.middleware(provides=["db"])(Once(database))

        @pull.on("order_update")
        async def handle(event: PullEvent, db: sqlite3.Connection) -> None:
            db.execute("UPDATE orders SET status = ? WHERE id = ?", …)

    Args:
        database: What to write to. One of

            - a connection: of ``sqlite3``, or any other of the DB-API; of ``psycopg`` or
              ``aiosqlite``, asynchronous too; of ``asyncpg``. Handlers then have their
              transactions one after the other. One that does not await blocks the event loop
              for as long as the database takes, as the handler's own statements do.
            - a function that returns a context manager of one, such as the ``connection`` of a
              ``psycopg_pool``, or the ``acquire`` of an ``asyncpg`` pool: for handlers at the
              same time.
            - a ``Ledger`` of your own.
        name: What handlers call the connection.
        keep: For how long entries are kept: longer than events can come again, which the push
            server allows for a day.

    Raises:
        InvalidArgument: An argument cannot work.
    """

    def __init__(self, database: Any, *, name: str = "db", keep: timedelta = timedelta(days=2)) -> None:
        if not isinstance(name, str) or not name.isidentifier():
            raise InvalidArgument(f"name must be what an argument can be called, not {name!r:.40}")
        if not isinstance(keep, timedelta) or keep <= timedelta(0):
            raise InvalidArgument("keep must be a timedelta greater than 0")
        self._ledger: Ledger = database if isinstance(database, Ledger) else SqlLedger(database)
        self._name = name
        self._keep_s = int(keep.total_seconds())
        self._forget_at: dict[str, float] = {}

    async def __call__(self, event: Event, call_next: CallNext, context: Context) -> object:
        """Handle the event in a transaction, unless it was handled."""
        async with self._ledger.transaction() as connection:
            context[self._name] = connection
            if not await self._enter(connection, event, context.handler):
                logger.info(
                    "handler %s has handled %s before",
                    context.handler,
                    event.label,
                    extra=event.log_fields | log_fields(handler=context.handler),
                )
                return None
            return await call_next(event)

    async def _enter(self, connection: Any, event: Event, handler: str) -> bool:
        if not isinstance(event, PullEvent) or not event.mid:
            return True
        now = int(time.time())
        # A server that has lost its counter hands out mids again, at another time.
        taken = event.mid if event.created_unix is None else f"{event.mid} {event.created_unix}"
        if not await self._ledger.enter(connection, Entry(event.portal, handler, taken, now)):
            return False
        if time.monotonic() >= self._forget_at.get(event.portal, 0.0):
            self._forget_at[event.portal] = time.monotonic() + _FORGET_EVERY_S
            await self._ledger.forget(connection, event.portal, now - self._keep_s)
        return True


class SqlLedger:
    """A ledger in a table ``bitrix_pull_once``, by any connection of the DB-API or one like asyncpg's.

    The table is made when it is first needed, unless it is there. For SQLite and PostgreSQL.

    Args:
        database: A connection, or a function that returns a context manager of one.

    Raises:
        InvalidArgument: It is neither.
    """

    def __init__(self, database: Any) -> None:
        if not callable(database) and not (hasattr(database, "execute") or hasattr(database, "cursor")):
            raise InvalidArgument(
                f"{type(database).__name__} is no database connection",
                advice="Pass a connection, a function that returns a context manager of one, or a Ledger.",
            )
        self._database = database
        self._is_connection = hasattr(database, "execute") or hasattr(database, "cursor")
        self._turn = asyncio.Lock()
        self._is_made = False

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Any]:
        """Begin a transaction, one at a time with a connection, and return that."""
        if self._is_connection:
            async with self._turn:
                await self._make(self._database)
                async with _transaction(self._database):
                    yield self._database
            return
        async with _entered(self._database()) as connection:
            await self._make(connection)
            async with _transaction(connection):
                yield connection

    async def enter(self, connection: Any, entry: Entry) -> bool:
        """Write an entry; return False if it is there already."""
        values = (entry.portal, entry.handler, entry.event, entry.handled_at)
        return await _executed(connection, _ENTER, *values) == 1

    async def forget(self, connection: Any, portal: str, before: int) -> None:
        """Remove the entries of a portal that are older than a time."""
        await _executed(connection, _FORGET, portal, before)

    async def _make(self, connection: Any) -> None:
        """Make the table if need be: who may not make one can find it there."""
        if self._is_made:
            return
        if not await self._is_there(connection):
            try:
                await self._run(connection, _CREATE)
            except Exception:
                # Another process may just have made it too.
                if not await self._is_there(connection):
                    raise
        self._is_made = True

    async def _is_there(self, connection: Any) -> bool:
        try:
            await self._run(connection, _LOOK)
        except Exception:
            return False
        return True

    async def _run(self, connection: Any, statement: str) -> None:
        async with _transaction(connection):
            await _executed(connection, statement)


@asynccontextmanager
async def _entered(manager: Any) -> AsyncGenerator[Any]:
    """Enter a context manager, whether it awaits or not."""
    if hasattr(manager, "__aenter__"):
        async with manager as entered:
            yield entered
    else:
        with manager as entered:
            yield entered


@asynccontextmanager
async def _transaction(connection: Any) -> AsyncGenerator[None]:
    """Begin, and commit or roll back, in the way of the connection."""
    begin: Callable[[], Any] | None = getattr(connection, "transaction", None)
    if callable(begin):
        async with _entered(begin()):
            yield
        return
    if _driver(connection) in ("sqlite3", "aiosqlite"):
        # Else it begins at the first write, with a lock that could not be waited for any more.
        await _awaited(connection.execute("BEGIN IMMEDIATE"))
    try:
        yield
    except BaseException:
        await _awaited(connection.rollback())
        raise
    await _awaited(connection.commit())


async def _executed(connection: Any, statement: str, *values: object) -> int:
    """Execute a statement; return how many rows it has written."""
    if hasattr(connection, "fetchval"):
        # As asyncpg's: parameters by number, and a status such as "INSERT 0 1".
        for number in range(1, len(values) + 1):
            statement = statement.replace("?", f"${number}", 1)
        status = await connection.execute(statement, *values)
        return int(str(status).rpartition(" ")[2]) if values else 0
    if getattr(sys.modules.get(_driver(connection)), "paramstyle", "qmark") != "qmark":
        statement = statement.replace("?", "%s")
    if hasattr(connection, "execute"):
        cursor = await _awaited(connection.execute(statement, values))
    else:
        cursor = connection.cursor()
        await _awaited(cursor.execute(statement, values))
    count: int = cursor.rowcount
    await _awaited(cursor.close())
    return count


def _driver(connection: Any) -> str:
    """Return the package that a connection is of."""
    return type(connection).__module__.partition(".")[0]


async def _awaited(result: Any) -> Any:
    return await result if isawaitable(result) else result
