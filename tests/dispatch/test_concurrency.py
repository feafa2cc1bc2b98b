"""Several events at once, and order where it matters."""

import asyncio
import gc
import weakref
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from bitrix_pull.dispatch.router import Router
from bitrix_pull.events import PullEvent
from tests import virtual_time
from tests.dispatch.rig import event, mids, running
from tests.laws import examples


class Order(BaseModel):
    id: int


@pytest.mark.parametrize("concurrency", [2, 5])
async def test_so_many_events_are_in_hand_at_once(concurrency: int) -> None:
    router = Router()
    gate = asyncio.Semaphore(0)
    in_hand = most = 0

    @router.on("x", concurrency=concurrency)
    async def handle(item: PullEvent) -> None:
        nonlocal in_hand, most
        in_hand += 1
        most = max(most, in_hand)
        await gate.acquire()
        in_hand -= 1

    async with running(router) as rig:
        for number in range(20):  # One by one too must get them all to work.
            rig.put(event(number))
            await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        assert in_hand == concurrency
        for _ in range(20):
            gate.release()
        await rig.idle()
    assert most == concurrency
    assert sorted(rig.settled) == mids(*range(20))


async def test_events_that_come_at_once_are_handled_at_once() -> None:
    router = Router()
    together = asyncio.Barrier(4)

    @router.on("x", concurrency=4)
    async def handle(item: PullEvent) -> None:
        if item.params["n"]:
            await together.wait()

    async with running(router) as rig:
        rig.put(event(0))
        await rig.idle()
        rig.put(*(event(number) for number in range(1, 9)))
        await rig.idle()


async def test_an_idle_handler_has_one_task_and_a_busy_one_as_many_as_it_needs() -> None:
    router = Router()
    gate = asyncio.Event()

    @router.on("x", concurrency=100)
    async def handle(item: PullEvent) -> None:
        await gate.wait()

    def tasks() -> int:
        return sum("handle" in task.get_name() for task in asyncio.all_tasks())

    async with running(router) as rig:
        assert tasks() == 1
        rig.put(*(event(number) for number in range(3)))
        await asyncio.sleep(0.001)
        assert tasks() == 3
        rig.put(*(event(number) for number in range(3, 200)))
        await asyncio.sleep(0.001)
        assert tasks() == 100
        gate.set()
        await rig.idle()
        await asyncio.sleep(0.001)
        assert tasks() == 1
    assert sorted(rig.settled) == mids(*range(200))


async def test_what_a_handler_cancels_among_others_fails_alone() -> None:
    router = Router()

    @router.on("x", concurrency=3)
    async def handle(item: PullEvent) -> None:
        await asyncio.sleep(0)
        if item.params["n"] % 2:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(1)

    async with running(router) as rig:
        rig.put(*(event(number) for number in range(20)))
        await rig.idle()
    assert sorted(rig.settled) == mids(*range(20))
    assert sorted(failed.event.reference for failed in rig.failures) == mids(*range(1, 20, 2))


async def test_lanes_let_others_run() -> None:
    router = Router()
    counts = {"busy": 0, "other": 0}
    lead = 0

    @router.on("x", retries=1)
    def busy(item: PullEvent) -> None:
        nonlocal lead
        counts["busy"] += 1
        lead = max(lead, counts["busy"] - counts["other"])

    @router.on("x")
    def other(item: PullEvent) -> None:
        counts["other"] += 1

    async with running(router) as rig:
        rig.put(*(event(number) for number in range(1000)))
        await rig.idle()
    assert counts == {"busy": 1000, "other": 1000}
    assert lead <= 200


@settings(max_examples=examples(20))
@given(data=st.data(), concurrency=st.integers(1, 4), retries=st.integers(0, 2))
def test_order_is_kept_per_key_whatever_fails(data: st.DataObject, concurrency: int, retries: int) -> None:
    keys = data.draw(st.lists(st.integers(0, 2), max_size=12))
    fates = data.draw(
        st.lists(st.lists(st.sampled_from(["return", "raise", "hang"]), max_size=3), max_size=12)
    )

    async def main() -> None:
        router = Router()
        ended: dict[int, list[int]] = defaultdict(list)
        attempts: dict[int, int] = defaultdict(int)
        in_hand: set[int] = set()

        @router.on(
            "x",
            concurrency=concurrency,
            retries=retries,
            timeout=5,
            key=lambda item: item.params["key"],
            on_dead_letter=lambda item, error: ended[item.params["key"]].append(item.params["n"]),
        )
        async def handle(item: PullEvent) -> None:
            number, key = item.params["n"], item.params["key"]
            assert key not in in_hand
            in_hand.add(key)
            try:
                await asyncio.sleep(0.1 * (number % 3))
                fate = fates[number][attempts[number] :][:1] if number < len(fates) else []
                attempts[number] += 1
                if fate == ["raise"]:
                    raise ValueError("drawn")
                if fate == ["hang"]:
                    await asyncio.Event().wait()
                ended[key].append(number)
            finally:
                in_hand.remove(key)

        async with running(router) as rig:
            rig.put(*(event(number, params={"n": number, "key": key}) for number, key in enumerate(keys)))
            await rig.idle(timeout=1000)
            assert sorted(rig.settled) == mids(*range(len(keys)))
        for numbers in ended.values():
            assert numbers == sorted(numbers)
        assert sum(map(len, ended.values())) == len(keys)

    virtual_time.run(main)


