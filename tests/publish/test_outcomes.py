"""Accepted, refused, unknown or never sent: what the caller is told, and what is repeated."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from bitrix_pull import AccessToken, Message, PullClient, PullOptions
from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.faults import PublishFault
from bitrix_pull.errors import (
    InvalidArgument,
    OutcomeUnknown,
    PublishBusy,
    PublishError,
    PullError,
    Unreachable,
    UserAccessError,
)
from bitrix_pull.publish.publisher import Route
from tests.publish.conftest import AlteredPortal, client, forged, next_numbers

pytestmark = pytest.mark.every_loop


def once(**fault: Any) -> Callable[[int], PublishFault | None]:
    """Return a script that spoils the first request only."""
    return lambda number: PublishFault(**fault) if number == 0 else None


def always(**fault: Any) -> Callable[[int], PublishFault | None]:
    return lambda number: PublishFault(**fault)


# -- unknown -----------------------------------------------------------------------------

ENDPOINT_TROUBLE: list[dict[str, Any]] = [
    {"status": 500},
    {"status": 502},
    {"status": 503},
    {"cut": True},
]


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("trouble", ENDPOINT_TROUBLE, ids=str)
async def test_after_sending_it_is_unknown(emu: Emulator, trouble: dict[str, Any], applied: bool) -> None:
    async with client(emu) as pull, pull.subscribe() as events:
        emu.push.faults.publishing = once(applied=applied, **trouble)
        with pytest.raises(OutcomeUnknown, match=r"x to user 1.*twice") as raised:
            await pull.publish("x", {"n": 1}, to_self=True, route="endpoint")
        assert not raised.value.retryable
        assert emu.push.counters.requests == 1
        await pull.publish("x", {"n": 2}, to_self=True, route="endpoint")
        assert await next_numbers(events, 2 if applied else 1) == ([1, 2] if applied else [2])


@pytest.mark.parametrize("trouble", ENDPOINT_TROUBLE, ids=str)
async def test_what_may_come_twice_is_repeated(emu: Emulator, trouble: dict[str, Any]) -> None:
    async with client(emu) as pull, pull.subscribe() as events:
        emu.push.faults.publishing = once(applied=True, **trouble)
        receipt = await pull.publish("x", {"n": 1}, to_self=True, route="endpoint", retry="safe")
        assert (receipt.messages, receipt.requests, receipt.confirmed) == (1, 2, True)
        assert await next_numbers(events, 2) == [1, 1]


async def test_repeating_ends_with_the_timeout(emu: Emulator) -> None:
    async with client(emu) as pull:
        emu.push.faults.publishing = always(status=502)
        begun = asyncio.get_running_loop().time()
        with pytest.raises(OutcomeUnknown):
            await pull.publish("x", to_self=True, route="endpoint", retry="safe", timeout=1.5)
        assert asyncio.get_running_loop().time() - begun <= 1.6
        assert emu.push.counters.requests >= 3


async def test_what_was_unknown_once_is_not_called_refused_later(emu: Emulator) -> None:
    faults = [PublishFault(status=502, applied=True), PublishFault(status=400)]
    async with client(emu) as pull:
        emu.push.faults.publishing = lambda number: faults[number]
        with pytest.raises(OutcomeUnknown) as raised:
            await pull.publish("x", to_self=True, route="endpoint", retry="safe")
        assert isinstance(raised.value.__cause__, PublishError)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("applied", [False, True])
async def test_over_a_socket_that_is_cut_it_is_unknown(version: int, applied: bool) -> None:
    async with Emulator(version=version) as emu, client(emu) as pull, pull.subscribe() as events:
        emu.push.faults.publishing = once(cut=True, applied=applied)
        with pytest.raises(OutcomeUnknown, match="x to user 1"):
            await pull.publish("x", {"n": 1}, to_self=True, route="socket")
        await pull.wait_live(10)
        await pull.publish("x", {"n": 2}, to_self=True, route="socket", retry="safe")
        assert await next_numbers(events, 2 if applied else 1) == ([1, 2] if applied else [2])


@pytest.mark.parametrize("version", [4, 5])
async def test_over_the_socket_it_is_repeated_after_the_reconnect(version: int) -> None:
    async with Emulator(version=version) as emu, client(emu) as pull, pull.subscribe() as events:
        emu.push.faults.publishing = once(cut=True)
        receipt = await pull.publish("x", {"n": 1}, to_self=True, route="socket", retry="safe")
        assert receipt.messages == 1
        assert await next_numbers(events, 1) == [1]


@pytest.mark.parametrize("version", [4, 5])
async def test_a_server_that_does_not_answer_over_the_socket(version: int) -> None:
    async with Emulator(version=version) as emu, client(emu) as pull:
        emu.push.connections[0].line.faults.deaf = True
        with pytest.raises(OutcomeUnknown, match=r"within 0\.[23]\d* s"):
            await pull.publish("x", to_self=True, route="socket", timeout=0.3)


@pytest.mark.parametrize("applied", [False, True])
async def test_a_portal_in_trouble_leaves_it_unknown(emu: Emulator, applied: bool) -> None:
    async with client(emu) as pull, pull.subscribe() as events:
        emu.portal.faults.fail_rest(1, 502, applied=applied)
        with pytest.raises(OutcomeUnknown, match="HTTP 502") as raised:
            await pull.publish("x", {"n": 1})
        assert ".." not in str(raised.value)
        emu.portal.faults.fail_rest(1, 200, applied=applied)
        with pytest.raises(OutcomeUnknown):
            await pull.publish("x", {"n": 2})
        await pull.publish("x", {"n": 3})
        assert await next_numbers(events, 3 if applied else 1) == ([1, 2, 3] if applied else [3])


async def test_a_page_with_an_error_status_is_a_refusal(emu: Emulator) -> None:
    async with client(emu) as pull:
        emu.portal.faults.fail_rest(1, 404)
        with pytest.raises(PullError) as raised:
            await pull.publish("x")
        assert not isinstance(raised.value, OutcomeUnknown)


async def test_a_rest_client_of_the_users_own_that_raises_leaves_it_unknown() -> None:
    class Own:
        async def call(self, method: str, params: Any, /) -> Any:
            raise LookupError("anything")

    pull = PullClient(Own())
    with pytest.raises(OutcomeUnknown, match="LookupError"):
        await pull.publish("x")
    await pull.close()


# -- never sent --------------------------------------------------------------------------


async def test_what_was_never_sent_is_unreachable_and_worth_another_try() -> None:
    pull = PullClient(AccessToken("http://127.0.0.1:1", "token-of-nobody"))
    with pytest.raises(Unreachable) as raised:
        await pull.publish("x")
    assert raised.value.unsent
    assert raised.value.retryable
    await pull.close()


async def test_where_the_portal_does_not_tell_where_to_publish_to_nothing_was_sent() -> None:
    class Own:
        async def call(self, method: str, params: Any, /) -> Any:
            raise Unreachable("no answer")

    pull = PullClient(Own())
    with pytest.raises(Unreachable) as raised:
        await pull.publish("x", to_self=True, route="endpoint")
    assert raised.value.unsent
    await pull.close()


async def test_an_endpoint_that_nobody_serves(emu: Emulator) -> None:
    server = {"publish": "", "publish_secure": "http://127.0.0.1:1/pub/"}
    pull = PullClient(AlteredPortal(emu, server=server))
    for retry in ("never", "safe"):
        receipt = await pull.publish_many(
            [Message("x", to_self=True)],
            route="endpoint",
            retry=retry,
            timeout=0.5,
        )
        (fate,) = receipt.fates
        assert fate.outcome == "refused"
        assert isinstance(fate.error, Unreachable)
        assert fate.error.unsent
    await pull.close()


async def test_between_two_connections_the_socket_is_unreachable(emu: Emulator) -> None:
    async with client(emu) as pull:
        emu.push.faults.websocket_refusal = 502
        await emu.push.disconnect_all()
        async with asyncio.timeout(5):
            while pull.health().live:
                await asyncio.sleep(0.01)
        with pytest.raises(Unreachable, match="not connected"):
            await pull.publish("x", to_self=True, route="socket")


@pytest.mark.virtual_time  # Half a second is soon over beside a busy core.
async def test_what_the_timeout_leaves_no_time_for_is_never_sent(emu: Emulator) -> None:
    async with client(emu) as pull:
        emu.portal.faults.delay_s = 0.25
        messages = [Message("x", {"n": n}, to_self=True) for n in range(4)]
        receipt = await pull.publish_many(messages, route="rest", timeout=0.6)
        outcomes = [fate.outcome for fate in receipt.fates]
        assert outcomes == ["accepted", "accepted", "unknown", "refused"]
        assert isinstance(receipt.fates[-1].error, Unreachable)


# -- later -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
async def test_an_endpoint_that_wants_to_be_asked_later_is(emu: Emulator, status: int) -> None:
    async with client(emu) as pull, pull.subscribe() as events:
        emu.push.faults.publishing = once(status=status, retry_after_s=1)
        begun = asyncio.get_running_loop().time()
        receipt = await pull.publish("x", {"n": 1}, to_self=True, route="endpoint")
        assert asyncio.get_running_loop().time() - begun >= 1
        assert receipt.requests == 2
        assert await next_numbers(events, 1) == [1]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.1)


async def test_it_is_not_waited_for_longer_than_the_timeout(emu: Emulator) -> None:
    async with client(emu) as pull:
        emu.push.faults.publishing = always(status=429, retry_after_s=60)
        with pytest.raises(PublishBusy) as raised:
            await pull.publish("x", to_self=True, route="endpoint", timeout=5)
        assert raised.value.retryable
        assert raised.value.retry_after_s == 60
        assert emu.push.counters.requests == 1


# -- refused -----------------------------------------------------------------------------


async def test_what_the_portal_refuses_is_not_repeated(emu: Emulator) -> None:
    pull = PullClient(AccessToken(emu.portal_url, emu.portal.issue_token(user_id=7)))
    with pytest.raises(UserAccessError):
        await pull.publish("x", users=[1], retry="safe")
    assert emu.portal.calls["pull.application.event.add"] == 1
    await pull.close()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("route", "pigeon"),
        ("route", ["rest"]),
        ("retry", "always"),
        ("retry", True),
        ("timeout", 0),
        ("timeout", -1),
        ("timeout", "5"),
        ("timeout", True),
        ("timeout", float("nan")),
        ("timeout", float("inf")),
    ],
)
async def test_arguments_that_cannot_work(emu: Emulator, argument: str, value: Any) -> None:
    pull = PullClient(AccessToken(emu.portal_url, emu.token))
    with pytest.raises(InvalidArgument, match=argument):
        await pull.publish("x", **{argument: value})
    messages: Any
    for messages in (["x"], Message("x"), None, "x"):
        with pytest.raises(InvalidArgument, match="Message"):
            await pull.publish_many(messages)
    assert not emu.portal.calls
    await pull.close()


# -- cancelled ---------------------------------------------------------------------------


def is_ours(task: "asyncio.Task[Any]") -> bool:
    """Tell the client's tasks from those of the emulator, which serves idle connections."""
    return "RequestHandler" not in repr(task.get_coro())


