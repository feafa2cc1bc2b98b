"""Half-open connections are noticed, and a busy program is not taken for one."""

import asyncio
import random

from bitrix_pull import State, StateChanged
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running
from tests.soak.outcome import Outcome, percentile
from tests.soak.stand import stand


def half_open(*, seed: int = 1, times: int = 500, version: int = 4) -> Outcome:
    """Half-open connections, no FIN, no RST, default settings: noticed p99 <= 15 s."""
    outcome, rng = Outcome(), random.Random(seed)
    took: list[float] = []

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        async with stand(emulator(version=version)) as here:
            for n in range(times):
                await here.listener.reached(State.LIVE)
                await asyncio.sleep(31 + rng.uniform(0, 20))
                if rng.random() < 0.5:
                    here.emu.portal.send("x", {"n": n})
                    await asyncio.sleep(rng.choice([0.01, 1.0, 9.9]))
                for line in here.proxy.lines:
                    # The other way alone is no half-open link: something still arrives.
                    line.weather.to_client_lost = True
                    line.weather.to_server_lost = rng.random() < 0.5
                silent_at = clock()
                async for notice in here.listener.notices():
                    if isinstance(notice, StateChanged) and notice.previous is State.LIVE:
                        took.append(clock() - silent_at)
                        break

    virtual_time.run(main)
    outcome.note(times=len(took), p50_s=percentile(took, 50))
    # The virtual clock itself is a hundredth of a second off at times.
    outcome.at_most(15.05, p99_s=percentile(took, 99))
    outcome.note(max_s=max(took))
    return outcome


def busy_loop(*, seed: int = 1, hours: float = 1.0, stall_s: float = 1.0, version: int = 4) -> Outcome:
    """An hour of a loop stalled 1 s now and then: no false alarm."""
    outcome, rng = Outcome(), random.Random(seed)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        stalled_s, clock = 0.0, loop.time
        # A stall: time has passed, and nothing was done in it.
        loop.time = lambda: clock() + stalled_s  # type: ignore[method-assign]
        async with emulator(version=version) as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            end = loop.time() + hours * 3600
            stalls = 0
            while loop.time() < end:
                await asyncio.sleep(rng.uniform(0, 10))
                stalled_s += stall_s
                stalls += 1
                if rng.random() < 0.1:
                    emu.portal.send("x", {"n": stalls})
            outcome.note(stalls=stalls)
            alarms = [
                notice
                for notice in listener.heard
                if isinstance(notice, StateChanged) and notice.previous is State.LIVE
            ]
            outcome.exactly(0, false_alarms=len(alarms))
            outcome.exactly(1, connects=listener.health().connects)

    virtual_time.run(main)
    return outcome
