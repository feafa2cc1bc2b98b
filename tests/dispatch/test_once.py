"""One effect an event: what is handled is written down with what the handler writes, or neither is."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bitrix_pull import Entry, Ledger, Once, PortalEvent, PullEvent, SqlLedger
from bitrix_pull.dispatch.registry import Context
from bitrix_pull.dispatch.router import Router
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import HandlerFailed
from tests.dispatch.rig import event, mids, running
from tests.postgres import postgres


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A PostgreSQL server, or a skipped test that says why."""
    with postgres() as conninfo:
        yield conninfo


@dataclass
class Database:
    """What handlers write to: one table, ``orders (n)``."""

    database: Any
    """What ``Once`` is given."""
    execute: Callable[..., Any]
    """Executes a statement by the connection that a handler has got."""
    rows: Callable[[], list[int]]
    """Returns the numbers in the table, in order, by a connection of its own."""


def sqlite_rows(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [n for (n,) in connection.execute("SELECT n FROM orders ORDER BY n")]


@pytest.fixture(params=["sqlite", "sqlite autocommit", "psycopg", "psycopg async", "psycopg pool", "asyncpg"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """One of each kind."""
    path = tmp_path / "orders.db"
    if request.param.startswith("sqlite"):
        isolation: Any = None if "autocommit" in request.param else ""
        with closing(sqlite3.connect(path, isolation_level=isolation)) as connection:
            connection.execute("CREATE TABLE orders (n INTEGER)")
            connection.commit()
            yield Database(
                connection,
                lambda db, n: db.execute("INSERT INTO orders VALUES (?)", (n,)),
                lambda: sqlite_rows(path),
            )
        return
    import asyncpg
    import psycopg

    server = request.getfixturevalue("server")
    with psycopg.connect(server, autocommit=True) as watching:
        watching.execute("DROP TABLE IF EXISTS orders, bitrix_pull_once")
        watching.execute("CREATE TABLE orders (n INTEGER)")

        def rows() -> list[int]:
            return [n for (n,) in watching.execute("SELECT n FROM orders ORDER BY n")]

        def insert(db: Any, n: int) -> Any:
            return db.execute("INSERT INTO orders VALUES (%s)", (n,))

        match request.param:
            case "psycopg":
                with psycopg.connect(server) as connection_:
                    yield Database(connection_, insert, rows)
            case "psycopg async":
                async with await psycopg.AsyncConnection.connect(server) as awaited:
                    yield Database(awaited, insert, rows)
            case "psycopg pool":

                @asynccontextmanager
                async def connection_of_a_pool() -> AsyncIterator[Any]:
                    async with await psycopg.AsyncConnection.connect(server) as each:
                        yield each

                yield Database(connection_of_a_pool, insert, rows)
            case _:
                where = dict(part.split("=") for part in server.split())
                pool = await asyncpg.create_pool(
                    host=where["host"], user=where["user"], database=where["dbname"], min_size=1, max_size=3
                )
                async with pool:
                    yield Database(
                        pool.acquire, lambda db, n: db.execute("INSERT INTO orders VALUES ($1)", n), rows
                    )


def routed(database: Database, **options: Any) -> Router:
    """A router whose handler writes the number of each event, and fails after that if it is asked to."""
    router = Router()
    router.middleware(provides=["db"])(Once(database.database, **options))

    @router.on("x")
    async def handle(item: PullEvent, db: Any) -> None:
        written = database.execute(db, item.params["n"])
        if hasattr(written, "__await__"):
            await written
        if item.params.get("fails"):
            raise RuntimeError("after writing")

    return router


async def test_what_comes_again_has_one_effect(database: Database) -> None:
    async with running(routed(database)) as rig:
        rig.put(event(1), event(2), event(1))
        await rig.idle(20)
    # As after a restart: nothing of the process is left.
    async with running(routed(database)) as rig:
        rig.put(event(1), event(2), event(3))
        await rig.idle(20)
        assert rig.settled == mids(1, 2, 3)
        assert not rig.notices
    assert database.rows() == [1, 2, 3]


async def test_what_fails_has_none_and_may_come_again(database: Database) -> None:
    async with running(routed(database)) as rig:
        rig.put(event(1, params={"n": 1, "fails": True}))
        await rig.idle(20)
        [failure] = rig.notices
        assert isinstance(failure, HandlerFailed)
        assert str(failure.error) == "after writing"
        assert database.rows() == []
        rig.put(event(1))
        await rig.idle(20)
    assert database.rows() == [1]


async def test_each_handler_has_its_own_effect(database: Database) -> None:
    router = routed(database)

    @router.on("x")
    async def second(item: PullEvent, db: Any) -> None:
        written = database.execute(db, 10 + item.params["n"])
        if hasattr(written, "__await__"):
            await written

    for _ in range(2):
        async with running(router) as rig:
            rig.put(event(1))
            await rig.idle(20)
    assert database.rows() == [1, 11]


async def test_a_handler_that_is_cancelled_has_none(database: Database) -> None:
    router = Router()
    router.middleware(provides=["db"])(Once(database.database))
    begun = asyncio.Event()

    @router.on("x")
    async def hang(item: PullEvent, db: Any) -> None:
        written = database.execute(db, item.params["n"])
        if hasattr(written, "__await__"):
            await written
        begun.set()
        await asyncio.Event().wait()

    async with running(router) as rig:
        rig.put(event(1))
        await asyncio.wait_for(begun.wait(), 20)
    assert database.rows() == []


async def test_plain_handlers_have_one_effect_each(orders: "Database") -> None:
    router = routed(orders)
    router.on("x")(lambda item, db: orders.execute(db, 100 + item.params["n"]))

    @router.on("x")
    def plain(item: PullEvent, db: Any) -> None:
        orders.execute(db, 10 + item.params["n"])

    for _ in range(2):
        async with running(router) as rig:
            rig.put(event(1))
            await rig.idle()
    assert orders.rows() == [1, 11, 101]


@pytest.fixture
def orders(tmp_path: Path) -> Iterator[Database]:
    path = tmp_path / "orders.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (n INTEGER)")
        connection.commit()
        yield Database(
            connection,
            lambda db, n: db.execute("INSERT INTO orders VALUES (?)", (n,)),
            lambda: sqlite_rows(path),
        )


async def test_two_processes_at_once_have_one_effect(orders: Database, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "orders.db")) as other:
        first = routed(orders)
        second = routed(Database(other, orders.execute, orders.rows))
        async with running(first) as one, running(second) as two:
            for number in range(20):
                one.put(event(number))
                two.put(event(number))
            await one.idle(20)
            await two.idle(20)
    assert orders.rows() == list(range(20))


async def test_a_mid_that_is_handed_out_again_is_another_event(orders: Database) -> None:
    async with running(routed(orders)) as rig:
        for created in (1000, 1000, 2000, None, None):
            item = event(1)
            item.created_unix = created
            rig.put(item)
        await rig.idle()
    assert orders.rows() == [1, 1, 1]


async def test_what_has_no_mid_and_the_portals_events_are_handled_as_often_as_they_come(
    orders: Database,
) -> None:
    once = Once(orders.database)
    handled: list[object] = []

    async def call_next(item: object) -> None:
        handled.append(item)

    without_mid: PullEvent = PullEvent("", "a", "x", {}, {}, event().sender, "server")
    of_portal: PortalEvent = PortalEvent("ONCRMDEALUPDATE", {}, {}, 7, None, None, "md5")
    context = Context()
    context.handler = "handler"
    for item in (without_mid, without_mid, of_portal, of_portal):
        await once(item, call_next, context)
    assert len(handled) == 4


async def test_old_entries_are_forgotten(orders: Database, tmp_path: Path) -> None:
    once = SqlLedger(orders.database)
    async with once.transaction() as connection:
        await once.enter(connection, Entry("", "old", "1", 1_000))
        await once.enter(connection, Entry("other.portal", "old", "1", 1_000))
    async with running(routed(orders, keep=timedelta(days=1))) as rig:
        rig.put(event(1))
        await rig.idle()
    rows = orders.database.execute("SELECT portal, event FROM bitrix_pull_once ORDER BY portal").fetchall()
    assert rows == [("", f"{1:026}"), ("other.portal", "1")]


async def test_a_ledger_of_ones_own_has_three_methods() -> None:
    class InMemory:
        def __init__(self) -> None:
            self.entries: set[tuple[str, str, str]] = set()

        @asynccontextmanager
        async def transaction(self) -> AsyncIterator[list[int]]:
            yield []

        async def enter(self, connection: Any, entry: Entry) -> bool:
            key = (entry.portal, entry.handler, entry.event)
            is_new = key not in self.entries
            self.entries.add(key)
            return is_new

        async def forget(self, connection: Any, portal: str, before: int) -> None:
            pass

    ledger = InMemory()
    assert isinstance(ledger, Ledger)
    router, handled = Router(), list[PullEvent]()
    router.middleware(provides=["work"])(Once(ledger, name="work"))

    @router.on("x")
    async def handle(item: PullEvent, work: list[int]) -> None:
        handled.append(item)

    async with running(router) as rig:
        rig.put(event(1), event(1))
        await rig.idle()
    assert len(handled) == 1
    [(_, handler, taken)] = ledger.entries
    assert handler.endswith("test_once.test_a_ledger_of_ones_own_has_three_methods.<locals>.handle")
    assert taken == f"{1:026}"


async def test_who_may_make_no_table_finds_it_there_or_hears_why(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (n INTEGER)")
        connection.execute("PRAGMA query_only = ON")
        ledger = SqlLedger(connection)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            async with ledger.transaction():
                pass
        assert not connection.in_transaction


@pytest.mark.parametrize("database", [None, 7, "orders.db", object()])
def test_what_is_no_database_is_refused(database: object) -> None:
    with pytest.raises(InvalidArgument, match="is no database connection"):
        Once(database)


def test_other_arguments_that_cannot_be(orders: Database) -> None:
    for name in ("", "a b", 7):
        with pytest.raises(InvalidArgument, match="what an argument can be called"):
            Once(orders.database, name=name)  # type: ignore[arg-type]
    for keep in (timedelta(0), 3600):
        with pytest.raises(InvalidArgument, match="keep must be"):
            Once(orders.database, keep=keep)  # type: ignore[arg-type]
