"""A handler that fails is tried again, holds up nobody, and is given up in the end."""

import asyncio
import contextlib
from collections import Counter
from itertools import pairwise
from typing import Any, cast

import pytest
from pydantic import BaseModel

from bitrix_pull.dispatch.router import Router
from bitrix_pull.events import PullEvent
from tests import virtual_time
from tests.dispatch.rig import Running, event, mids, running


class Order(BaseModel):
    id: int


def now() -> float:
    return asyncio.get_running_loop().time()


async def wait_for_ever(item: PullEvent) -> None:
    await asyncio.Event().wait()


def test_it_is_tried_again_with_growing_delays() -> None:
    async def main() -> list[float]:
        router = Router()
        times: list[float] = []

        @router.on("x", retries=9, retry_delay=0.5)
        async def handle(item: PullEvent) -> None:
            times.append(now())
            raise ValueError("never")

        async with running(router) as rig:
            rig.put(event(1))
            await rig.idle(timeout=1000)
            (failure,) = rig.failures
            assert failure.attempts == 10
            assert str(failure.error) == "never"
            assert rig.settled == mids(1)
        return [later - first for first, later in pairwise(times)]

    delays = virtual_time.run(main)
    for delay, least in zip(delays, [0.5, 1, 2, 4, 8, 16, 32, 50, 50], strict=True):
        assert least - 0.01 <= delay <= min(least * 1.2, 60) + 0.01


def test_a_retry_that_works_is_no_failure() -> None:
    async def main() -> Running:
        router = Router()
        attempts = Counter[str]()

        @router.on("x", retries=2, retry_delay=1)
        def handle(item: PullEvent) -> None:
            attempts[item.mid] += 1
            if attempts[item.mid] < 3:
                raise ValueError("not yet")

        async with running(router) as rig:
            rig.put(event(1), event(2))
            await rig.idle()
        return rig

    rig = virtual_time.run(main)
    assert rig.failures == []
    assert sorted(rig.settled) == mids(1, 2)


def test_others_go_on_while_one_waits_for_its_retry() -> None:
    async def main() -> list[tuple[int, bool]]:
        router = Router()
        seen: list[tuple[int, bool]] = []

        @router.on("x", retries=1)
        async def handle(item: PullEvent) -> None:
            again = (item.params["n"], False) in seen
            seen.append((item.params["n"], again))
            if item.params["n"] == 1 and not again:
                raise ValueError("at first")

        async with running(router) as rig:
            rig.put(event(1), event(2), event(3))
            await rig.idle()
        return seen

    assert virtual_time.run(main) == [(1, False), (2, False), (3, False), (1, True)]


async def test_params_that_do_not_fit_are_not_tried_again() -> None:
    router = Router()

    @router.on("x", model=Order, retries=5)
    async def handle(item: PullEvent[Order]) -> None:
        raise AssertionError("it cannot be called")

    async with running(router) as rig:
        rig.put(event(1, params={"id": "seven"}))
        await rig.idle()
        (failure,) = rig.failures
        assert failure.attempts == 1
        assert rig.settled == mids(1)


class Strange(BaseException):
    """Neither an Exception nor meant to end the process, as pytest's outcomes."""


@pytest.mark.parametrize("policy", [{}, {"concurrency": 2}])
async def test_what_is_no_exception_is_a_failure_too(policy: dict[str, Any]) -> None:
    router = Router()
    seen: list[int] = []

    async def handle(item: PullEvent) -> None:
        seen.append(item.params["n"])
        if item.params["n"] < 3:
            raise Strange("why not")

    cast("Any", router.on)("x", **policy)(handle)
    async with running(router) as rig:
        rig.put(event(1), event(2), event(3))
        await rig.idle()
        assert seen == [1, 2, 3]
        assert [str(failure.error.__cause__) for failure in rig.failures] == ["why not"] * 2


