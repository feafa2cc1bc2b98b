"""A push server that hands out mids a second time: told before the first event of them, and made up for."""

import asyncio
from typing import Any

import pytest

from bitrix_pull import Gap, MemoryStore, State
from bitrix_pull.emulator import Emulator
from bitrix_pull.options import Transport
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running


def story_of(listener: Listener) -> list[Any]:
    """Return gaps and the numbers of events, as they come from now on."""
    story: list[Any] = []
    listener.on("x")(lambda event: story.append(event.params["n"]))

    async def write_down() -> None:
        async for notice in listener.notices():
            if isinstance(notice, Gap):
                story.append("gap")

    asyncio.get_running_loop().create_task(write_down())
    return story


async def send(emu: Emulator, *numbers: int, pause_s: float = 0.5) -> None:
    for number in numbers:
        emu.portal.send("x", {"n": number}, users=[1] if number % 2 else None)
        await asyncio.sleep(pause_s)


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("transport", ["websocket", "long_polling"])
def test_what_comes_with_known_mids_is_new_and_a_gap_is_told_before_it(
    version: int, transport: Transport
) -> None:
    if version == 5 and transport == "long_polling":
        pytest.skip("version 5 has no polls")

    async def main() -> None:
        async with (
            emulator(version=version) as emu,
            running(Listener(emu, transport=transport)) as listener,
        ):
            story = story_of(listener)
            await listener.reached(State.LIVE)
            await send(emu, *range(150), pause_s=0.1)
            await listener.received(150)
            emu.push.flush()
            await send(emu, *range(150, 300), pause_s=0.1)
            await listener.received(300)
            await asyncio.sleep(60)
            assert story == [*range(150), "gap", *range(150, 300)]
            assert listener.health().connects == 1

    virtual_time.run(main)


def test_mids_that_are_not_known_are_told_by_their_time() -> None:
    async def main() -> None:
        async with emulator() as emu:
            for _ in range(100):
                emu.portal.send("y")
            async with running(Listener(emu)) as listener:
                story = story_of(listener)
                await listener.reached(State.LIVE)
                await send(emu, 0, 1, 2)
                emu.push.flush()
                await send(emu, *range(3, 33), pause_s=1.0)
                await listener.received(33)
                # Until then they could have been overtaken.
                assert story[:4] == [0, 1, 2, 3]
                assert story.count("gap") == 1
                assert [each for each in story if each != "gap"] == list(range(33))

    virtual_time.run(main)


def test_what_was_missed_is_asked_of_the_history_before_anything_else_comes() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            story = story_of(listener)
            await listener.reached(State.LIVE)
            await send(emu, *range(20))
            await emu.push.disconnect_all()
            emu.push.flush()
            # All of them lie before the resume point.
            await send(emu, 20, 21, 22, pause_s=0.0)
            await asyncio.sleep(60)
            assert story == [*range(20), "gap", 20, 21, 22]
            assert [event.healed for event in listener.events[20:]] == [True] * 3
            assert listener.state is State.LIVE

    virtual_time.run(main)


@pytest.mark.parametrize("cut", [False, True])
def test_an_older_snapshot_brings_back_nothing_that_came_already(cut: bool) -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu, known_mids=20)) as listener:
            story = story_of(listener)
            await listener.reached(State.LIVE)
            # More than is remembered.
            await send(emu, *range(100))
            snapshot = emu.push.snapshot()
            await send(emu, *range(100, 110))
            if cut:
                await emu.push.disconnect_all()
            emu.push.restore(snapshot)
            await send(emu, *range(110, 140))
            await asyncio.sleep(60)
            assert story == [*range(110), "gap", *range(110, 140)]

    virtual_time.run(main)


def test_a_replica_that_lagged_is_found_out_where_a_known_message_is_missing() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            story = story_of(listener)
            await listener.reached(State.LIVE)
            await send(emu, *range(20))
            snapshot = emu.push.snapshot()
            await send(emu, 20)
            await emu.push.disconnect_all()
            await send(emu, -1, pause_s=0.0)
            emu.push.restore(snapshot)
            await send(emu, 21, 22, pause_s=0.0)
            await listener.received(23)
            await asyncio.sleep(60)
            assert story == [*range(21), "gap", 21, 22]

    virtual_time.run(main)


@pytest.mark.parametrize("quiet", [False, True])
def test_it_is_told_after_a_restart_of_the_client_too(quiet: bool) -> None:
    async def main() -> None:
        async with emulator() as emu:
            store = MemoryStore()
            async with running(Listener(emu, resume=store)) as first:
                await first.reached(State.LIVE)
                await send(emu, *range(20))
                await first.received(20)
            emu.push.flush()
            await send(emu, 20, 21)
            async with running(Listener(emu, resume=store)) as second:
                story = story_of(second)
                await second.reached(State.LIVE)
                if not quiet:
                    await send(emu, 22)
                await asyncio.sleep(60)
                assert story[0] == "gap"
                assert sorted(story[1:]) == ([20, 21] if quiet else [20, 21, 22])

    virtual_time.run(main)


def test_a_server_that_hands_out_mids_again_and_again_is_followed() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            story = story_of(listener)
            await listener.reached(State.LIVE)
            for number in range(20):
                await send(emu, 3 * number, 3 * number + 1, 3 * number + 2)
                emu.push.flush()
            await listener.received(60)
            assert [each for each in story if each != "gap"] == list(range(60))
            assert story.count("gap") == 19

    virtual_time.run(main)
