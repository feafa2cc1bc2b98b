"""When an event is settled: once, and only when its handler is done with it."""

import asyncio
import contextlib
import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise

import pytest
from pydantic import BaseModel

from bitrix_pull.dispatch.dispatcher import Dispatcher
from bitrix_pull.dispatch.inbox import Inbox
from bitrix_pull.dispatch.router import Router, registry_of
from bitrix_pull.errors import InvalidArgument, Nacked
from bitrix_pull.events import Notice, PullEvent
from tests import virtual_time
from tests.dispatch.rig import Running, event, mids, run, running


class Order(BaseModel):
    id: int


# -- automatic ----------------------------------------------------------------------


async def test_an_event_is_settled_when_its_handler_has_returned() -> None:
    router = Router()
    gate = asyncio.Semaphore(0)

    @router.on("x")
    async def handle(item: PullEvent) -> None:
        await gate.acquire()

    async with running(router) as rig:
        rig.put(event(1), event(2))
        await asyncio.sleep(0.001)
        assert rig.settled == []
        assert rig.unsettled == mids(1, 2)
        gate.release()
        gate.release()
        await rig.idle()
        assert rig.settled == mids(1, 2)


async def test_it_is_settled_once_when_all_who_got_it_are_done() -> None:
    router = Router()
    gate = asyncio.Event()
    router.on("x")(lambda item: None)
    router.on("x")(lambda item: gate.wait())
    async with running(router) as rig:
        rig.put(event(1))
        await asyncio.sleep(0.001)
        assert rig.settled == []
        gate.set()
        await rig.idle()
        assert rig.settled == mids(1)


async def test_what_nobody_wants_is_settled_at_once() -> None:
    async with running() as rig:
        rig.put(event(1))
        assert rig.settled == mids(1)
        assert rig.unsettled == []


async def test_a_failure_settles_too() -> None:
    router = Router()

    @router.on("x", model=Order)
    async def handle(item: PullEvent[Order]) -> None:
        raise ValueError(item.params.id)

    async with running(router) as rig:
        rig.put(event(1, params={"id": 1}), event(2, params={"id": "two"}))
        await rig.idle()
        assert rig.settled == mids(1, 2)
        assert [failure.attempts for failure in rig.failures] == [1, 1]


# -- closing ------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [{}, {"timeout": 60}, {"concurrency": 2}, {"retries": 3}])
@pytest.mark.parametrize("swallows", [False, True])
async def test_closing_leaves_what_is_in_hand_and_in_the_queue_unsettled(
    policy: dict[str, float], swallows: bool
) -> None:
    router = Router()
    begun = asyncio.Event()

    async def handle(item: PullEvent) -> None:
        if item.params["n"] == 1:
            return
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not swallows:
                raise

    router.on("x", **policy)(handle)  # type: ignore[call-overload]
    async with running(router) as rig:
        rig.put(*(event(number) for number in range(1, 6)))
        await asyncio.wait_for(begun.wait(), 5)
    assert rig.settled == mids(1)
    assert rig.unsettled == mids(2, 3, 4, 5)
    assert rig.failures == []
    assert len(rig.inbox) == 4, "health must not say that they were handled"


async def test_ending_the_loop_settles_nothing_either() -> None:
    # What asyncio.run does with what is left: everything is cancelled at once.
    router = Router()
    router.on("x")(lambda item: asyncio.Event().wait())
    router.on("x", retries=1)(lambda item: asyncio.Event().wait())
    before = asyncio.all_tasks()
    async with running(router) as rig:
        rig.put(event(1))
        await asyncio.sleep(0.001)
        ours = asyncio.all_tasks() - before
        for task in ours:
            task.cancel()
        await asyncio.wait(ours, timeout=5)
        assert asyncio.all_tasks() == before
    assert rig.settled == []
    assert rig.failures == []


def test_a_handler_that_will_not_end_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> float:
        router = Router()
        release = asyncio.Event()

        @router.on("x")
        async def handle(item: PullEvent) -> None:
            while not release.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await release.wait()

        async with running(router) as rig:
            rig.put(event(1))
            await asyncio.sleep(0)
            closed_at = asyncio.get_running_loop().time()
        took = asyncio.get_running_loop().time() - closed_at
        assert rig.unsettled == mids(1)
        release.set()
        await asyncio.sleep(0.1)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return took

    assert virtual_time.run(main) <= 1.0
    assert "left behind" in caplog.text


