"""What ``TestClient`` does with clients of users' own, and what it says to those who use it wrongly."""

import asyncio
import socket
import sqlite3
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bitrix_pull import (
    AccessToken,
    Message,
    Once,
    PullClient,
    PullEvent,
    PullOptions,
    Router,
    Sender,
    SenderType,
    State,
    Webhook,
)
from bitrix_pull.emulator import Emulator
from bitrix_pull.errors import CallerFailed, InvalidArgument, MethodNotFound, RouteUnavailable
from bitrix_pull.testing import Clock, NotSettled, TestClient, make_event, make_portal_event

SLOW_S = 0.3
"""What is waited for real where something hangs."""

both = pytest.mark.parametrize("emulator", [False, True], ids=["in-process", "emulator"])


def new_client(**settings: Any) -> PullClient:
    return PullClient(AccessToken("acme.bitrix24.com", "token"), **settings)


# -- a client of one's own ------------------------------------------------------------------------


@both
async def test_handlers_of_a_client_use_it_as_they_know_it(emulator: bool) -> None:
    pull = new_client(context={"shop": "main"}, name="acme", resume=None)

    @pull.on("order_update")
    async def handle(event: PullEvent, shop: str, client: PullClient) -> list[object]:
        assert event.client is pull is client
        deal = await pull.call("crm.deal.get", {"id": 7})
        await pull.publish("seen", {"by": shop}, users=5)
        return [event.portal, pull.state, pull.health().live, deal]

    async with TestClient(pull, emulator=emulator) as client:
        client.answer("CRM.deal.get", {"ID": "7"})
        result = await client.deliver("order_update")
        assert result["handle"].returned == ["acme", State.LIVE, True, {"ID": "7"}]
        assert [(item.params, item.users) for item in client.published] == [({"by": "main"}, (5,))]
        assert client.pull is pull
    assert pull.state in (State.IDLE, State.CLOSED)
    assert pull.context == {"shop": "main"}


