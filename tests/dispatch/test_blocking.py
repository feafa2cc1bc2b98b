"""Plain handlers that hold the event loop up are named, once a minute at most."""

import asyncio
from typing import Any

import pytest

from bitrix_pull.dispatch import blocking, worker
from bitrix_pull.dispatch.registry import CallNext, Context
from bitrix_pull.dispatch.router import Router
from bitrix_pull.events import Event, PullEvent
from tests.dispatch.rig import event, running

POLICIES: list[dict[str, Any]] = [{}, {"retries": 1}, {"timeout": 60}, {"where": lambda event: True}]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(worker, "monotonic", made)
    monkeypatch.setattr(blocking, "monotonic", made)
    return made


async def pass_on(event: Event, call_next: CallNext, context: Context) -> object:
    return await call_next(event)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("within", [False, True], ids=["plain", "within middleware"])
async def test_one_that_takes_over_a_second_is_named(
    policy: dict[str, Any], within: bool, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    router = Router()
    if within:
        router.middleware(pass_on)

    def busy(event: PullEvent) -> None:
        clock.now += event.params["n"] / 10

    router.on("x", **policy)(busy)
    async with running(router) as rig:
        for tenths in (5, 10, 12, 12):
            rig.put(event(tenths))
            await rig.idle()
        assert len(caplog.records) == 1, "the first was told, and a minute has not passed"
        clock.now += 60
        rig.put(event(30))
        await rig.idle()
    told = [record.getMessage() for record in caplog.records]
    assert ["blocked the event loop for 1.2 s" in told[0], "blocked the event loop for 3.0 s" in told[1]] == [
        True,
        True,
    ]
    assert all("busy" in text and "asyncio.to_thread" in text for text in told)


@pytest.mark.parametrize("policy", POLICIES)
async def test_one_that_waits_is_not(
    policy: dict[str, Any], clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def patient(event: PullEvent) -> None:
        await asyncio.sleep(0)
        clock.now += 5

    router = Router()
    router.on("x", **policy)(patient)
    router.on("x", **policy)(lambda event: patient(event))
    async with running(router) as rig:
        rig.put(event(1))
        await rig.idle()
    assert caplog.records == []


async def test_a_thousand_quick_calls_in_a_row_are_no_block(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def quick(event: PullEvent) -> None:
        clock.now += 0.005

    router = Router()
    router.on("x")(quick)
    async with running(router) as rig:
        rig.put(*(event(number) for number in range(1000)))
        await rig.idle()
    assert caplog.records == []
