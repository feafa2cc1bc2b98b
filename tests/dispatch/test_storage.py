"""Room that many inboxes share."""

import asyncio
from typing import Any

from bitrix_pull.dispatch.inbox import Inbox
from bitrix_pull.dispatch.storage import Storage
from bitrix_pull.events import PullEvent
from tests.dispatch.rig import event


def inbox(storage: Storage) -> Inbox[PullEvent[Any]]:
    storage.inboxes += 1
    return Inbox(max_events=1_000, max_bytes=1_000, storage=storage)


async def test_whoever_holds_little_goes_on_while_there_is_no_room() -> None:
    storage = Storage(100)
    stormy, calm = inbox(storage), inbox(storage)
    taken = [event(number, size=30) for number in range(4)]
    stormy.take(taken, 1)
    assert stormy.full
    assert not calm.full
    calm.take([event(10, size=49)], 1)
    assert not calm.full
    calm.take([event(11, size=1)], 1)
    assert calm.full


async def test_room_is_there_again_when_something_is_settled() -> None:
    storage = Storage(100)
    stormy = inbox(storage)
    inbox(storage)
    taken = [event(number, size=40) for number in range(3)]
    stormy.take(taken, 1)
    waiting = asyncio.create_task(stormy.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    stormy.settle(taken[0])
    await waiting
    assert storage.used == 80


async def test_what_is_forgotten_takes_no_room() -> None:
    storage = Storage(100)
    stormy = inbox(storage)
    stormy.take([event(1, size=70)], 1)
    stormy.begin()
    assert storage.used == 0
    assert not stormy.full


async def test_what_nobody_will_handle_takes_no_room() -> None:
    storage = Storage(100)
    stormy = inbox(storage)
    taken = [event(1, size=70), event(2, size=20)]
    stormy.take(taken, 1)
    stormy.end()
    assert storage.used == 0
    assert stormy.unsettled == set(taken)
    stormy.settle(taken[1])
    assert stormy.size == 70
    stormy.begin()
    stormy.take([event(3, size=30)], 1)
    assert storage.used == 30
