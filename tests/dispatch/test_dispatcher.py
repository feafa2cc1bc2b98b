"""Events reach every handler that wants them, in order, whatever the others do."""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from bitrix_pull.dispatch.router import Router
from bitrix_pull.dispatch.subscription import Subscription
from bitrix_pull.events import PullEvent
from tests.dispatch.rig import Running, event, run, running
from tests.laws import examples


class Order(BaseModel):
    id: int


def number_of(item: PullEvent) -> int:
    return int(item.mid)


async def test_a_handler_gets_what_it_wants_in_order() -> None:
    router = Router()
    seen: list[int] = []

    @router.on("x")
    async def handle(item: PullEvent) -> None:
        await asyncio.sleep(0)
        seen.append(number_of(item))

    async with running(router) as rig:
        rig.put(event(1), event(2, "y"), event(3), event(4, module="crm"), event(5))
        await rig.idle()
    assert seen == [1, 3, 5]


async def test_one_event_at_a_time_for_each_handler() -> None:
    router = Router()
    at_once = most = 0

    @router.on()
    async def handle(item: PullEvent) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1

    async with running(router) as rig:
        rig.put(*(event(number) for number in range(20)))
        await rig.idle()
    assert most == 1


async def test_a_slow_handler_does_not_hold_up_another() -> None:
    router = Router()
    gate, noted = asyncio.Event(), asyncio.Event()
    slow: list[int] = []
    quick: list[int] = []

    @router.on()
    async def wait(item: PullEvent) -> None:
        await gate.wait()
        slow.append(number_of(item))

    @router.on()
    async def note(item: PullEvent) -> None:
        quick.append(number_of(item))
        if number_of(item) == 3:
            noted.set()

    async with running(router) as rig:
        rig.put(*(event(number) for number in range(1, 4)))
        await asyncio.wait_for(noted.wait(), 5)
        assert (quick, slow) == ([1, 2, 3], [])
        assert len(rig.inbox) == 3
        gate.set()
        await rig.idle()
    assert slow == [1, 2, 3]


async def test_a_handler_that_never_waits_lets_others_run() -> None:
    router = Router()
    counts = {"busy": 0, "other": 0}
    largest_lead = 0

    @router.on()
    def busy(item: PullEvent) -> None:
        nonlocal largest_lead
        time.sleep(0.0001)  # A hundred of them take longer than a turn.
        counts["busy"] += 1
        largest_lead = max(largest_lead, counts["busy"] - counts["other"])

    @router.on()
    def other(item: PullEvent) -> None:
        counts["other"] += 1

    async with running(router) as rig:
        rig.put(*(event(number) for number in range(1000)))
        await rig.idle()
    assert counts == {"busy": 1000, "other": 1000}
    assert largest_lead <= 200


