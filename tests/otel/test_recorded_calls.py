"""All calls of handlers are counted; how many a second are recorded says ``recorded_per_s=``."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Any

import pytest

from bitrix_pull import AccessToken, InvalidArgument, PullClient, PullEvent
from bitrix_pull.emulator import Emulator
from bitrix_pull.otel import Telemetry
from tests.otel.sdk import Sdk, until

Handler = Callable[[PullEvent[Any]], Any]


async def later(event: PullEvent[Any]) -> None:
    await asyncio.sleep(0)


def at_once(event: PullEvent[Any]) -> None: ...


def to_be_awaited(event: PullEvent[Any]) -> Awaitable[None]:
    return later(event)


async def fails(event: PullEvent[Any]) -> None:
    await asyncio.sleep(0)
    raise LookupError


def fails_at_once(event: PullEvent[Any]) -> None:
    raise LookupError


def fails_when_awaited(event: PullEvent[Any]) -> Awaitable[None]:
    return fails(event)


async def handled(sdk: Sdk, telemetry: Telemetry, handler: Handler, count: int) -> None:
    async with Emulator() as emu:
        pull = PullClient(AccessToken(emu.portal_url, emu.token), name="acme")
        telemetry.watch(pull)
        pull.on("x")(handler)
        async with pull:
            for _ in range(count):
                emu.portal.send("x")
            await until(lambda: sdk.value("bitrix_pull.handler.calls") == count)
            await until(lambda: not pull.health().waiting)
            assert sdk.value("bitrix_pull.handler.calls") == count


@pytest.mark.parametrize("rate", [0, 20, math.inf])
@pytest.mark.parametrize("handler", [later, at_once, to_be_awaited, fails, fails_at_once, fails_when_awaited])
async def test_each_call_is_counted_and_each_failure(sdk: Sdk, handler: Handler, rate: float) -> None:
    await handled(sdk, sdk.telemetry(recorded_per_s=rate), handler, 5)
    failures = 5 if handler in (fails, fails_at_once, fails_when_awaited) else 0
    assert sdk.value("bitrix_pull.handler.failures", error__type="LookupError") == failures
    spans = [span for span in sdk.all_spans if span.name == "process application.x"]
    # What is recorded has both.
    assert sdk.value("messaging.process.duration") == len(spans)
    if failures:
        assert sdk.value("messaging.process.duration", error__type="LookupError") == len(spans)
    assert len(spans) in {0: [0], 20: range(1, 6), math.inf: [5]}[rate]
    assert {span.status.description for span in spans} <= ({"LookupError"} if failures else {None})


async def test_no_more_are_recorded_a_second(sdk: Sdk) -> None:
    began_at = perf_counter()
    await handled(sdk, sdk.telemetry(recorded_per_s=10, traces=False), at_once, 2_000)
    assert 1 <= sdk.value("messaging.process.duration") <= 1 + 10 * (perf_counter() - began_at)


def has_handled(sdk: Sdk, count: int) -> bool:
    calls: int = sdk.value("bitrix_pull.handler.calls")
    return calls == count


async def test_where_there_are_few_all_are_recorded(sdk: Sdk) -> None:
    async with Emulator() as emu:
        pull = PullClient(AccessToken(emu.portal_url, emu.token))
        sdk.telemetry(recorded_per_s=50).watch(pull)
        pull.on("x")(at_once)
        async with pull:
            for count in range(1, 6):
                emu.portal.send("x")
                await until(partial(has_handled, sdk, count))
                await asyncio.sleep(0.03)  # A fiftieth of a second lies between two of them.
        assert sdk.value("messaging.process.duration") == 5


@pytest.mark.parametrize("recorded", [False, True])
async def test_what_a_call_does_has_spans_if_the_call_has_one(sdk: Sdk, recorded: bool) -> None:
    async with Emulator() as emu:
        pull = PullClient(AccessToken(emu.portal_url, emu.token))
        sdk.telemetry(recorded_per_s=math.inf if recorded else 0).watch(pull)
        done = asyncio.Event()

        @pull.on("x")
        async def publish(event: PullEvent[Any]) -> None:
            await pull.publish("y")
            done.set()

        async with pull:
            emu.portal.send("x")
            await done.wait()
            inside = [span.name for span in sdk.all_spans if span.name == "send"]
            assert inside == ["send"] * recorded
            # Measured it is all the same.
            assert sdk.value("messaging.client.operation.duration") == 1
            await pull.publish("z")
            assert len([span for span in sdk.all_spans if span.name == "send"]) == recorded + 1


async def test_one_recorded_call_among_others_does_not_make_them_recorded(sdk: Sdk) -> None:
    async with Emulator() as emu:
        pull = PullClient(AccessToken(emu.portal_url, emu.token))
        sdk.telemetry(recorded_per_s=0.1).watch(pull)
        done: list[int] = []

        @pull.on("x")
        async def publish(event: PullEvent[Any]) -> None:
            await pull.publish("y")
            done.append(1)

        async with pull:
            for _ in range(12):
                emu.portal.send("x")
            await until(lambda: len(done) == 12)
        handled_in = {
            span.context.span_id
            for span in sdk.all_spans
            if span.name == "process application.x" and span.context
        }
        parents = [span.parent.span_id for span in sdk.all_spans if span.name == "send" and span.parent]
        assert set(parents) == handled_in
        assert len(parents) == len([span for span in sdk.all_spans if span.name == "send"])


async def test_there_is_an_end_to_the_names_of_errors(sdk: Sdk) -> None:
    def fail(event: PullEvent[Any]) -> None:
        raise type(f"Error{event.params['n']}", (Exception,), {})

    async with Emulator() as emu:
        pull = PullClient(AccessToken(emu.portal_url, emu.token))
        sdk.telemetry(recorded_per_s=0).watch(pull)
        pull.on("x")(fail)
        async with pull:
            for number in range(300):
                emu.portal.send("x", {"n": number})
            await until(lambda: pull.health().handler_failures == 300)
            causes = {has["error.type"]: n for has, n in sdk.points()["bitrix_pull.handler.failures"]}
    assert causes["_OTHER"] == 100
    assert len(causes) == 201


@pytest.mark.parametrize("rate", [-0.1, float("nan"), True, "0.5"])
def test_a_rate_is_0_or_more(rate: Any) -> None:
    with pytest.raises(InvalidArgument, match="0 or more"):
        Telemetry(recorded_per_s=rate)
