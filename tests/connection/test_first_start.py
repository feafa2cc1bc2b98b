"""A client gets nothing that is older than its first start, and all that is newer."""

import asyncio

import pytest

from bitrix_pull import MemoryStore, State
from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.push_faults import PollRefusal
from bitrix_pull.options import Transport
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running


async def hear_of_it(listener: Listener, *numbers: int) -> None:
    """Wait until all that is to come has come."""
    await listener.received(len(numbers))
    await asyncio.sleep(60)
    assert listener.numbers == list(numbers)


@pytest.mark.parametrize("polls", [None, 403, "black_hole"])
@pytest.mark.parametrize("dated", [False, True])
def test_the_first_cut_brings_nothing_old(dated: bool, polls: PollRefusal | None) -> None:
    async def main() -> None:
        async with emulator() as emu:
            emu.push.dates_handshakes = dated
            emu.push.faults.poll_refusal = polls
            for _ in range(500):
                emu.portal.send("x", {"n": -1})
            await asyncio.sleep(60)
            async with running(Listener(emu)) as listener:
                await listener.reached(State.LIVE)
                await emu.push.disconnect_all()
                emu.portal.send("x", {"n": 0})
                emu.portal.send("x", {"n": 1}, users=[1])
                await hear_of_it(listener, 0, 1)

    virtual_time.run(main)


@pytest.mark.parametrize("portal_off_s", [0.0, 7_200.0, -7_200.0])
def test_each_clock_is_compared_with_itself(portal_off_s: float) -> None:
    async def main() -> None:
        async with emulator() as emu:
            emu.portal.clock_offset_s = portal_off_s
            emu.portal.send("x", {"n": -1})
            await asyncio.sleep(60)
            async with running(Listener(emu)) as listener:
                await listener.reached(State.LIVE)
                await emu.push.disconnect_all()
                emu.portal.send("x", {"n": 0})
                await hear_of_it(listener, 0)

    virtual_time.run(main)


@pytest.mark.parametrize("transport", ["websocket", "long_polling"])
@pytest.mark.parametrize("older_s", [0.1, 0.9, 1.7, 2.4, 30.0])
@pytest.mark.parametrize("ran_s", [0.0, 3.0, 60.0])
def test_the_second_run_brings_nothing_older_than_the_first_that_heard_nothing(
    transport: Transport, older_s: float, ran_s: float
) -> None:
    async def main() -> None:
        async with emulator() as emu:
            store = MemoryStore()
            await asyncio.sleep(100.3)
            emu.portal.send("x", {"n": -1})
            await asyncio.sleep(older_s)
            async with running(Listener(emu, resume=store, transport=transport)) as first:
                await first.reached(State.LIVE)
                await asyncio.sleep(ran_s)
            assert first.numbers == []
            await asyncio.sleep(0.1)
            emu.portal.send("x", {"n": 0})
            await asyncio.sleep(0.1)
            async with running(Listener(emu, resume=store, transport=transport)) as second:
                await hear_of_it(second, 0)

    virtual_time.run(main)


def test_a_clock_that_is_set_back_makes_nothing_old() -> None:
    step = [0.0]

    async def main() -> None:
        emu = Emulator(security_key="key", clock=lambda: virtual_time.unix_time() + step[0])
        async with emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            emu.portal.send("x", {"n": 0})
            await listener.received(1)
            step[0] = -3_600.0
            await emu.push.disconnect_all()
            emu.portal.send("x", {"n": 1})
            await hear_of_it(listener, 0, 1)

    virtual_time.run(main)
