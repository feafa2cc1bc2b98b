"""The database itself: connections, tables, and what its errors mean."""

import asyncio
import contextlib
import math
import os
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

from bitrix_pull.errors import EngineUnavailable, InvalidArgument, PullError, TokenStoreFailed
from bitrix_pull.hub.cancelling import cancellable
from bitrix_pull.redaction import one_line

try:
    import psycopg
    from psycopg import AsyncConnection, errors, sql
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.pq import TransactionStatus
except ImportError as _missing:  # pragma: no cover - the tests have it
    raise ImportError("this needs psycopg: pip install 'bitrix-pull[postgres]'") from _missing

if TYPE_CHECKING:
    from typing import LiteralString

Row = tuple[Any, ...]
Connection = AsyncConnection[Row]

LOWEST_VERSION: Final = 120_000
_SCHEMA_VERSION: Final = 1
_MAKING: Final = 0x6269_7472_6978
"""The advisory lock under which tables are made."""

_TABLES: Final = (
    "CREATE TABLE {schema}.resume_owner (portal text PRIMARY KEY, epoch bigint NOT NULL)",
    """
    CREATE TABLE {schema}.resume_point (
        portal text, key text, record text NOT NULL, PRIMARY KEY (portal, key)
    )
    """,
    """
    CREATE TABLE {schema}.resume_advance (
        portal text, key text, id bigint GENERATED ALWAYS AS IDENTITY, record text NOT NULL,
        PRIMARY KEY (portal, key, id)
    )
    """,
    """
    CREATE TABLE {schema}.token (
        key text PRIMARY KEY, epoch bigint NOT NULL, version bigint NOT NULL, content bytea
    )
    """,
    "CREATE TABLE {schema}.version (version integer NOT NULL)",
)
_NAMES: Final = ("resume_owner", "resume_point", "resume_advance", "token", "version")

_REFUSED = ("authentication failed", "no password", "pg_hba.conf", "does not exist", "permission denied")
"""What stands in the answers to a connection that another attempt gets too; they have no code."""

_PASSING = ("08", "25", "40", "53", "55", "57", "58")
"""Classes of the codes that another attempt may not get: PostgreSQL, appendix A."""


