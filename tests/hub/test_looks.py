"""How often a source of portals looks for changes."""

import asyncio

import pytest

from bitrix_pull.hub.looks import LOOK_EVERY_S, Looks


@pytest.mark.virtual_time
async def test_a_burst_of_changes_takes_few_looks_and_a_single_one_is_seen_at_once() -> None:
    looks, seen = Looks(), list[float]()
    now = asyncio.get_running_loop().time

    async def look() -> None:
        while True:
            await looks.wait()
            seen.append(now())

    looking = asyncio.create_task(look())
    for _ in range(1000):
        looks.hurry()
        await asyncio.sleep(0.001)
    assert 5 < len(seen) <= 21
    seen.clear()
    await asyncio.sleep(10.5 * LOOK_EVERY_S)
    assert 9 <= len(seen) <= 11
    changed_at = now()
    looks.hurry()
    await asyncio.sleep(LOOK_EVERY_S / 2)
    assert seen[-1] - changed_at < 0.06
    looking.cancel()