@pytest.mark.parametrize(("route", "version"), [("rest", 4), ("endpoint", 4), ("socket", 4), ("socket", 5)])
async def test_a_cancelled_caller_leaves_nothing_behind(route: Route, version: int) -> None:
    async with Emulator(version=version) as emu, client(emu) as pull, pull.subscribe() as events:
        emu.portal.application_scope.add("pull_channel")
        await pull.publish("x", {"n": 0}, to_self=True, route=route)
        assert await next_numbers(events, 1) == [0]
        before = asyncio.all_tasks()
        for delay_s in (0.0, 0.001, 0.003, 0.01):
            many = [Message("x", {"n": n}, users=[1 + n]) for n in range(20)]
            task = asyncio.create_task(pull.publish_many(many, route=route, retry="safe"))
            await asyncio.sleep(delay_s)
            task.cancel()
            await asyncio.wait({task})
        async with asyncio.timeout(2):
            while any(map(is_ours, asyncio.all_tasks() - before)):
                await asyncio.sleep(0.01)
        assert pull.health().connects == 1
        # What comes after is answered as if nothing had been.
        assert (await pull.publish("y", {"n": 1}, to_self=True, route=route)).messages == 1


async def test_cancelled_publishes_do_not_take_the_blame_of_others(emu: Emulator) -> None:
    async with client(emu) as pull:
        line = emu.push.connections[0].line
        line.pause_reading()
        tasks = [
            asyncio.create_task(pull.publish("x", {"n": n}, to_self=True, route="socket")) for n in range(3)
        ]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        bad = asyncio.create_task(pull.publish("x", channels=forged(emu), route="socket"))
        await asyncio.sleep(0.05)
        line.resume_reading()
        with pytest.raises(PullError, match="4021"):
            await bad


def test_the_options_hold_the_default_timeout() -> None:
    assert PullOptions().rest_timeout_s == 30