async def test_a_worker_that_breaks_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    router = Router()
    seen: list[str] = []

    @router.on("x")
    def handle(item: PullEvent) -> None:
        seen.append(item.mid)
        raise ValueError

    broken = iter([True])

    def announce(notice: Notice) -> None:
        if next(broken, False):
            raise OSError("the disk is full")

    dispatcher = Dispatcher(PullEvent, registry_of(router), Inbox(max_events=10, max_bytes=100), announce)
    running_task = asyncio.create_task(run(dispatcher))
    await asyncio.sleep(0)
    dispatcher.put([event(number) for number in range(3)])
    while len(seen) < 3:
        await asyncio.sleep(0)
    running_task.cancel()
    await asyncio.wait({running_task})
    assert seen == mids(0, 1, 2)
    assert [record.levelname for record in caplog.records].count("CRITICAL") == 1


# -- on receipt ---------------------------------------------------------------------


async def test_on_receive_settles_before_the_handler_is_called() -> None:
    router = Router()
    settled_then: list[list[str]] = []

    @router.on("x", ack="on_receive")
    async def handle(item: PullEvent) -> None:
        settled_then.append(list(rig.settled))
        raise ValueError("too late to matter")

    async with running(router) as rig:
        rig.put(event(1))
        rig.put(event(2))
        await asyncio.sleep(0.001)
        assert settled_then == [mids(1), mids(1, 2)]
        assert rig.settled == mids(1, 2)
        assert [failure.event.reference for failure in rig.failures] == mids(1, 2)


# -- manual -------------------------------------------------------------------------


class Desk:
    """A handler that only collects, for somebody else to acknowledge."""

    def __init__(self) -> None:
        self.items: list[PullEvent] = []

    def __call__(self, item: PullEvent) -> None:
        self.items.append(item)

    @property
    def numbers(self) -> list[int]:
        return [int(item.mid) for item in self.items]


@pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, lambda item: pickle.loads(pickle.dumps(item))])
async def test_a_manual_event_can_be_copied_and_pickled_and_only_itself_be_acked(
    travel: Callable[[PullEvent], PullEvent],
) -> None:
    router, held = Router(), list[PullEvent]()
    router.on("x", ack="manual")(held.append)
    async with running(router) as rig:
        rig.put(event(1, params={"n": [1]}))
        await asyncio.sleep(0)
        copied = travel(held[0])
        assert asdict(copied) == asdict(held[0])
        with pytest.raises(RuntimeError, match='ack="manual"'):
            copied.ack()
        assert rig.settled == []
        held[0].ack()
        await rig.idle()
        assert rig.settled == mids(1)


async def test_manual_settles_at_ack_whenever_that_comes() -> None:
    router, desk = Router(), Desk()
    router.on("x", ack="manual")(desk)
    async with running(router) as rig:
        rig.put(event(1), event(2), event(3))
        await asyncio.sleep(0.001)
        assert desk.numbers == [1, 2, 3]
        assert rig.settled == []
        desk.items[2].ack()
        desk.items[0].ack()
        assert rig.settled == mids(3, 1)
    assert rig.unsettled == mids(2)


async def test_an_ack_in_the_handler_counts_though_it_then_fails(caplog: pytest.LogCaptureFixture) -> None:
    router = Router()

    @router.on("x", ack="manual", retries=5)
    async def handle(item: PullEvent) -> None:
        item.ack()
        raise ValueError("after the ack")

    async with running(router) as rig:
        rig.put(event(1))
        await rig.idle()
        assert rig.settled == mids(1)
        assert rig.failures == []
    assert "after its ack" in caplog.text


async def test_an_ack_from_a_thread_is_refused_and_can_be_said_again() -> None:
    router = Router()
    held: list[PullEvent] = []
    router.on("x", ack="manual")(held.append)
    async with running(router) as rig:
        rig.put(event(1))
        while not held:
            await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
            await asyncio.to_thread(held[0].ack)
        assert rig.unsettled == mids(1)
        held[0].ack()
        assert rig.settled == mids(1)


def test_nack_brings_the_event_back_after_the_delay() -> None:
    async def main() -> None:
        router = Router()
        times: list[float] = []
        loop = asyncio.get_running_loop()

        @router.on("x", ack="manual")
        async def handle(item: PullEvent) -> None:
            times.append(loop.time())
            if len(times) < 10:
                item.nack(delay=30)
            else:
                item.ack()

        async with running(router) as rig:
            rig.put(event(1))
            await rig.idle(timeout=1000)
            assert rig.settled == mids(1)
            assert rig.failures == []
        assert [round(later - first) for first, later in pairwise(times)] == [30] * 9

    virtual_time.run(main)


