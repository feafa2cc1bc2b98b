"""Handlers that are taken back, also while they run."""

import asyncio
from typing import Any

import pytest

from bitrix_pull.dispatch.router import Router
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import PullEvent
from tests import virtual_time
from tests.dispatch.rig import event, mids, running

POLICIES: list[dict[str, Any]] = [{}, {"retries": 3}, {"concurrency": 2}, {"key": lambda event: 1}]


class Bot:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def heard(self, event: PullEvent) -> None:
        self.seen.append(event.mid)


async def test_a_handler_that_is_off_gets_nothing_more() -> None:
    router, bot, other = Router(), Bot(), Bot()
    router.on("x")(bot.heard)
    router.on("y")(bot.heard)
    router.on("x")(other.heard)
    async with running(router) as rig:
        rig.put(event(1), event(2, "y"))
        await rig.idle()
        router.off(bot.heard)
        rig.put(event(3), event(4, "y"))
        await rig.idle()
        router.on("x")(bot.heard)
        rig.put(event(5))
        await rig.idle()
        assert sorted(rig.settled) == mids(1, 2, 3, 4, 5)
    assert bot.seen == mids(1, 2, 5)
    assert other.seen == mids(1, 3, 5)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("fails", [True, False])
def test_what_it_has_in_hand_it_finishes_and_what_waits_is_settled(
    policy: dict[str, Any], fails: bool
) -> None:
    async def main() -> None:
        router, begun, ended = Router(), list[str](), list[str]()

        async def handle(event: PullEvent) -> None:
            begun.append(event.mid)
            await asyncio.sleep(10)
            ended.append(event.mid)
            if fails:
                raise ValueError

        router.on("x", **policy)(handle)
        async with running(router) as rig:
            rig.put(*(event(number) for number in range(6)))
            await asyncio.sleep(1)
            router.off(handle)
            in_hand = mids(*range(policy.get("concurrency", 1)))
            assert (begun, rig.unsettled) == (in_hand, in_hand)
            await rig.idle(60)
            assert ended == begun == in_hand
            assert len(rig.failures) == len(in_hand) * fails
            assert sorted(rig.settled) == mids(*range(6))

    virtual_time.run(main)


def test_what_waits_for_its_next_attempt_is_settled() -> None:
    async def main() -> None:
        router = Router()

        @router.on("x", retries=5, retry_delay=30, key=lambda event: 1)
        def handle(event: PullEvent) -> None:
            raise ValueError

        async with running(router) as rig:
            rig.put(event(1), event(2))
            await asyncio.sleep(1)
            router.off(handle)
            await rig.idle(1)
            assert (sorted(rig.settled), rig.failures) == (mids(1, 2), [])

    virtual_time.run(main)


async def test_an_ack_still_to_come_counts() -> None:
    router, held = Router(), list[PullEvent]()
    router.on("x", ack="manual")(held.append)
    async with running(router) as rig:
        rig.put(event(1), event(2))
        await asyncio.sleep(0.01)
        router.off(held.append)
        assert rig.unsettled == mids(1, 2)
        held[0].ack()
        held[1].nack()
        await rig.idle()
    assert len(held) == 2


def test_what_is_not_there_cannot_be_taken_back() -> None:
    router, inner = Router(), Router()
    router.include(inner)
    bot = Bot()
    inner.on("x")(bot.heard)
    with pytest.raises(InvalidArgument, match=r"Bot\.heard is no handler of this router"):
        router.off(bot.heard)
    inner.off(bot.heard)
    with pytest.raises(InvalidArgument):
        inner.off(bot.heard)