class Recorder:
    """Handlers in every shape that Python knows."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def method(self, item: PullEvent) -> None:
        self.seen.append("method")

    async def async_method(self, item: PullEvent) -> None:
        await asyncio.sleep(0)
        self.seen.append("async method")

    def __call__(self, item: PullEvent) -> None:
        self.seen.append("object")

    async def named(self, name: str, item: PullEvent) -> None:
        await asyncio.sleep(0)
        self.seen.append(name)


class AsyncObject:
    def __init__(self, seen: list[str]) -> None:
        self._seen = seen

    async def __call__(self, item: PullEvent) -> None:
        await asyncio.sleep(0)
        self._seen.append("async object")


async def test_handlers_of_every_shape_are_run_to_their_end() -> None:
    router, recorder = Router(), Recorder()
    callbacks: list[Any] = [
        recorder.method,
        recorder.async_method,
        recorder,
        AsyncObject(recorder.seen),
        functools.partial(recorder.named, "partial"),
        lambda item: recorder.seen.append("lambda"),
        lambda item: recorder.named("future", item),
    ]
    for callback in callbacks:
        router.on("x")(callback)
    async with running(router) as rig:
        rig.put(event())
        await rig.idle()
        assert rig.failures == []
    assert sorted(recorder.seen) == sorted(
        ["method", "async method", "object", "async object", "partial", "lambda", "future"]
    )


# -- failures -----------------------------------------------------------------------


async def test_what_a_handler_raises_ends_with_it(caplog: pytest.LogCaptureFixture) -> None:
    router = Router()
    seen: list[int] = []

    @router.on()
    async def fail(item: PullEvent) -> None:
        seen.append(number_of(item))
        if number_of(item) % 2:
            raise ValueError("odd")

    @router.on()
    def note(item: PullEvent) -> None:
        seen.append(-number_of(item))

    async with running(router) as rig:
        events = [event(number) for number in range(1, 5)]
        rig.put(*events)
        await rig.idle()
        failures = rig.failures
    assert sorted(seen) == [-4, -3, -2, -1, 1, 2, 3, 4]
    assert [failure.event for failure in failures] == [events[0], events[2]]
    assert {failure.handler.rpartition(".")[2] for failure in failures} == {"fail"}
    assert [str(failure.error) for failure in failures] == ["odd", "odd"]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "fail" in caplog.records[0].getMessage()


async def test_a_handler_that_lets_a_cancellation_out_goes_on_with_the_next_event() -> None:
    router = Router()
    seen: list[int] = []

    @router.on()
    async def handle(item: PullEvent) -> None:
        seen.append(number_of(item))
        if number_of(item) == 1:
            task = asyncio.create_task(asyncio.Event().wait())
            task.cancel()
            await task

    async with running(router) as rig:
        rig.put(event(1), event(2))
        await rig.idle()
        (failure,) = rig.failures
    assert seen == [1, 2]
    assert "cancelled" in str(failure.error)


async def test_ending_cancels_a_handler_at_work() -> None:
    router = Router()
    ended: list[str] = []
    begun = asyncio.Event()

    @router.on()
    async def handle(item: PullEvent) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async with running(router) as rig:
        rig.put(event(1), event(2))
        await asyncio.wait_for(begun.wait(), 5)
    assert ended == ["cancelled"]
    assert rig.failures == []


async def test_ending_does_not_hang_on_a_handler_that_swallows_the_cancellation() -> None:
    router = Router()
    seen: list[int] = []
    begun = asyncio.Event()

    @router.on()
    async def handle(item: PullEvent) -> None:
        seen.append(number_of(item))
        begun.set()
        try:
            await asyncio.Event().wait()
        except BaseException:
            return

    async with running(router) as rig:  # The rig asserts that it ends.
        rig.put(event(1), event(2))
        await asyncio.wait_for(begun.wait(), 5)
    assert seen == [1]


async def test_a_model_types_the_params_of_its_handler_alone() -> None:
    router = Router()
    seen: list[object] = []

    @router.on("x", model=Order)
    def typed(item: PullEvent[Order]) -> None:
        seen.append(item.params)

    @router.on("x")
    async def plain(item: PullEvent) -> None:
        seen.append(item.params)

    async with running(router) as rig:
        rig.put(event(params={"id": "7"}))
        await rig.idle()
    assert sorted(seen, key=str) == sorted([Order(id=7), {"id": "7"}], key=str)


async def test_params_that_do_not_fit_the_model_are_a_failure_of_that_handler() -> None:
    router = Router()
    seen: list[object] = []

    @router.on("x", model=Order)
    def typed(item: PullEvent[Order]) -> None:
        seen.append(item.params.id)

    async with running(router) as rig:
        wrong = event(1, params={"id": "seven"})
        rig.put(wrong, event(2, params={"id": 8}))
        await rig.idle()
        (failure,) = rig.failures
    assert seen == [8]
    assert failure.event is wrong
    assert isinstance(failure.error, ValidationError)


# -- the set of receivers changes ------------------------------------------------------


async def test_handlers_may_come_later_also_in_included_routers() -> None:
    router, other = Router(), Router()
    seen: list[str] = []
    async with running(router) as rig:
        rig.put(event(1))
        router.on("x")(lambda item: seen.append("own"))
        router.include(other)
        rig.put(event(2))
        other.on("x")(lambda item: seen.append("other"))
        rig.put(event(3))
        await rig.idle()
    assert sorted(seen) == ["other", "own", "own"]


async def test_a_router_that_is_included_over_two_ways_handles_once() -> None:
    top, left, right, shared = Router(), Router(), Router(), Router()
    seen: list[str] = []
    shared.on("x")(lambda item: seen.append(item.mid))
    top.include(left)
    top.include(right)
    left.include(shared)
    right.include(shared)
    async with running(top) as rig:
        rig.put(event())
        await rig.idle()
    assert len(seen) == 1


async def test_what_nobody_wants_is_settled_at_once() -> None:
    async with running() as rig:
        rig.put(event())
        assert len(rig.inbox) == 0
        await rig.idle()


async def test_it_can_run_again() -> None:
    router = Router()
    seen: list[int] = []
    router.on()(lambda item: seen.append(number_of(item)))
    async with running(router) as rig:
        rig.put(event(1))
        await rig.idle()
    again = asyncio.create_task(run(rig.dispatcher))
    await asyncio.sleep(0)
    rig.put(event(2))
    await rig.idle()
    again.cancel()
    await asyncio.wait({again})
    assert seen == [1, 2]


async def test_a_flood_of_invented_commands_leaves_routing_right() -> None:
    router = Router()
    seen: list[int] = []
    router.on("x")(lambda item: seen.append(number_of(item)))
    async with running(router) as rig:
        rig.put(*(event(0, f"invented_{number}") for number in range(3000)))
        rig.put(event(1), event(2))
        await rig.idle()
    assert seen == [1, 2]


# -- room -----------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [{"max_events": 3}, {"max_bytes": 30}])
async def test_a_full_inbox_pauses_the_reader_until_handlers_catch_up(limits: dict[str, Any]) -> None:
    router = Router()
    gate = asyncio.Semaphore(0)

    @router.on()
    async def handle(item: PullEvent) -> None:
        await gate.acquire()

    async with running(router, **limits) as rig:
        rig.put(event(1, size=10), event(2, size=10))
        await asyncio.wait_for(rig.dispatcher.room(), 5)
        rig.put(event(3, size=10))
        reader = asyncio.create_task(rig.dispatcher.room())
        await asyncio.sleep(0)
        assert not reader.done()
        gate.release()
        await asyncio.wait_for(reader, 5)
        assert len(rig.inbox) == 2
        gate.release()
        gate.release()
        await rig.idle()


# -- accounts ---------------------------------------------------------------------------


class Play:
    """What can happen to a dispatcher, one step at a time."""

    def __init__(self, rig: Running, router: Router) -> None:
        self.rig = rig
        self.router = router
        self.subscriptions: list[Subscription[Any]] = []

    async def put(self) -> None:
        self.rig.put(event(command="x", size=7), event(command="y", size=0), event(command="z", size=3))

    async def add_handler(self) -> None:
        async def handle(item: PullEvent) -> None:
            await asyncio.sleep(0)

        self.router.on("x")(handle)

    async def add_failing_handler(self) -> None:
        def fail(item: PullEvent) -> None:
            raise ValueError("always")

        self.router.on("y")(fail)

    async def subscribe(self) -> None:
        subscription = self.rig.subscribe()
        self.subscriptions.append(await subscription.__aenter__())

    async def ask_for_next(self) -> None:
        for subscription in self.subscriptions[:2]:
            asked = asyncio.ensure_future(anext(subscription))
            await asyncio.sleep(0)
            asked.cancel()

    async def leave(self) -> None:
        if self.subscriptions:
            await self.subscriptions.pop().__aexit__(None, None, None)

    async def turn(self) -> None:
        await asyncio.sleep(0)


STEPS = st.lists(
    st.sampled_from(
        [
            Play.put,
            Play.put,
            Play.add_handler,
            Play.add_failing_handler,
            Play.subscribe,
            Play.ask_for_next,
            Play.leave,
            Play.turn,
        ]
    ),
    max_size=30,
)


@settings(max_examples=examples(25))
@given(steps=STEPS)
async def test_whatever_happens_every_event_is_settled_in_the_end(
    steps: list[Callable[[Play], Awaitable[None]]],
) -> None:
    router = Router()
    async with running(router) as rig:
        play = Play(rig, router)
        for step in steps:
            await step(play)
        while play.subscriptions:
            await play.leave()
        await rig.idle()
        assert all(str(failure.error) == "always" for failure in rig.failures)