async def test_only_that_handler_gets_it_again() -> None:
    router, desk, other = Router(), Desk(), Desk()
    router.on("x", ack="manual")(desk)
    router.on("x")(other)
    async with running(router) as rig:
        rig.put(event(1))
        await asyncio.sleep(0.001)
        desk.items[0].nack()
        await asyncio.sleep(0.001)
        assert (desk.numbers, other.numbers) == ([1, 1], [1])
        desk.items[1].ack()
        assert rig.settled == mids(1)


FIRST_WORDS: list[Callable[[PullEvent], None]] = [PullEvent.ack, PullEvent.nack]


@pytest.mark.parametrize("first", FIRST_WORDS)
@pytest.mark.parametrize("second", FIRST_WORDS)
async def test_the_first_word_counts(
    first: Callable[[PullEvent], None], second: Callable[[PullEvent], None]
) -> None:
    router, desk = Router(), Desk()
    router.on("x", ack="manual")(desk)
    router.on("x")(lambda item: asyncio.Event().wait())
    async with running(router) as rig:
        rig.put(event(1))
        await asyncio.sleep(0.001)
        first(desk.items[0])
        second(desk.items[0])
        await asyncio.sleep(0.001)
        assert desk.numbers == ([1] if first is PullEvent.ack else [1, 1])
        assert rig.settled == [], "the other handler has not finished"


def test_nacks_are_limited_by_retries() -> None:
    async def main() -> Running:
        router = Router()

        @router.on("x", ack="manual", retries=2)
        async def handle(item: PullEvent) -> None:
            item.nack(delay=1)

        async with running(router) as rig:
            rig.put(event(1))
            await rig.idle()
        return rig

    rig = virtual_time.run(main)
    (failure,) = rig.failures
    assert isinstance(failure.error, Nacked)
    assert failure.attempts == 3
    assert rig.settled == mids(1)


def test_a_manual_handler_that_raises_without_a_word_has_failed() -> None:
    async def main() -> Running:
        router, attempts = Router(), Desk()

        @router.on("x", ack="manual", retries=1)
        async def handle(item: PullEvent) -> None:
            attempts(item)
            raise ValueError("no")

        async with running(router) as rig:
            rig.put(event(1))
            await rig.idle()
            for item in attempts.items:
                item.nack()  # Too late.
            await asyncio.sleep(5)
        assert attempts.numbers == [1, 1]
        return rig

    rig = virtual_time.run(main)
    (failure,) = rig.failures
    assert failure.attempts == 2
    assert rig.settled == mids(1)


async def test_words_after_the_end() -> None:
    router, desk = Router(), Desk()
    router.on("x", ack="manual", retries=1, on_dead_letter=lambda item, error: None)(desk)
    async with running(router) as rig:
        rig.put(event(1), event(2), event(3))
        await asyncio.sleep(0.001)
        desk.items[2].nack()
        await asyncio.sleep(0.001)
    desk.items[0].ack()
    desk.items[1].nack()
    desk.items[3].nack()
    assert rig.settled == mids(1), "it was handled, and that is true"
    assert rig.unsettled == mids(2, 3)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_manual_handler_gets_a_copy_with_its_typed_params() -> None:
    router = Router()
    seen: list[Order] = []
    plain = Desk()
    router.on("x")(plain)

    @router.on("x", ack="manual", model=Order)
    async def handle(item: PullEvent[Order]) -> None:
        seen.append(item.params)
        item.ack()

    async with running(router) as rig:
        rig.put(event(1, params={"id": "7"}))
        await rig.idle()
    assert seen == [Order(id=7)]
    assert plain.items[0].params == {"id": "7"}


@pytest.mark.parametrize("word", FIRST_WORDS)
async def test_other_events_have_no_word(word: Callable[[PullEvent], None]) -> None:
    router, desk = Router(), Desk()
    router.on("x", retries=1)(desk)
    router.on("x")(desk)
    async with running(router) as rig:
        rig.put(event(1))
        await rig.idle()
    for item in (*desk.items, event()):
        with pytest.raises(RuntimeError, match='ack="manual"'):
            word(item)


@pytest.mark.parametrize("delay", [-1, math.nan, math.inf])
async def test_a_delay_is_seconds(delay: float) -> None:
    router, desk = Router(), Desk()
    router.on("x", ack="manual")(desk)
    async with running(router) as rig:
        rig.put(event(1))
        await asyncio.sleep(0.001)
        with pytest.raises(InvalidArgument, match="delay"):
            desk.items[0].nack(delay)
        desk.items[0].ack()
        await rig.idle()
    assert rig.settled == mids(1)
