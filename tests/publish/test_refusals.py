"""Each refusal reaches the very call that caused it, and says what it is about (protocol §7)."""

import asyncio
from collections.abc import Callable

import pytest

from bitrix_pull import Message, PublicChannel, PullClient, errors
from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.faults import PublishFault
from bitrix_pull.errors import (
    InvalidReceiver,
    InvalidSignature,
    OutcomeUnknown,
    PublishRefused,
    PublishTooLarge,
    TooManyMessages,
    TooManyReceivers,
    Unreachable,
)
from bitrix_pull.publish.publisher import Route
from bitrix_pull.wire.close_codes import REFUSALS, ServerClose
from tests.publish.conftest import channel_of, client, forged, next_numbers

pytestmark = pytest.mark.every_loop

Provoke = Callable[[Emulator], Message]


def wrong_signature(emu: Emulator) -> Message:
    return Message("x", {"n": 0}, channels=forged(emu))


def private_channel(emu: Emulator) -> Message:
    private = emu.portal.config("application", 1)["channels"]["private"]["id"]
    return Message("x", {"n": 0}, channels=private.partition(":")[0])


def no_channel(emu: Emulator) -> Message:
    return Message("x", {"n": 0}, channels=PublicChannel(b"short", bytes(20)))


def too_many_messages(emu: Emulator) -> Message:
    emu.push.limits.messages = 0
    return Message("x", {"n": 0}, to_self=True)


def too_many_receivers(emu: Emulator) -> Message:
    emu.push.limits.receivers = 0
    return Message("x", {"n": 0}, to_self=True)


def told(code: ServerClose) -> Provoke:
    """What no honest client causes, the server says once all the same."""

    def provoke(emu: Emulator) -> Message:
        emu.push.faults.publishing = lambda number: PublishFault(refusal=code) if number == 0 else None
        return Message("x", {"n": 0}, to_self=True)

    return provoke


REFUSED: list[tuple[Provoke, int]] = [
    (told(ServerClose.PUBLIC_CHANNEL_REQUIRED), 4012),
    (told(ServerClose.WRONG_REQUEST), 4013),
    (told(ServerClose.COMMAND_NOT_ALLOWED), 4014),
    (told(ServerClose.WRONG_COMMAND), 4015),
    (too_many_messages, 4016),
    (told(ServerClose.NO_RECEIVERS), 4017),
    (too_many_receivers, 4018),
    (no_channel, 4019),
    (told(ServerClose.PRIVATE_RECEIVER), 4020),
    (wrong_signature, 4021),
    (private_channel, 4021),
]


@pytest.mark.parametrize("route", ["endpoint", "socket"])
@pytest.mark.parametrize(("provoke", "code"), REFUSED, ids=[str(code) for _, code in REFUSED])
async def test_each_refusal_is_an_error_of_its_own(
    emu: Emulator, route: Route, provoke: Provoke, code: int
) -> None:
    async with client(emu) as pull, pull.subscribe() as events:
        receipt = await pull.publish_many([provoke(emu)], route=route)
        with pytest.raises(PublishRefused, match=f"x to .* with {code}: ") as raised:
            receipt.raise_for_failures()
        assert type(raised.value) is REFUSALS[code]
        assert raised.value.code == code
        (fate,) = receipt.fates
        assert (fate.outcome, len(fate.missed), fate.in_doubt) == ("refused", 1, ())
        assert (receipt.messages, receipt.confirmed) == (0, False)
        # The client goes on, at once and without a loss.
        emu.push.limits.messages = emu.push.limits.receivers = 100
        await pull.wait_live(10)
        await pull.publish("x", {"n": 1}, to_self=True, route=route, retry="safe")
        assert await next_numbers(events, 1) == [1]


def test_no_code_is_left_out() -> None:
    assert sorted(REFUSALS) == list(range(4012, 4022))
    assert len(set(REFUSALS.values())) == 10
    assert all(vars(errors)[error.__name__] is error for error in REFUSALS.values())


@pytest.mark.parametrize(("route", "error"), [("endpoint", PublishTooLarge), ("socket", OutcomeUnknown)])
async def test_a_server_that_takes_less_than_usual(
    emu: Emulator, route: Route, error: type[Exception]
) -> None:
    """Over the socket it drops the connection without a word, so nobody knows."""
    emu.push.limits.request_bytes = 1_000
    async with client(emu) as pull:
        with pytest.raises(error, match="order to user 1"):
            await pull.publish("order", {"text": "x" * 2_000}, to_self=True, route=route)


async def test_over_json_rpc_a_refusal_is_answered(emu: Emulator) -> None:
    async with Emulator(version=5) as emu, client(emu) as pull:
        with pytest.raises(PublishRefused, match="Invalid params") as raised:
            await pull.publish("x", channels=forged(emu), route="socket")
        assert raised.value.code == -32602
        assert pull.health().connects == 1


# -- beside others ---------------------------------------------------------------------


async def fate_of(pull: PullClient, message: Message, route: Route) -> str:
    (fate,) = (await pull.publish_many([message], route=route)).fates
    if fate.outcome == "refused":
        return "never sent" if isinstance(fate.error, Unreachable) else type(fate.error).__name__
    return fate.outcome