@pytest.mark.parametrize("policy", [{}, {"concurrency": 2}, {"timeout": 5}])
async def test_a_handler_that_cancels_its_own_task_does_not_end_the_worker(policy: dict[str, Any]) -> None:
    router = Router()
    seen: list[int] = []

    async def handle(item: PullEvent) -> None:
        seen.append(item.params["n"])
        task = asyncio.current_task()
        if item.params["n"] < 5 and task is not None:
            task.cancel()
            await asyncio.sleep(0)

    cast("Any", router.on)("x", **policy)(handle)
    async with running(router) as rig:
        rig.put(*(event(number) for number in range(1, 8)))
        await rig.idle()
        assert sorted(seen) == [1, 2, 3, 4, 5, 6, 7]
        assert sorted(failure.event.reference for failure in rig.failures) == mids(1, 2, 3, 4)
        assert {str(failure.error) for failure in rig.failures} == {
            "the handler cancelled the task that it ran in"
        }


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("policy", [{}, {"retries": 2}])
def test_what_ends_the_process_is_no_failure(
    error: type[BaseException], policy: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    rigs: list[Running] = []

    async def main() -> None:
        router = Router()

        async def handle(item: PullEvent) -> None:
            raise error

        cast("Any", router.on)("x", **policy)(handle)
        async with running(router) as rig:
            rigs.append(rig)
            rig.put(event(1), event(2))
            await asyncio.sleep(10)

    with pytest.raises(error):
        virtual_time.run(main)
    assert rigs[0].settled == []
    assert rigs[0].failures == []
    assert caplog.records == []


# -- timeouts -----------------------------------------------------------------------


def test_a_handler_that_hangs_is_cancelled_and_has_failed() -> None:
    async def main() -> tuple[Running, float]:
        router = Router()
        router.on("x", timeout=3)(wait_for_ever)
        async with running(router) as rig:
            rig.put(event(1))
            begun = now()
            await rig.idle()
            return rig, now() - begun

    rig, took = virtual_time.run(main)
    (failure,) = rig.failures
    assert isinstance(failure.error, TimeoutError)
    assert "3 s" in str(failure.error)
    assert 3 <= took <= 3.1
    assert rig.settled == mids(1)


def test_one_that_swallows_its_cancellation_is_left_running(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> list[float]:
        router = Router()
        times: list[float] = []

        @router.on("x", timeout=1)
        async def handle(item: PullEvent) -> None:
            times.append(now())
            while item.params["n"] == 1 and now() < 100:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(100)

        async with running(router) as rig:
            rig.put(event(1), event(2))
            await rig.idle()
            assert [failure.event.reference for failure in rig.failures] == mids(1)
        await asyncio.sleep(200)
        return times

    first, second = virtual_time.run(main)
    assert 1 <= second - first <= 2
    assert "left running" in caplog.text


def test_one_that_returns_when_cancelled_has_failed_all_the_same() -> None:
    async def main() -> Running:
        router = Router()

        @router.on("x", timeout=1)
        async def handle(item: PullEvent) -> None:
            try:
                await wait_for_ever(item)
            except asyncio.CancelledError:
                return

        async with running(router) as rig:
            rig.put(event(1))
            await rig.idle()
        return rig

    rig = virtual_time.run(main)
    assert [type(failure.error) for failure in rig.failures] == [TimeoutError]


def test_timeouts_are_tried_again() -> None:
    async def main() -> Running:
        router = Router()
        router.on("x", timeout=1, retries=2)(wait_for_ever)
        async with running(router) as rig:
            rig.put(event(1))
            await rig.idle(timeout=20)
        return rig

    (failure,) = virtual_time.run(main).failures
    assert failure.attempts == 3


# -- dead letters -------------------------------------------------------------------


def test_what_failed_for_good_is_handed_over_once_and_then_settled() -> None:
    async def main() -> None:
        router = Router()
        dead: list[tuple[str, str]] = []

        async def bury(item: PullEvent, error: Exception) -> None:
            assert rig.settled == []
            await asyncio.sleep(10)
            dead.append((item.mid, str(error)))

        @router.on("x", retries=2, on_dead_letter=bury)
        async def handle(item: PullEvent) -> None:
            raise ValueError("never")

        async with running(router) as rig:
            rig.put(event(1))
            await rig.idle(timeout=60)
            assert dead == [(mids(1)[0], "never")]
            assert rig.settled == mids(1)
            assert len(rig.failures) == 1

    virtual_time.run(main)


def test_a_slow_dead_letter_holds_up_nobody() -> None:
    async def main() -> None:
        router = Router()
        seen: list[int] = []
        gate = asyncio.Event()

        @router.on("x", on_dead_letter=lambda item, error: gate.wait())
        async def handle(item: PullEvent) -> None:
            if item.params["n"] == 1:
                raise ValueError("never")
            seen.append(item.params["n"])

        async with running(router) as rig:
            rig.put(event(1), event(2), event(3))
            await asyncio.sleep(1)
            assert seen == [2, 3]
            assert rig.unsettled == mids(1)
            gate.set()
            await rig.idle()

    virtual_time.run(main)


@pytest.mark.parametrize("error", [ValueError, Strange])
async def test_what_it_raises_is_logged_and_stops_nothing(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    router = Router()

    def bury(item: PullEvent, cause: Exception) -> None:
        raise error("cannot")

    @router.on("x", on_dead_letter=bury)
    async def handle(item: PullEvent) -> None:
        raise ValueError("never")

    async with running(router) as rig:
        rig.put(event(1), event(2))
        await rig.idle()
        assert rig.settled == mids(1, 2)
    assert caplog.text.count("on_dead_letter of handler") == 2


async def test_closing_while_it_is_handed_over_leaves_the_event_unsettled() -> None:
    router = Router()
    begun = asyncio.Event()

    async def bury(item: PullEvent, error: Exception) -> None:
        begun.set()
        await asyncio.Event().wait()

    @router.on("x", on_dead_letter=bury)
    def handle(item: PullEvent) -> None:
        raise ValueError("never")

    async with running(router) as rig:
        rig.put(event(1))
        await asyncio.wait_for(begun.wait(), 5)
    assert rig.unsettled == mids(1)
    assert rig.settled == []


def test_closing_drops_the_timers_of_retries() -> None:
    async def main() -> Running:
        router = Router()
        calls: list[str] = []

        @router.on("x", retries=3, retry_delay=10)
        def handle(item: PullEvent) -> None:
            calls.append(item.mid)
            raise ValueError("never")

        async with running(router) as rig:
            rig.put(event(1), event(2))
            await asyncio.sleep(1)
        await asyncio.sleep(100)
        assert calls == mids(1, 2)
        return rig

    rig = virtual_time.run(main)
    assert rig.unsettled == mids(1, 2)
    assert rig.failures == []


# -- the promise --------------------------------------------------------------------

EVENTS = 1_000
EVERY_S = 0.1
TIMEOUT_S = 2.0


@pytest.mark.parametrize("retries", [0, 2])
def test_poison_on_a_tenth_of_events_delays_others_by_a_second_at_most(retries: int) -> None:
    """Of ten events one raises, hangs, ignores its end, or is cancelled in one way or another."""

    async def main() -> None:
        router = Router()
        done: list[int] = []
        dead: list[str] = []
        begun: list[float] = []
        failed: list[tuple[int, float]] = []  # Index of the next call; when it raised or was out of time.
        last_other_call = 0

        @router.on(
            "x",
            timeout=TIMEOUT_S,
            retries=retries,
            on_dead_letter=lambda item, error: dead.append(item.mid),
        )
        async def handle(item: PullEvent) -> None:
            nonlocal last_other_call
            number = item.params["n"]
            begun.append(now())
            if number % 10 == 0:
                fate = number // 10 % 5
                failed.append((len(begun), now() + (TIMEOUT_S if fate in (1, 2) else 0)))
                await POISON[fate]()
            else:
                last_other_call = len(begun) - 1
                done.append(number)

        async with running(router, max_events=10_000) as rig:
            for number in range(EVENTS):
                rig.put(event(number))
                await asyncio.sleep(EVERY_S)
            await rig.idle(timeout=10_000)
            poison = mids(*range(0, EVENTS, 10))
            assert sorted(done) == [number for number in range(EVENTS) if number % 10]
            assert sorted(rig.settled) == mids(*range(EVENTS))
            assert sorted(dead) == poison
            assert sorted(failure.event.reference for failure in rig.failures) == poison
            assert {failure.attempts for failure in rig.failures} == {retries + 1}
        delays = [begun[call] - at for call, at in failed if call <= last_other_call]
        assert len(delays) >= 90 * (retries + 1)
        assert max(delays) <= 1.0
        await asyncio.sleep(100)  # Until those that ignore their end have ended.

    virtual_time.run(main)


async def raise_error() -> None:
    raise ValueError("poison")


async def hang() -> None:
    await asyncio.Event().wait()


async def ignore_the_end() -> None:
    until = now() + 50
    while now() < until:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(50)


async def be_cancelled() -> None:
    task = asyncio.create_task(asyncio.Event().wait())
    task.cancel()
    await task


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


POISON = [raise_error, hang, ignore_the_end, be_cancelled, cancel_itself]