class Database:
    """A PostgreSQL database, and a few connections to it.

    It may be opened by several tasks of one event loop; it counts.

    Args:
        conninfo: ``postgresql://[user[:password]@]host[:port]/database``, or libpq's ``key=value``.
        schema: Where the tables are. It is made if need be.
        connections: How many there are at most, and beside them one for each refresh of tokens
            under way, of which there are as many at most.
        timeout_s: For how long to wait for a connection, and for an answer.

    Raises:
        InvalidArgument: An argument cannot work.
    """

    def __init__(self, conninfo: str, *, schema: str, connections: int, timeout_s: float) -> None:
        try:
            parts = conninfo_to_dict(conninfo)
        except (psycopg.Error, TypeError, AttributeError):
            # Not its text: it may hold a password.
            raise InvalidArgument(
                "the database's address is none", advice="Write postgresql://USER@HOST/DATABASE."
            ) from None
        if not isinstance(schema, str) or not schema.isprintable() or not 0 < len(schema.encode()) < 64:
            raise InvalidArgument("the schema must be printable text of 1 to 63 bytes")
        if connections < 1 or not 0 < timeout_s < math.inf:
            raise InvalidArgument("connections must be 1 or more, timeout_s more than 0")
        self.schema: str = schema
        self.name: str = f"{parts.get('host') or 'localhost'}/{parts.get('dbname') or ''}"
        """What it is called in errors and logs: host and database."""
        self._conninfo = conninfo
        self._timeout_s = timeout_s
        self._opened = 0
        self._opening = asyncio.Lock()
        self._is_made = False
        self._made: dict[str, bytes] = {}
        self._idle: list[Connection] = []
        self._room = asyncio.Semaphore(connections)
        self._room_for_locks = asyncio.Semaphore(connections)

    # -- life -----------------------------------------------------------------

    async def open(self) -> None:
        """Connect, and make the tables if need be.

        Raises:
            InvalidArgument: It cannot be used: it refuses us, or holds something else.
            EngineUnavailable: It does not answer. Later it may.
        """
        async with self._opening:
            if not self._is_made:
                await self._make()
                self._is_made = True
            self._opened += 1

    async def close(self) -> None:
        """Close all connections, once for each ``open``."""
        async with self._opening:
            self._opened = max(self._opened - 1, 0)
            if self._opened == 0:
                await self._close_idle()

    async def _close_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()

    # -- connections ------------------------------------------------------------

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """Give a connection for a statement, or a transaction, that is soon done.

        Raises:
            EngineUnavailable: No answer; whether what was asked is done is unknown. Or nothing
                can be written now.
            InvalidArgument: It is not allowed, or finds something that is not its own.
        """
        async with self._room:
            with self._problems():
                connection = self._idle.pop() if self._idle else await self._connected()
                try:
                    with self._deadline(connection, self._timeout_s):
                        yield connection
                finally:
                    if self._opened and _is_free(connection):
                        self._idle.append(connection)
                    else:
                        await connection.close()
                        # After a restart of the server the others are of no use either.
                        await self._close_idle()

    @asynccontextmanager
    async def locked(self, number: int, *, timeout_s: float, hold_s: float) -> AsyncGenerator["Locked"]:
        """Hold a lock among all who use the database, on a connection of its own.

        The server frees it when this process ends, and when it is silent for too long.

        Args:
            number: Which one: 64 bits with a sign.
            timeout_s: For how long to wait for it.
            hold_s: After how long without a word the server takes it away.

        Raises:
            TokenStoreFailed: Somebody else held it for ``timeout_s``.
            EngineUnavailable: See ``connection``.
            InvalidArgument: See ``connection``.
        """
        async with contextlib.AsyncExitStack() as stack:
            loop = asyncio.get_running_loop()
            ends = loop.time() + timeout_s
            try:
                async with asyncio.timeout(timeout_s):
                    await stack.enter_async_context(self._room_for_locks)
            except TimeoutError:
                raise _held_elsewhere(timeout_s) from None
            with self._problems():
                connection = await self._connected()
                stack.push_async_callback(connection.close)
                wait_ms = max(round((ends - loop.time()) * 1000), 1)
                with self._deadline(connection, self._timeout_s + timeout_s):
                    await connection.execute("BEGIN")
                    # They end with the transaction, so whatever stands between may share connections out.
                    await connection.execute(
                        "SELECT set_config('lock_timeout', %s, true),"
                        " set_config('idle_in_transaction_session_timeout', %s, true)",
                        [f"{wait_ms}ms", f"{max(round(hold_s * 1000), 1)}ms"],
                    )
                    try:
                        await connection.execute("SELECT pg_advisory_xact_lock(%s)", [number])
                    except errors.LockNotAvailable:
                        raise _held_elsewhere(timeout_s) from None
            yield Locked(self, connection)

    async def _connected(self) -> Connection:
        # A database's own deadline is in whole seconds.
        try:
            async with asyncio.timeout(self._timeout_s):
                connection: Connection = await AsyncConnection.connect(
                    self._conninfo,
                    autocommit=True,
                    # What shares connections out between may not know of prepared statements.
                    prepare_threshold=None,
                    application_name="bitrix_pull",
                )
        except TimeoutError:
            raise EngineUnavailable(f"the database at {self.name} does not answer") from None
        if connection.info.server_version < LOWEST_VERSION:
            await connection.close()
            raise InvalidArgument(
                f"the database at {self.name} is of version {connection.info.server_version // 10_000}",
                advice="PostgreSQL 12 or newer is needed.",
            )
        return connection

    @contextmanager
    def _deadline(self, connection: Connection, timeout_s: float) -> Generator[None]:
        """End the connection if it is not done in time: a server that is gone answers no cancellation."""
        timer = asyncio.get_running_loop().call_later(timeout_s, _shut, connection)
        try:
            yield
        finally:
            timer.cancel()

    def sql(self, query: "LiteralString") -> bytes:
        """Return a statement in which ``{schema}`` stands for the schema."""
        made = self._made.get(query)
        if made is None:
            made = self._made[query] = (
                sql.SQL(query).format(schema=sql.Identifier(self.schema)).as_string(None).encode()
            )
        return made

    # -- errors ---------------------------------------------------------------

    @contextmanager
    def _problems(self) -> Generator[None]:
        with cancellable():
            try:
                yield
            except (psycopg.Error, OSError) as error:
                raise self._meaning(error) from None

    def _meaning(self, error: "psycopg.Error | OSError") -> PullError:
        code = error.sqlstate or "" if isinstance(error, psycopg.Error) else ""
        # Not the details of a server's answer: they may hold what was to be written.
        primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
        told = one_line(primary or str(error))[:200]
        refused = not code and any(word in told for word in _REFUSED)
        if code[:2] in ("28", "3D") or code == "42501" or refused:
            return InvalidArgument(
                f"the database at {self.name} refuses us ({told})",
                advice="See to user, password and rights: to make a schema in the database, or all rights "
                "to one that was made beforehand.",
            )
        if code[:2] in _PASSING or (not code and isinstance(error, OSError | psycopg.OperationalError)):
            return EngineUnavailable(f"the database at {self.name} does not answer ({told})")
        return InvalidArgument(
            f"the schema {self.schema} of the database at {self.name} cannot be used ({told})",
            advice="Name another schema, or one that bitrix_pull has made.",
        )

    # -- tables ---------------------------------------------------------------

    async def _make(self) -> None:
        async with self.connection() as connection:
            if await self._has_tables(connection):
                return
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_MAKING])
                # Somebody else may have made them meanwhile.
                if await self._has_tables(connection):
                    return
                if not await _one(
                    connection, "SELECT count(*) FROM pg_namespace WHERE nspname = %s", self.schema
                ):
                    await connection.execute(self.sql("CREATE SCHEMA {schema}"))
                for statement in _TABLES:
                    await connection.execute(self.sql(statement))
                await connection.execute(
                    self.sql("INSERT INTO {schema}.version VALUES (%s)"), [_SCHEMA_VERSION]
                )

    async def _has_tables(self, connection: Connection) -> bool:
        """Tell whether the tables are there.

        Raises:
            InvalidArgument: They are those of something else, or of a newer version.
        """
        # Not to_regclass and its like: what they remember may be older than a lock that was waited for.
        cursor = await connection.execute(
            "SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
            " WHERE nspname = %s AND relname = ANY(%s)",
            [self.schema, list(_NAMES)],
        )
        found = [name for (name,) in await cursor.fetchall()]
        if not found:
            return False
        if len(found) < len(_NAMES):
            raise InvalidArgument(
                f"the schema {self.schema} of the database at {self.name} has a {found[0]} of something else",
                advice="Name another schema.",
            )
        version = await _one(connection, self.sql("SELECT version FROM {schema}.version"))
        if version != _SCHEMA_VERSION:
            raise InvalidArgument(
                f"the tables in the schema {self.schema} of the database at {self.name} are of version "
                f"{version}, and this is made for {_SCHEMA_VERSION}",
                advice="Update bitrix_pull here, or name another schema.",
            )
        return True

    def __repr__(self) -> str:
        return f"Database({self.name}, {self.schema})"


