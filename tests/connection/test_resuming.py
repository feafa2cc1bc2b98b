"""Resuming by mid: whatever ends a connection, nothing that the history holds is lost."""

import asyncio

import pytest

from bitrix_pull import State
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running


def test_what_is_published_while_the_connection_is_down_arrives_once() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            for n in range(10):
                emu.portal.send("x", {"n": n})
            await listener.received(10)
            await emu.push.disconnect_all()
            for n in range(10, 20):
                emu.portal.send("x", {"n": n}, users=None if n % 2 else [1])
            await listener.received(20)
            assert listener.numbers == list(range(20))
            assert [event.replayed for event in listener.events] == [False] * 10 + [True] * 10
            assert listener.health().duplicates > 0

    virtual_time.run(main)


def test_the_first_outage_before_any_message_loses_nothing() -> None:
    async def main() -> None:
        async with emulator() as emu:
            emu.portal.send("x", {"n": -1})
            await asyncio.sleep(60)
            async with running(Listener(emu)) as listener:
                await listener.reached(State.LIVE)
                await emu.push.disconnect_all()
                emu.portal.send("x", {"n": 1})
                await listener.received(1)
                # The old event is replayed too, but is older than this client.
                assert listener.numbers == [1]

    virtual_time.run(main)


@pytest.mark.parametrize("down_s", [0.0, 1.0, 20.0, 3600.0, 20_000.0])
def test_a_killed_server_that_comes_back_is_found_within_35_s(down_s: float) -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            emu.portal.send("x", {"n": 0})
            await listener.received(1)
            await emu.stop()
            await asyncio.sleep(down_s)
            await emu.start(keep_history=True)
            back = asyncio.get_running_loop().time()
            emu.portal.send("x", {"n": 1})
            await listener.received(2)
            assert asyncio.get_running_loop().time() - back <= 35
            assert listener.numbers == [0, 1]

    virtual_time.run(main)


def test_a_server_that_lost_its_history_still_delivers_what_is_new() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            for n in range(3):
                emu.portal.send("x", {"n": n})
            await listener.received(3)
            await emu.restart(keep_history=False)
            emu.portal.send("x", {"n": 3})
            await listener.received(4)
            assert listener.numbers == [0, 1, 2, 3]
            assert listener.events[3].mid > listener.events[2].mid

    virtual_time.run(main)


def test_a_hundred_cuts_in_a_stream_of_events() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            for n in range(1_000):
                emu.portal.send("x", {"n": n}, users=None if n % 3 else [1])
                if n % 10 == 9:
                    await emu.push.disconnect_all(None if n % 20 == 19 else 1012)
                await asyncio.sleep(1.0 if n % 10 else 40.0)
            await listener.received(1_000)
            assert listener.numbers == list(range(1_000))

    virtual_time.run(main)
