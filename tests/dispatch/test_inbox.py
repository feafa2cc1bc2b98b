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

MAX_EVENTS = 4
MAX_BYTES = 50


class Accounts(RuleBasedStateMachine):
    """Takes and settles at random, beside a plain count."""

    receipts = Bundle("receipts")
    """One for each receiver that has not finished with its event."""

    def __init__(self) -> None:
        super().__init__()
        self.inbox = Inbox(max_events=MAX_EVENTS, max_bytes=MAX_BYTES)
        self.open: dict[PullEvent[Any], int] = {}

    @rule(target=receipts, receivers=st.integers(1, 3), size=st.integers(0, 30))
    def take(self, receivers: int, size: int) -> Any:
        taken = event(size=size)
        self.inbox.take(taken, receivers)
        self.open[taken] = receivers
        return multiple(*[taken] * receivers)

    @rule(taken=consumes(receipts))
    def settle(self, taken: PullEvent[Any]) -> None:
        self.inbox.settle(taken)
        if taken in self.open:
            self.open[taken] -= 1
            if not self.open[taken]:
                del self.open[taken]

    @rule()
    def clear(self) -> None:
        self.inbox.clear()
        self.open.clear()

    @invariant()
    def accounts_agree(self) -> None:
        size = sum(taken.size for taken in self.open)
        assert len(self.inbox) == len(self.open)
        assert self.inbox.size == size
        assert self.inbox.full is (len(self.open) >= MAX_EVENTS or size >= MAX_BYTES)


TestAccounts = Accounts.TestCase
TestAccounts.settings = settings(max_examples=60, stateful_step_count=25)


async def waits(inbox: Inbox) -> bool:
    """Tell whether somebody who asks for room now has to wait."""
    reader = asyncio.create_task(inbox.room())
    await asyncio.sleep(0)
    done = reader.done()
    reader.cancel()
    return not done


@pytest.mark.parametrize(("count", "size"), [(MAX_EVENTS, 0), (1, MAX_BYTES), (1, 10 * MAX_BYTES)])
async def test_it_is_full_in_events_or_bytes(count: int, size: int) -> None:
    inbox = Inbox(max_events=MAX_EVENTS, max_bytes=MAX_BYTES)
    assert not await waits(inbox)
    taken = [event(size=size) for _ in range(count)]
    for item in taken:
        inbox.take(item, 1)
    assert await waits(inbox)
    inbox.settle(taken[0])
    assert not await waits(inbox)


async def test_everybody_who_waits_is_woken() -> None:
    inbox = Inbox(max_events=1, max_bytes=MAX_BYTES)
    taken = event()
    inbox.take(taken, 2)
    waiting = [asyncio.create_task(item) for item in (inbox.room(), inbox.room(), inbox.empty())]
    await asyncio.sleep(0)
    inbox.settle(taken)
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    inbox.settle(taken)
    await asyncio.wait_for(asyncio.gather(*waiting), 5)


async def test_clearing_wakes_who_waits_too() -> None:
    inbox = Inbox(max_events=1, max_bytes=MAX_BYTES)
    taken = event()
    inbox.take(taken, 1)
    waiting = asyncio.gather(inbox.room(), inbox.empty())
    await asyncio.sleep(0)
    inbox.clear()
    await asyncio.wait_for(waiting, 5)
    inbox.settle(taken)
    assert (len(inbox), inbox.size) == (0, 0)


async def test_settling_one_of_two_is_not_empty() -> None:
    inbox = Inbox(max_events=MAX_EVENTS, max_bytes=MAX_BYTES)
    first, second = event(), event()
    inbox.take(first, 1)
    inbox.take(second, 1)
    waiting = asyncio.create_task(inbox.empty())
    await asyncio.sleep(0)
    inbox.settle(first)
    await asyncio.sleep(0)
    assert not waiting.done()
    inbox.settle(second)
    await asyncio.wait_for(waiting, 5)