async def test_no_network_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("somebody connects")

    for name in ("connect", "connect_ex", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    pull = new_client()

    @pull.on("x")
    async def handle(event: PullEvent) -> None:
        messages = [Message("a"), Message("b", to_self=True), Message("c", users=5)]
        (await pull.publish_many(messages)).raise_for_failures()
        await pull.publish("d", users=5, route="endpoint")
        await pull.publish("e", users=5, route="socket")
        await pull.notify(5, "done")
        with pytest.raises(MethodNotFound, match="emulator=True"):
            await pull.online(5)

    async with TestClient(pull) as client:
        client.answer("pull.application.push.add", True)
        (await client.deliver("x")).raise_for_failures()
        assert [(item.command, item.receipt.route) for item in client.published] == [
            *(("a", "rest"), ("b", "rest"), ("c", "rest")),
            *(("d", "endpoint"), ("e", "socket")),
        ]


@both
async def test_a_client_can_be_tested_again_and_then_used(emulator: bool) -> None:
    async with Emulator() as portal:
        pull = PullClient(AccessToken(portal.portal_url, portal.token))
        heard: asyncio.Queue[PullEvent] = asyncio.Queue()
        pull.on("x")(heard.put_nowait)
        for _ in range(2):
            async with TestClient(pull, emulator=emulator) as client:
                assert (await client.deliver("x")).acked
                assert heard.get_nowait().params == {}
        assert not portal.portal.calls
        async with pull:
            portal.portal.send("x", {"id": 7})
            async with asyncio.timeout(20):
                assert (await heard.get()).params == {"id": 7}


@both
async def test_a_client_in_user_mode(emulator: bool) -> None:
    pull = PullClient(Webhook("https://acme.bitrix24.com/rest/1/c0de/"))

    @pull.on("typing", module="chat")
    async def answer(event: PullEvent) -> None:
        await pull.publish("answer", users=[1])
        with pytest.raises(RouteUnavailable):
            await pull.publish("answer", users=1, route="rest")
        with pytest.raises(RouteUnavailable):
            await pull.publish("answer", route="endpoint")

    heard: list[str] = []
    pull.on("answer")(lambda event: heard.append(event.kind))
    async with TestClient(pull, emulator=emulator) as client:
        (await client.deliver("typing", module="chat")).raise_for_failures()
        assert client.published[0].receipt.route == "endpoint"
        # What is published to oneself comes back.
        assert heard == ["client"]


@both
async def test_iterators_get_events_too(emulator: bool) -> None:
    pull = new_client()
    heard: list[Any] = []

    async def consume() -> None:
        async with pull.subscribe("x") as events:
            async for event in events:
                heard.append(event.params)

    async with TestClient(pull, emulator=emulator) as client:
        consuming = asyncio.create_task(consume())
        await client.advance()
        await client.deliver("x", {"n": 1})
        await client.deliver("x", {"n": 2})
        assert heard == [{"n": 1}, {"n": 2}]
    await asyncio.wait_for(consuming, 5)


# -- a router ------------------------------------------------------------------------------------------


async def test_a_router_is_left_as_it_was() -> None:
    router = Router()
    handled: list[int] = []
    router.on("x")(lambda event: handled.append(event.params["n"]))
    for n in range(3):
        async with TestClient(router) as client:
            await client.deliver("x", {"n": n})
    pull = new_client()
    pull.include(router)
    async with TestClient(pull) as client:
        await client.deliver("x", {"n": 3})
    assert handled == [0, 1, 2, 3]


async def test_two_routers_side_by_side() -> None:
    one, two = Router(), Router()
    one.on("x")(lambda event: "one")
    two.on("x")(lambda event: "two")
    async with TestClient(one) as first, TestClient(two) as second:
        assert (await first.deliver("x")).handlings[0].returned == "one"
        assert (await second.deliver("x")).handlings[0].returned == "two"


async def test_a_handler_that_is_registered_later() -> None:
    router = Router()
    async with TestClient(router) as client:
        assert (await client.deliver("x")).handlings == ()
        router.on("x")(lambda event: 1)
        assert (await client.deliver("x")).handlings[0].returned == 1


def test_an_event_made_by_hand() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    event = make_event("x", {"at": at}, module="IM", mid="7", created=at, expiry=None, extra={"a": 1})
    assert (event.module_id, event.params, event.created) == ("im", {"at": at.isoformat()}, at)
    assert (event.mid, event.extra, event.kind) == ("7", {"a": 1}, "server")
    assert make_event("x").mid < make_event("x").mid
    assert make_event("x", sender=Sender(SenderType.CLIENT)).kind == "client"
    assert make_event("x", module="online").kind == "online"


def test_a_portal_event_made_by_hand() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    event = make_portal_event("oncrmdealadd", id=7, fields={"A": 1}, user_id=None, changed_at=at)
    assert (event.name, event.id, event.user_id, event.changed_at) == ("ONCRMDEALADD", 7, None, at)
    assert event.fields == {"ID": "7", "A": 1}
    assert make_portal_event("X", data={"FIELDS_AFTER": {"ID": 3}}).id == 3
    assert make_portal_event("X").data == {}
    with pytest.raises(InvalidArgument, match="or id and fields"):
        make_portal_event("X", id=1, data={})


async def test_an_event_is_delivered_as_it_was_made() -> None:
    seen: list[PullEvent] = []
    router = Router()
    router.on("x", module="im")(seen.append)
    event = make_event("x", module="im", mid="1" * 26, replayed=True)
    async with TestClient(router) as client:
        await client.deliver(event)
    assert seen == [event]
    assert seen[0].replayed


async def test_once_takes_days_in_no_time() -> None:
    database = sqlite3.connect(":memory:")
    router = Router()
    router.middleware(provides=["db"])(Once(database, keep=timedelta(days=2)))

    @router.on("x")
    async def handle(event: PullEvent, db: sqlite3.Connection) -> str:
        return "handled"

    async with TestClient(router) as client:
        event = make_event("x")
        assert (await client.deliver(event))["handle"].returned == "handled"
        assert (await client.deliver(event))["handle"].returned is None
        await client.advance(days=3)
        await client.deliver(make_event("x"))
        count = database.execute("SELECT count(*) FROM bitrix_pull_once").fetchone()
        assert count == (1,)
    database.close()


# -- REST calls ---------------------------------------------------------------------------------------


async def test_a_call_without_an_answer_says_what_to_do() -> None:
    async with TestClient(Router()) as client:
        with pytest.raises(MethodNotFound, match=r'client\.answer\("crm\.deal\.get"'):
            await client.pull.call("crm.deal.get", {"id": 7})
        client.answer("crm.deal.get", {}, times=1)
        assert await client.pull.call("crm.deal.get") == {}
        with pytest.raises(MethodNotFound):
            await client.pull.call("crm.deal.get")
        assert [call.params for call in client.calls] == [{"id": 7}, {}, {}]


async def test_an_answer_may_be_an_error_of_any_kind() -> None:
    async with TestClient(Router()) as client:
        client.answer("x", ConnectionResetError())
        with pytest.raises((CallerFailed, ConnectionResetError)):
            await client.pull.call("x")
        with pytest.raises(InvalidArgument, match="times"):
            client.answer("x", 1, times=0)


async def test_over_sockets_the_emulated_portal_answers_what_it_can() -> None:
    async with TestClient(Router(), emulator=True) as client:
        deal = client.emulator.portal.deals.add({"TITLE": "Chairs"})
        assert (await client.pull.call("crm.deal.get", {"id": deal}))["TITLE"] == "Chairs"


# -- used wrongly --------------------------------------------------------------------------------------


def hanging() -> Router:
    router = Router()

    @router.on("x")
    async def wait_for_ever(event: PullEvent) -> None:
        await asyncio.Event().wait()

    return router


@both
async def test_a_handler_that_hangs_is_named_in_time(emulator: bool) -> None:
    began = time.monotonic()
    async with TestClient(hanging(), emulator=emulator, timeout=SLOW_S if not emulator else 2) as client:
        with pytest.raises(NotSettled, match=r"wait_for_ever has been at application\.x .* advance=SECONDS"):
            await client.deliver("x")
    assert time.monotonic() - began < 20


async def test_a_handler_that_gives_events_back_for_ever() -> None:
    router = Router()
    router.on("x", ack="manual")(lambda event: event.nack(event.params["delay"]))
    async with TestClient(router, timeout=SLOW_S) as client:
        with pytest.raises(NotSettled, match="any number of attempts"):
            await client.deliver("x", {"delay": 60})
        with pytest.raises(NotSettled, match="again and again"):
            await client.deliver("x", {"delay": 0})


async def forget_deliver(client: TestClient) -> object:
    return client.deliver("x")


async def forget_and_look(client: TestClient) -> object:
    return getattr(client.deliver("x"), "handled")  # noqa: B009 - type checkers would say so too


@pytest.mark.parametrize(
    ("misuse", "says"),
    [
        (forget_deliver, r'never awaited: write `await client\.deliver\("x", …\)`'),
        (forget_and_look, r'no handled before it is awaited: write `await client\.deliver\("x"'),
    ],
)
@pytest.mark.filterwarnings("error")
async def test_a_forgotten_await(misuse: Callable[[TestClient], Awaitable[object]], says: str) -> None:
    with pytest.raises((RuntimeError, AttributeError), match=says):
        async with TestClient(Router()) as client:
            await misuse(client)


async def test_a_client_that_is_not_entered() -> None:
    client = TestClient(Router())
    with pytest.raises(RuntimeError, match="enter the client first"):
        await client.deliver("x")
    async with client:
        with pytest.raises(RuntimeError, match="entered already"):
            await client.__aenter__()


@both
async def test_two_test_clients_of_one_client(emulator: bool) -> None:
    pull = new_client()
    async with TestClient(pull, emulator=emulator):
        with pytest.raises(RuntimeError, match="one TestClient at a time"):
            async with TestClient(pull, emulator=emulator):
                pass
    async with TestClient(pull):
        pass


async def test_a_client_that_runs() -> None:
    async with Emulator() as portal, PullClient(AccessToken(portal.portal_url, portal.token)) as pull:
        with pytest.raises(RuntimeError, match="not started"):
            async with TestClient(pull):
                pass


async def test_two_test_clients_of_one_portal() -> None:
    async with Emulator() as portal, TestClient(Router(), emulator=portal) as client:
        assert client.emulator is portal
        with pytest.raises(RuntimeError, match="a portal of its own"):
            async with TestClient(Router(), emulator=portal):
                pass
    async with Emulator() as portal:
        for _ in range(2):
            async with TestClient(Router(), emulator=portal):
                pass


async def test_a_portal_that_refuses_is_told() -> None:
    async with Emulator() as portal:
        portal.push.faults.websocket_refusal = 503
        portal.push.faults.poll_refusal = 503
        with pytest.raises(NotSettled, match="not live"):
            async with TestClient(Router(), emulator=portal, timeout=SLOW_S):
                pass


async def test_what_cannot_be_is_said() -> None:
    with pytest.raises(InvalidArgument, match="a Router or a PullClient"):
        TestClient("router")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="timeout"):
        TestClient(Router(), timeout=0)
    router = Router()
    router.on("x")(_asks_for_more)
    with pytest.raises(InvalidArgument, match="asks for db, which nothing provides"):
        async with TestClient(router):
            pass
    async with TestClient(Router()) as client:
        with pytest.raises(InvalidArgument, match="no handler is registered for ONCRMDEALADD"):
            await client.deliver_portal_event("ONCRMDEALADD", id=7)
        with pytest.raises(InvalidArgument, match="its own params"):
            await client.deliver(make_event("x"), {"a": 1})
        with pytest.raises(InvalidArgument, match="takes the error"):
            client.refuse("no")  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="emulator=True"):
            assert client.emulator
        with pytest.raises(RuntimeError, match="before the gap"):
            await client.gap()
        with pytest.raises(KeyError, match="nobody did"):
            assert (await client.deliver("x"))["pack"]


