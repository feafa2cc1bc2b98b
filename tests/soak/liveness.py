"""Half-open connections are noticed, and a busy program is not taken for one, nor for a live one."""

import asyncio
import random
from collections.abc import Sequence
from itertools import product

from bitrix_pull import InboxFull, PullEvent, State, StateChanged
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running
from tests.fault_proxy import End
from tests.soak.outcome import Outcome, percentile
from tests.soak.stand import Stand, compare, stand


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


def paused(
    *,
    events: int = 1_200,
    versions: Sequence[int] = (3, 4, 5),
    ends: Sequence[End] = ("fin", "reset", "silence"),
) -> Outcome:
    """Handlers stand still, or nearly, and then the link dies: not LIVE <= 15 s, named, nothing lost."""
    outcome = Outcome()
    for version, end, polling, crawls in product(versions, ends, (False, True), (False, True)):
        if version >= 5 and polling:
            continue  # There is no such thing.

        async def main(
            version: int = version, end: End = end, polling: bool = polling, crawls: bool = crawls
        ) -> None:
            transport = "long_polling" if polling else "auto"
            async with stand(emulator(version=version), inbox_max_events=50, transport=transport) as here:
                await _pause(outcome, here, events, end, 1.0 if crawls else 3_600.0)

        virtual_time.run(main)
    return outcome


async def _pause(outcome: Outcome, here: Stand, events: int, end: End, each_s: float) -> None:
    listener, clock = here.listener, asyncio.get_running_loop().time
    works = asyncio.Event()

    @listener.on()
    async def slow(event: PullEvent) -> None:
        # For so long, or until it is in order again.
        try:
            async with asyncio.timeout(each_s):
                await works.wait()
        except TimeoutError:
            pass

    await listener.reached(State.LIVE)
    for n in range(events):
        here.emu.portal.send("x", {"n": n, "text": "x" * 1_000})
    await asyncio.sleep(3)
    for line in here.proxy.lines:
        line.cut(end)
    cut_at = clock()
    while listener.health().live:
        await asyncio.sleep(0.1)
    outcome.at_most(
        15.05, not_live_after_s=max(outcome.figures.get("not_live_after_s", 0.0), clock() - cut_at)
    )
    await asyncio.sleep(20)
    named = [notice.handler for notice in listener.heard if isinstance(notice, InboxFull)]
    outcome.promise("one notice, which names the handler", len(named) == 1 and "slow" in named[0])
    outcome.promise("not ready", not listener.health().ready)
    works.set()
    await listener.received(events)
    await listener.reached(State.LIVE)
    await asyncio.sleep(60)
    outcome.promise("live again", listener.state is State.LIVE)
    compare(outcome, range(events), listener)