@pytest.mark.parametrize("before", [0, 1, 7])
async def test_over_the_socket_those_in_flight_beside_it_are_told_the_truth(
    emu: Emulator, before: int
) -> None:
    messages = [Message("x", {"n": n}, to_self=True) for n in range(20)]
    messages[before] = Message("x", {"n": before}, channels=forged(emu))
    async with client(emu) as pull, pull.subscribe() as events:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(fate_of(pull, message, "socket")) for message in messages]
        fates = [task.result() for task in tasks]
        assert fates[:before] == ["accepted"] * before
        assert fates[before] == "InvalidSignature"
        assert set(fates[before + 1 :]) <= {"unknown", "never sent"}
        await pull.wait_live(10)
        await pull.publish("x", {"n": 99}, to_self=True)
        numbers = []
        while 99 not in numbers:
            numbers += await next_numbers(events, 1)
        assert numbers[:before] == list(range(before))
        received = set(numbers) - {99}
        assert received <= {n for n, fate in enumerate(fates) if fate in ("accepted", "unknown")}


async def test_over_the_endpoint_the_others_are_unharmed(emu: Emulator) -> None:
    messages = [Message("x", {"n": n}, to_self=True) for n in range(20)]
    messages[7] = Message("x", {"n": 7}, channels=forged(emu))
    async with client(emu) as pull:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(fate_of(pull, message, "endpoint")) for message in messages]
        fates = [task.result() for task in tasks]
    assert fates.pop(7) == "InvalidSignature"
    assert set(fates) == {"accepted"}


# -- within one request ----------------------------------------------------------------


async def test_the_offender_is_named_and_the_innocent_get_through(emu: Emulator) -> None:
    messages = [Message("x", {"n": n}, to_self=True) for n in range(30)]
    messages[11] = Message("bad", {"n": 11}, channels=[forged(emu, 2), channel_of(emu, 1), forged(emu, 3)])
    async with client(emu) as pull, pull.subscribe() as events:
        receipt = await pull.publish_many(messages, route="endpoint")
        (failed,) = receipt.failures
        assert failed.message is messages[11]
        assert isinstance(failed.error, InvalidSignature)
        assert failed.missed == (forged(emu, 2), forged(emu, 3))
        assert receipt.messages == 30
        assert await next_numbers(events, 30) == list(range(30))
        with pytest.raises(InvalidSignature, match="bad to a channel"):
            receipt.raise_for_failures()


async def test_over_the_socket_a_request_is_not_tried_again_in_parts(emu: Emulator) -> None:
    """Each attempt would cost the connection."""
    messages = [Message("x", {"n": n}, to_self=True) for n in range(3)]
    messages.append(Message("x", {"n": 3}, channels=forged(emu)))
    async with client(emu) as pull:
        receipt = await pull.publish_many(messages, route="socket")
        assert [fate.outcome for fate in receipt.fates] == ["refused"] * 4
        with pytest.raises(InvalidSignature, match="a request of 4 messages"):
            receipt.raise_for_failures()
        assert receipt.requests == 1


async def test_the_search_for_offenders_has_an_end(emu: Emulator) -> None:
    """A server with a new key refuses everything: that must not take two requests a receiver."""
    messages = [
        Message("x", {"n": n}, channels=[forged(emu, n), forged(emu, n + 500)]) for n in range(1, 300)
    ]
    async with client(emu) as pull:
        receipt = await pull.publish_many(messages, route="endpoint")
        assert {fate.outcome for fate in receipt.fates} == {"refused"}
        assert all(len(fate.missed) == 2 for fate in receipt.fates)
        assert receipt.requests < 150


@pytest.mark.parametrize(("limit", "error"), [("messages", TooManyMessages), ("receivers", TooManyReceivers)])
async def test_a_server_with_lower_limits_gets_smaller_requests(
    emu: Emulator, limit: str, error: type[PublishRefused]
) -> None:
    setattr(emu.push.limits, limit, 30)
    messages = [Message("x", {"n": n}, users=range(1, 51)) for n in range(31)]
    async with client(emu) as pull:
        receipt = await pull.publish_many(messages, route="endpoint")
        assert receipt.raise_for_failures().confirmed
        setattr(emu.push.limits, limit, 0)
        receipt = await pull.publish_many(messages[:2], route="endpoint")
        assert all(isinstance(fate.error, error) for fate in receipt.fates)


async def test_no_secret_is_in_an_error(emu: Emulator) -> None:
    channel = forged(emu)
    async with client(emu) as pull:
        for route in ("endpoint", "socket"):
            with pytest.raises(InvalidSignature) as raised:
                await pull.publish("x", channels=channel, route=route)
            assert channel.id.hex() not in f"{raised.value!r} {raised.value.__cause__!r}"
            await pull.wait_live(10)


async def test_channels_that_are_none_are_an_error_of_the_caller(emu: Emulator) -> None:
    async with client(emu) as pull:
        with pytest.raises(InvalidReceiver, match="4019"):
            await pull.publish("x", channels=PublicChannel(b"", b""), route="endpoint")
