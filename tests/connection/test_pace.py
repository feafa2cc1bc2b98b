"""Turns come at a rate: never faster, and not slower because the event loop was busy for a moment."""

import asyncio
import time
from itertools import count

import pytest

from bitrix_pull.connection import pace as pace_module
from bitrix_pull.connection.pace import Pace, caught_up
from tests import virtual_time


async def taken(pace: Pace, works_s: list[float]) -> list[float]:
    """Take turns one after the other with some work after each; return when they came."""
    loop = asyncio.get_running_loop()
    turns: list[float] = []
    for work_s in works_s:
        await pace.turn()
        turns.append(loop.time())
        await asyncio.sleep(work_s)
    return turns


@pytest.mark.parametrize("works_s", [[0.0] * 101, [0.03, 0.0] * 50 + [0.0]])
def test_what_holds_up_one_turn_does_not_put_off_the_others(works_s: list[float]) -> None:
    async def main() -> None:
        turns = await taken(Pace(50), works_s)
        assert turns[-1] - turns[0] == pytest.approx(2.0)

    virtual_time.run(main)


def test_time_in_which_nobody_came_is_not_made_up_for() -> None:
    async def main() -> None:
        pace = Pace(50)
        await taken(pace, [10.0])
        turns = await taken(pace, [0.0] * 51)
        assert turns[-1] - turns[0] == pytest.approx(1.0)

    virtual_time.run(main)


async def _toil(rounds: int | None) -> None:
    """Hold up the event loop in each of its rounds; None: for good."""
    for _ in count() if rounds is None else range(rounds):
        time.sleep(0.02)  # noqa: ASYNC251 - that is what it is about
        await asyncio.sleep(0)


async def test_nothing_more_is_begun_on_a_loop_that_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace_module, "_BEHIND_S", 0.01)
    toiling = asyncio.create_task(_toil(10))
    await asyncio.sleep(0)
    await caught_up(60)
    assert toiling.done()


async def test_but_it_is_not_waited_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace_module, "_BEHIND_S", 0.01)
    toiling = asyncio.create_task(_toil(None))
    async with asyncio.timeout(60):
        await caught_up(0.1)
    toiling.cancel()