def test_a_key_waits_for_its_retry_and_other_keys_do_not() -> None:
    async def main() -> list[str]:
        router = Router()
        seen: list[str] = []

        @router.on("x", retries=1, key=lambda item: item.params["key"])
        async def handle(item: PullEvent) -> None:
            name = item.params["key"] + str(item.mid[-1])
            seen.append(name)
            if seen.count(name) == 1 and name == "a1":
                raise ValueError("at first")

        async with running(router) as rig:
            rig.put(*(event(number, params={"key": key}) for number, key in enumerate("abaab", 0)))
            rig.put(event(7, params={"key": "a"}))
            await rig.idle()
            seen.append("|")
            rig.put(
                event(1, params={"key": "a"}), event(2, params={"key": "b"}), event(3, params={"key": "a"})
            )
            await rig.idle()
        return seen

    assert virtual_time.run(main) == ["a0", "b1", "a2", "a3", "b4", "a7", "|", "a1", "b2", "a1", "a3"]


async def test_a_manual_event_holds_its_key_until_it_is_acked() -> None:
    router = Router()
    items: list[PullEvent] = []
    router.on("x", ack="manual", key=lambda item: item.params["n"] % 2)(items.append)
    async with running(router) as rig:
        rig.put(event(1), event(2), event(3), event(4))
        await asyncio.sleep(0.001)
        assert [item.params["n"] for item in items] == [1, 2]
        items[1].ack()
        await asyncio.sleep(0.001)
        assert [item.params["n"] for item in items] == [1, 2, 4]
        items[0].nack()
        await asyncio.sleep(0.001)
        assert [item.params["n"] for item in items] == [1, 2, 4, 1]


async def test_the_key_sees_the_typed_params() -> None:
    router = Router()
    keys: list[int] = []

    def key(item: PullEvent[Order]) -> int:
        keys.append(item.params.id)
        return item.params.id

    @router.on("x", model=Order, key=key)
    async def handle(item: PullEvent[Order]) -> None:
        assert isinstance(item.params, Order)

    async with running(router) as rig:
        rig.put(event(1, params={"id": "7"}), event(2, params={"id": "x"}), event(3, params={"id": 8}))
        await rig.idle()
        assert [failure.event.reference for failure in rig.failures] == mids(2)
    assert keys == [7, 8]


class Strange(BaseException):
    pass


def raising(error: BaseException) -> Any:
    def key(item: PullEvent) -> int:
        raise error

    return key


@pytest.mark.parametrize(
    "key",
    [lambda item: [1], raising(ValueError("no key")), raising(Strange()), raising(asyncio.CancelledError())],
)
async def test_a_key_that_fails_is_a_failure_for_good(key: Any) -> None:
    router = Router()
    dead: list[str] = []

    async def handle(item: PullEvent) -> None:
        raise AssertionError("it cannot be called")

    router.on("x", key=key, retries=3, on_dead_letter=lambda item, error: dead.append(item.mid))(handle)
    async with running(router) as rig:
        rig.put(event(1), event(2))
        await rig.idle()
        assert rig.settled == mids(1, 2) == dead
        assert [failure.attempts for failure in rig.failures] == [1, 1]


class Key:
    """Equal by number; what remembers a key keeps it alive."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and other.number == self.number

    def __hash__(self) -> int:
        return hash(self.number)


async def test_keys_are_forgotten_with_their_last_event() -> None:
    router = Router()
    keys: weakref.WeakValueDictionary[int, Key] = weakref.WeakValueDictionary()

    def key(item: PullEvent) -> Key:
        keys[len(keys)] = made = Key(item.params["n"])
        return made

    router.on("x", key=key, concurrency=3)(lambda item: asyncio.sleep(0))
    async with running(router) as rig:
        for number in range(200):
            rig.put(event(number), event(number))
        await asyncio.sleep(0)
        assert len(keys) > 0
        await rig.idle()
        await asyncio.sleep(0.001)
        gc.collect()
        assert len(rig.settled) == 400
        assert len(keys) <= 3, "what was done last"
