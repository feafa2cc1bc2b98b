"""Accounting of what is not handled yet."""

import asyncio
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from bitrix_pull.dispatch.inbox import Inbox
from bitrix_pull.events import PullEvent
from tests.dispatch.rig import event
from tests.laws import examples

MAX_EVENTS = 4
MAX_BYTES = 50


class Accounts(RuleBasedStateMachine):
    """Takes and settles at random, beside a plain count."""

    receipts = Bundle("receipts")
    """One for each receiver that has not finished with its event."""

    def __init__(self) -> None:
        super().__init__()
        self.settled: list[PullEvent[Any]] = []
        self.told_failed: list[PullEvent[Any]] = []
        self.inbox = Inbox[PullEvent[Any]](
            max_events=MAX_EVENTS,
            max_bytes=MAX_BYTES,
            settled=self.settled.extend,
            failed=self.told_failed.extend,
        )
        self.loop = asyncio.new_event_loop()
        self.open: dict[PullEvent[Any], int] = {}
        self.abandoned: set[PullEvent[Any]] = set()
        self.done: list[PullEvent[Any]] = []
        self.failed: set[PullEvent[Any]] = set()
        self.done_in_vain: list[PullEvent[Any]] = []
        self.count = 0

    @rule(target=receipts, receivers=st.integers(1, 3), size=st.integers(0, 30))
    def take(self, receivers: int, size: int) -> Any:
        self.count += 1
        taken = event(self.count, size=size)
        self.inbox.take([taken], receivers)
        self.open[taken] = receivers
        return multiple(*[taken] * receivers)

    @rule(finished=st.lists(consumes(receipts), min_size=1, max_size=5), in_vain=st.booleans())
    def settle(self, finished: list[PullEvent[Any]], in_vain: bool) -> None:
        async def settle() -> None:
            for taken in finished:
                (self.inbox.fail if in_vain else self.inbox.settle)(taken)

        self.loop.run_until_complete(settle())
        for taken in finished:
            if in_vain and taken in self.open:
                self.failed.add(taken)
        for taken in finished:
            self.finish(taken)

    @rule(taken=consumes(receipts))
    def abandon(self, taken: PullEvent[Any]) -> None:
        self.inbox.abandon(taken)
        if taken in self.open:
            self.abandoned.add(taken)
            self.finish(taken)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        taken = data.draw(st.sampled_from([event(), *sorted(self.abandoned, key=lambda item: item.mid)]))
        self.inbox.release(taken)
        if taken in self.abandoned:
            self.abandoned.remove(taken)
            if taken not in self.open:
                self.end(taken)

    @rule()
    def take_what_nobody_wants(self) -> None:
        unwanted = event()
        self.inbox.take([unwanted], 0)
        self.done.append(unwanted)

    def finish(self, taken: PullEvent[Any]) -> None:
        if taken in self.open:
            self.open[taken] -= 1
            if not self.open[taken]:
                del self.open[taken]
                if taken not in self.abandoned:
                    self.end(taken)

    def end(self, taken: PullEvent[Any]) -> None:
        (self.done_in_vain if taken in self.failed else self.done).append(taken)

    @rule()
    def clear(self) -> None:
        self.inbox.begin()
        self.open.clear()
        self.abandoned.clear()

    def teardown(self) -> None:
        self.loop.close()

    @invariant()
    def accounts_agree(self) -> None:
        size = sum(taken.size for taken in self.open)
        assert len(self.inbox) == len(self.open)
        assert self.inbox.size == size
        assert self.settled == self.done
        assert self.told_failed == self.done_in_vain
        assert self.inbox.unsettled == {*self.open, *self.abandoned}
        assert self.inbox.full is (len(self.open) >= MAX_EVENTS or size >= MAX_BYTES)


TestAccounts = Accounts.TestCase
TestAccounts.settings = settings(max_examples=examples(25), stateful_step_count=25)


async def waits(inbox: Inbox[PullEvent[Any]]) -> bool:
    """Tell whether somebody who asks for room now has to wait."""
    reader = asyncio.create_task(inbox.room())
    await asyncio.sleep(0)
    done = reader.done()
    reader.cancel()
    return not done


@pytest.mark.parametrize(("count", "size"), [(MAX_EVENTS, 0), (1, MAX_BYTES), (1, 10 * MAX_BYTES)])
async def test_it_is_full_in_events_or_bytes(count: int, size: int) -> None:
    inbox = Inbox[PullEvent[Any]](max_events=MAX_EVENTS, max_bytes=MAX_BYTES)
    assert not await waits(inbox)
    taken = [event(size=size) for _ in range(count)]
    inbox.take(taken, 1)
    assert await waits(inbox)
    inbox.settle(taken[0])
    assert not await waits(inbox)


async def test_what_failed_counts_as_settled_where_nobody_asks() -> None:
    settled: list[PullEvent[Any]] = []
    inbox = Inbox[PullEvent[Any]](max_events=MAX_EVENTS, max_bytes=MAX_BYTES, settled=settled.extend)
    taken = event()
    inbox.take([taken], 1)
    inbox.fail(taken)
    assert (len(inbox), settled) == (0, [taken])


async def test_everybody_who_waits_is_woken() -> None:
    inbox = Inbox[PullEvent[Any]](max_events=1, max_bytes=MAX_BYTES)
    taken = event()
    inbox.take([taken], 2)
    waiting = [asyncio.create_task(item) for item in (inbox.room(), inbox.room(), inbox.empty())]
    await asyncio.sleep(0)
    inbox.settle(taken)
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    inbox.settle(taken)
    await asyncio.wait_for(asyncio.gather(*waiting), 5)


async def test_clearing_wakes_who_waits_too() -> None:
    inbox = Inbox[PullEvent[Any]](max_events=1, max_bytes=MAX_BYTES)
    taken = event()
    inbox.take([taken], 1)
    waiting = asyncio.gather(inbox.room(), inbox.empty())
    await asyncio.sleep(0)
    inbox.begin()
    await asyncio.wait_for(waiting, 5)
    inbox.settle(taken)
    assert (len(inbox), inbox.size) == (0, 0)


async def test_settling_one_of_two_is_not_empty() -> None:
    inbox = Inbox[PullEvent[Any]](max_events=MAX_EVENTS, max_bytes=MAX_BYTES)
    first, second = event(), event()
    inbox.take([first, second], 1)
    waiting = asyncio.create_task(inbox.empty())
    await asyncio.sleep(0)
    inbox.settle(first)
    await asyncio.sleep(0)
    assert not waiting.done()
    inbox.settle(second)
    await asyncio.wait_for(waiting, 5)
