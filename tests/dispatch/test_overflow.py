"""A full inbox pauses the reader or drops, never silently, and never grows past its limits."""

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitrix_pull.dispatch.router import Router
from bitrix_pull.events import EventsDropped, PullEvent
from bitrix_pull.options import Overflow
from tests.dispatch.rig import Running, event, mids, running
from tests.laws import examples

DROPPING: list[Overflow] = ["drop_oldest", "drop_newest"]


class Gate:
    """Handlers that wait to be let through, one event at a time."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self._open = asyncio.Semaphore(0)

    async def __call__(self, item: PullEvent) -> None:
        self.seen.append(item.params["n"])
        await self._open.acquire()

    async def let_through(self, count: int = 1) -> None:
        for _ in range(count):
            self._open.release()
            await asyncio.sleep(0.001)


def drops(rig: Running) -> list[EventsDropped]:
    return [item for item in rig.notices if isinstance(item, EventsDropped)]


async def put_numbers(rig: Running, first: int, last: int, *, size: int = 1) -> None:
    for number in range(first, last + 1):
        await asyncio.wait_for(rig.dispatcher.room(), 1)
        rig.put(event(number, size=size))
        await asyncio.sleep(0)


@pytest.mark.parametrize("limits", [{"max_events": 5}, {"max_bytes": 50}])
async def test_drop_oldest_keeps_the_newest(limits: dict[str, Any]) -> None:
    router, gate = Router(), Gate()
    router.on("x")(gate)
    async with running(router, overflow="drop_oldest", **limits) as rig:
        await put_numbers(rig, 1, 20, size=10)
        assert rig.unsettled == mids(1, 17, 18, 19, 20), "the first is in hand"
        assert rig.settled == mids(*range(2, 17))
        assert rig.inbox.dropped == 15
        await gate.let_through(5)
        await rig.idle()
    assert gate.seen == [1, 17, 18, 19, 20]
    assert sorted(rig.settled) == mids(*range(1, 21))


@pytest.mark.parametrize("limits", [{"max_events": 5}, {"max_bytes": 50}])
async def test_drop_newest_keeps_the_oldest(limits: dict[str, Any]) -> None:
    router, gate = Router(), Gate()
    router.on("x")(gate)
    async with running(router, overflow="drop_newest", **limits) as rig:
        await put_numbers(rig, 1, 20, size=10)
        assert rig.unsettled == mids(1, 2, 3, 4, 5)
        assert rig.inbox.dropped == 15
        await gate.let_through(5)
        await rig.idle()
    assert gate.seen == [1, 2, 3, 4, 5]
    assert sorted(rig.settled) == mids(*range(1, 21))


async def test_where_all_is_in_hand_the_one_that_arrives_is_dropped() -> None:
    router, items = Router(), list[PullEvent]()
    router.on("x", ack="manual")(items.append)
    async with running(router, overflow="drop_oldest", max_events=3) as rig:
        rig.put(event(1), event(2), event(3))
        await asyncio.sleep(0.001)
        rig.put(event(4))
        assert rig.settled == mids(4)
        items[0].ack()
        rig.put(event(5))
        await asyncio.sleep(0.001)
    assert [item.params["n"] for item in items] == [1, 2, 3, 5]


async def test_a_slow_handler_loses_what_a_quick_one_has_handled() -> None:
    router, gate = Router(), Gate()
    quick: list[int] = []
    router.on("x")(gate)
    router.on("x")(lambda item: quick.append(item.params["n"]))
    async with running(router, overflow="drop_oldest", max_events=4) as rig:
        await put_numbers(rig, 1, 12)
        assert quick == list(range(1, 13))
        assert rig.unsettled == mids(1, 10, 11, 12)
        await gate.let_through(4)
        await rig.idle()
    assert gate.seen == [1, 10, 11, 12]


async def test_the_oldest_is_found_among_all_queues() -> None:
    router, gate = Router(), Gate()
    router.on("x")(gate)
    async with (
        running(router, overflow="drop_oldest", max_events=6) as rig,
        rig.subscribe() as events,
    ):
        rig.put(event(1, "y"), event(2), event(3), event(4, "y"), event(5), event(6))
        await asyncio.sleep(0.001)
        assert gate.seen == [2]
        rig.put(event(7))
        assert rig.settled == mids(1)
        rig.put(event(8))
        # 2 is in hand of the handler, so only the subscription loses it; 3 makes the room.
        assert rig.settled == mids(1, 3)
        assert [int((await anext(events)).mid) for _ in range(5)] == [4, 5, 6, 7, 8]


async def test_what_waits_for_its_key_can_be_dropped() -> None:
    router, items = Router(), list[PullEvent]()
    router.on("x", ack="manual", key=lambda item: item.params["n"] % 2)(items.append)
    async with running(router, overflow="drop_oldest", max_events=5) as rig:
        rig.put(event(1), event(3), event(5), event(2), event(7))
        await asyncio.sleep(0.001)
        assert [item.params["n"] for item in items] == [1, 2]
        rig.put(event(9), event(11))
        assert rig.settled == mids(3, 5)
        for _ in range(5):
            items[-1].ack()
            items[0].ack()
            await asyncio.sleep(0.001)
            items.sort(key=lambda item: item.mid)
        assert [item.params["n"] for item in items] == [1, 2, 7, 9, 11]


@pytest.mark.parametrize("overflow", DROPPING)
async def test_one_notice_and_one_warning_for_each_overflow(
    overflow: Overflow, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    router, gate = Router(), Gate()
    router.on("x")(gate)
    async with running(router, overflow=overflow, max_events=10) as rig:
        await put_numbers(rig, 1, 30)
        for number in range(31, 50):  # The handler gets one, two come: still the same overflow.
            await gate.let_through()
            await put_numbers(rig, 2 * number, 2 * number + 1)
        (notice,) = drops(rig)
        assert notice == EventsDropped(overflow, mids(2 if overflow == "drop_oldest" else 11)[0], 1)
        before = rig.inbox.dropped
        assert before > 20
        await gate.let_through(10)
        await rig.idle()
        await put_numbers(rig, 101, 130)
        assert [item.total for item in drops(rig)] == [1, before + 1]
        await gate.let_through(10)
        await rig.idle()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"] * 2
    assert str(before) in caplog.records[1].getMessage()


@pytest.mark.parametrize("overflow", DROPPING)
async def test_what_nobody_wants_is_not_dropped(overflow: Overflow) -> None:
    router, gate = Router(), Gate()
    router.on("x")(gate)
    async with running(router, overflow=overflow, max_events=2) as rig:
        rig.put(event(1), event(2), event(3, "y"))
        assert rig.inbox.dropped == 0
        assert rig.settled == mids(3)


@settings(max_examples=examples(25))
@given(data=st.data(), overflow=st.sampled_from(DROPPING))
async def test_the_limits_hold_and_every_event_is_seen_or_counted(
    data: st.DataObject, overflow: Overflow
) -> None:
    router, gate = Router(), Gate()
    quick: list[int] = []
    router.on(
        "x", concurrency=data.draw(st.integers(1, 2)), key=data.draw(st.sampled_from([None, lambda _: 1]))
    )(gate)
    router.on("x")(lambda item: quick.append(item.params["n"]))
    count = 0
    async with running(router, overflow=overflow, max_events=4, max_bytes=40) as rig:
        for step in data.draw(
            st.lists(st.sampled_from(["put", "put big", "run", "let through"]), max_size=60)
        ):
            if step == "let through":
                await gate.let_through()
            elif step == "run":
                await asyncio.sleep(0)
            else:
                rig.put(event(count, size=30 if step == "put big" else 5))
                count += 1
            assert len(rig.inbox) <= 4
            assert rig.inbox.size < 40 + 30
        await gate.let_through(count + 4)
        await rig.idle()
        assert sorted(rig.settled) == mids(*range(count)), "settled once each"
        assert len(set(range(count)) - set(gate.seen)) == rig.inbox.dropped
        assert len(drops(rig)) <= rig.inbox.dropped