class Locked:
    """A lock that is held."""

    def __init__(self, database: Database, connection: Connection) -> None:
        self._database = database
        self._connection = connection

    async def require(self) -> None:
        """Do nothing while it is held, and let the time of its silence begin anew.

        Raises:
            TokenStoreFailed: The server has taken it away, or does not answer.
        """
        try:
            with self._database._deadline(self._connection, self._database._timeout_s):  # pyright: ignore[reportPrivateUsage]
                await self._connection.execute("SELECT 1")
        except psycopg.Error:
            raise TokenStoreFailed("another worker may be refreshing the tokens: the lock was lost") from None


def _held_elsewhere(timeout_s: float) -> TokenStoreFailed:
    return TokenStoreFailed(f"the tokens have been in refresh elsewhere for {timeout_s:g} s")


async def _one(connection: Connection, query: "LiteralString | bytes", *values: str) -> Any:
    """Return the one value that a query finds, or None."""
    row = await (await connection.execute(query, values)).fetchone()
    return None if row is None else row[0]


def _is_free(connection: Connection) -> bool:
    return not connection.closed and connection.info.transaction_status is TransactionStatus.IDLE


def _shut(connection: Connection) -> None:
    with (
        contextlib.suppress(psycopg.Error, OSError),
        socket.socket(fileno=os.dup(connection.fileno())) as own,
    ):
        own.shutdown(socket.SHUT_RDWR)