def _asks_for_more(event: PullEvent, db: object) -> None:
    """Is never called."""


@pytest.mark.every_loop
async def test_on_uvloop_it_says_what_to_do() -> None:
    if not type(asyncio.get_running_loop()).__module__.startswith("uvloop"):
        async with TestClient(Router()) as client:
            await client.deliver("x")
        return
    with pytest.raises(RuntimeError, match="without uvloop"):
        async with TestClient(Router()):
            pass


# -- the clock ------------------------------------------------------------------------------------------


async def test_what_waits_comes_due_in_its_order() -> None:
    order: list[tuple[str, int]] = []
    began, wall = asyncio.get_running_loop().time(), time.time()

    async def tick(name: str, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            # In hours: real seconds pass too, some of them on a busy machine.
            order.append((name, round((asyncio.get_running_loop().time() - began) / 3_600)))

    async with Clock() as clock:
        ticking = [asyncio.create_task(tick("a", 7_200)), asyncio.create_task(tick("b", 10_800))]
        await clock.advance(hours=6, minutes=30)
        assert order[:3] == [("a", 2), ("b", 3), ("a", 4)]
        assert sorted(order[3:]) == [("a", 6), ("b", 6)]
        assert time.time() - wall >= 6.5 * 3_600
        with pytest.raises(ValueError, match="forward"):
            await clock.advance(-1)
        with pytest.raises(RuntimeError, match="use that one"):
            await Clock().__aenter__()
        for task in ticking:
            task.cancel()
    assert time.time() - wall < 3_600
    # But an event loop's clock never goes back.
    assert asyncio.get_running_loop().time() - began >= 6.5 * 3_600


async def test_time_waits_for_threads() -> None:
    done: list[float] = []

    async def work() -> None:
        async with asyncio.timeout(10):
            await asyncio.to_thread(lambda: done.append(sum(range(10**6))))

    async with Clock() as clock:
        working = asyncio.create_task(work())
        await clock.advance(hours=1)
        assert done
        await working


async def test_options_of_a_client_hold() -> None:
    pull = new_client(options=PullOptions(inbox_max_events=1, overflow="drop_newest"))
    pull.on("x", ack="manual")(lambda event: None)
    async with TestClient(pull, timeout=SLOW_S) as client:
        await client.deliver("x", {"n": 1})
        assert pull.health().waiting == 1
        with pytest.raises(NotSettled, match="to arrive"):
            await client.deliver("x", {"n": 2})


async def test_the_clock_is_given_back_also_by_a_test_that_is_cancelled_at_its_end() -> None:
    router, begun = Router(), asyncio.Event()

    @router.on("x")
    async def slow(event: PullEvent) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            begun.set()
            await asyncio.sleep(0.2)

    async def test() -> None:
        async with TestClient(router, timeout=0.05) as client:
            await client.deliver("x")

    task = asyncio.create_task(test())
    await begun.wait()
    task.cancel()
    await asyncio.wait({task})
    assert Clock.of_running_loop() is None
