"""Arguments of handlers beside the event: where they come from, and that they are looked for beforehand."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from bitrix_pull import AccessToken, PullClient
from bitrix_pull.dispatch.dependencies import Supply
from bitrix_pull.dispatch.router import Router
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import PullEvent
from tests.dispatch.rig import event, mids, running

if TYPE_CHECKING:
    from nowhere import Elsewhere  # type: ignore[import-not-found]


class Database:
    def __init__(self) -> None:
        self.rows: list[str] = []


def pull() -> PullClient:
    return PullClient(AccessToken("acme.bitrix24.com", "token"))


async def handled_with(callback: Callable[..., Any], supply: Supply) -> None:
    """Let a handler handle one event."""
    router = Router()
    router.on("x")(callback)
    async with running(router, supply=supply) as rig:
        rig.put(event(1))
        await rig.idle()
        assert rig.settled == mids(1)
        assert not rig.failures


async def test_arguments_come_by_name_from_the_context() -> None:
    database = Database()

    async def handle(event: PullEvent, db: Database, *, table: str) -> None:
        db.rows.append(f"{table} {event.mid}")

    await handled_with(handle, Supply({"db": database, "table": "orders", "more": 1}))
    assert database.rows == [f"orders {mids(1)[0]}"]


async def test_the_client_comes_by_its_type_whatever_its_name() -> None:
    client, seen = pull(), list[object]()

    def handle(
        event: PullEvent, portal: PullClient, other: "PullClient | None", unresolved: "Elsewhere" = None
    ) -> None:
        seen.extend((portal, other, unresolved))

    def late(event: PullEvent, client: "PullClient", elsewhere: "Elsewhere" = None) -> None:
        seen.append(client)

    # A name that wants the client by type gets it, also if the context has another meaning for it.
    supply = Supply({"portal": "acme"}, {PullClient: client})
    await handled_with(handle, supply)
    await handled_with(late, supply)
    assert seen == [client, client, None, client]


async def test_an_argument_with_a_default_may_be_missing() -> None:
    seen: list[object] = []

    def handle(event: PullEvent, db: str = "none", table: str = "none") -> None:
        seen.append((db, table))

    await handled_with(handle, Supply({"table": "orders"}))
    assert seen == [("none", "orders")]


async def test_partials_and_functions_of_any_arguments_get_what_they_ask_for() -> None:
    seen: list[object] = []

    def first(event: PullEvent, db: str, table: str) -> None:
        seen.append((db, table))

    def second(*arguments: object, **named: object) -> None:
        seen.append((len(arguments), named))

    supply = Supply({"db": "db"})
    await handled_with(functools.partial(first, table="orders"), supply)
    await handled_with(second, supply)
    assert seen == [("db", "orders"), (1, {})]


def ask_for_db(event: PullEvent, db: object) -> None: ...


def ask_for_client(event: PullEvent, client: PullClient) -> None: ...


@pytest.mark.parametrize(
    ("callback", "supply", "complaint"),
    [
        (ask_for_db, Supply(), "handler ask_for_db asks for db, which nothing provides"),
        (ask_for_db, Supply({"pool": 1}), r'context=\{"db": …\}'),
        (ask_for_client, Supply(), "handler ask_for_client asks for client"),
        (ask_for_db, Supply({"event": 1, "db": 1}), "calls one of its own arguments event"),
    ],
)
async def test_what_nothing_provides_is_an_error_before_anything_runs(
    callback: Any, supply: Supply, complaint: str
) -> None:
    router = Router()
    router.on("x")(callback)
    with pytest.raises(InvalidArgument, match=complaint):
        async with running(router, supply=supply):
            raise AssertionError("it runs")


async def test_it_is_an_error_at_registration_while_it_runs_and_nothing_stays_of_it() -> None:
    router, seen = Router(), list[PullEvent]()
    router.on("x")(seen.append)
    other = Router()
    other.on("x")(ask_for_db)
    async with running(router) as rig:
        with pytest.raises(InvalidArgument, match="asks for db"):
            router.on("x")(ask_for_db)
        with pytest.raises(InvalidArgument, match="asks for db"):
            router.include(other)
        router.on("y")(seen.append)
        rig.put(event(1, "x"), event(2, "y"))
        await rig.idle()
    assert [item.mid for item in seen] == mids(1, 2)


@pytest.mark.parametrize("context", [{"no name": 1}, {7: 1}, ["db"], "db"])
def test_a_context_is_a_mapping_of_names(context: Any) -> None:
    with pytest.raises(InvalidArgument, match="context"):
        PullClient(AccessToken("acme.bitrix24.com", "token"), context=context)


async def test_a_client_that_lacks_something_does_not_start() -> None:
    client = PullClient(AccessToken("http://127.0.0.1:1", "token"), context={"pool": 1})
    client.on("x")(ask_for_db)
    for start in (client.run, client.__aenter__, client.serving().__aenter__):
        with pytest.raises(InvalidArgument, match="asks for db"):
            await start()
    client.context["no name"] = 1
    with pytest.raises(InvalidArgument, match="context"):
        await client.run()
    await client.close()
