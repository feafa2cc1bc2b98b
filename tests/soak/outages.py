"""The first outage, long outages, and how soon the client is live again."""

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from bitrix_pull import State, StateChanged
from bitrix_pull.connection.backoff import LADDER_S, SOUND_AFTER_S, UNANSWERED_S
from bitrix_pull.emulator import Emulator
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running
from tests.soak.outcome import Outcome, percentile
from tests.soak.stand import compare, stand

GONE_S = (1.0, 5.0, 30.0, 60.0, 600.0, 3_600.0, 6 * 3_600.0, 86_300.0)
"""The last is just below the 86,400 s for which the server keeps its messages."""


def first_outage(*, seed: int = 1, times: int = 200) -> Outcome:
    """The first outage, before any message was received: lost 0."""
    outcome, rng = Outcome(), random.Random(seed)

    async def once() -> None:
        async with emulator() as emu:
            # Older than the client: the history holds it, but it is not for this client.
            emu.portal.send("x", {"n": -1})
            await asyncio.sleep(60)
            async with stand(emu) as here:
                await here.listener.reached(State.LIVE)
                await asyncio.sleep(rng.choice([0.0, 0.1, 3.0, 4.5, 60.0]))
                end: Literal["fin", "reset", "silence"] = rng.choice(["fin", "reset", "silence"])
                for line in here.proxy.lines:
                    line.cut(end)
                await asyncio.sleep(rng.choice([0.0, 0.05]))
                emu.portal.send("x", {"n": 0})
                emu.portal.send("x", {"n": 1}, users=[1])
                await here.listener.received(2)
                await asyncio.sleep(10)
                compare(outcome, range(2), here.listener)
                outcome.exactly(0, older=outcome.figures.get("older", 0) + here.listener.numbers.count(-1))

    for _ in range(times):
        virtual_time.run(once)
    return outcome


def server_gone(*, seed: int = 1, times: int = 1, gone_s: Sequence[float] = GONE_S) -> Outcome:
    """The server is gone for 1 s to 24 h: live 35 s after its return at most, and no hammering."""
    outcome = Outcome()
    waits: list[float] = []
    hurries: list[float] = []

    async def gone(gone_s: float, rng: random.Random) -> None:
        clock = asyncio.get_running_loop().time
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            await asyncio.sleep(rng.uniform(SOUND_AFTER_S, 100))
            emu.portal.send("x", {"n": 0})
            await listener.received(1)
            await emu.stop()
            await asyncio.sleep(gone_s + rng.uniform(0, 30))
            await emu.start(keep_history=True)
            back = clock()
            emu.portal.send("x", {"n": 1})
            await listener.wait_live()
            waits.append(clock() - back)
            await listener.received(2)
            compare(outcome, range(2), listener)
            changes = [notice for notice in listener.heard if isinstance(notice, StateChanged)]
            failures = 0
            for change in changes:
                # A stream that was opened begins the ladder anew.
                failures = 0 if change.state is State.LIVE else failures
                if change.state is State.BACKOFF:
                    rung = UNANSWERED_S[min(failures, len(UNANSWERED_S) - 1)]
                    hurries.append(rung - (change.retry_in_s or 0.0))
                    failures += 1

    for one in range(seed, seed + times):
        for seconds in gone_s:
            virtual_time.run(partial(gone, seconds, random.Random(one)))
    outcome.at_most(35, live_after_s=max(waits))
    outcome.at_most(0, faster_than_ladder_s=max(hurries))
    return outcome


def hour_of_502(*, seed: int = 1, times: int = 20) -> Outcome:
    """An hour of 502, to the portal's callers and the push server's: live 75 s after it at most."""
    outcome = Outcome()
    waits: list[float] = []
    hurries: list[float] = []

    async def hour(rng: random.Random) -> None:
        clock = asyncio.get_running_loop().time
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            emu.portal.send("x", {"n": 0})
            await listener.received(1)
            await asyncio.sleep(rng.uniform(1, 100))
            faults = emu.push.faults
            faults.websocket_refusal = faults.poll_refusal = 502
            emu.portal.faults.fail_rest(100_000, 502)
            await emu.push.disconnect_all(1012)
            await asyncio.sleep(3_600 + rng.uniform(0, 60))
            faults.websocket_refusal = faults.poll_refusal = None
            emu.portal.faults.heal_rest()
            over = clock()
            emu.portal.send("x", {"n": 1})
            await listener.wait_live()
            waits.append(clock() - over)
            await listener.received(2)
            compare(outcome, range(2), listener)
            delays = [
                notice.retry_in_s or 0.0
                for notice in listener.heard
                if isinstance(notice, StateChanged) and notice.state is State.BACKOFF
            ]
            # After the cut, and then after each refusal.
            rungs = [*LADDER_S, *[LADDER_S[-1]] * len(delays)]
            hurries.extend(rung - delay for rung, delay in zip(rungs, delays, strict=False))

    for one in range(seed, seed + times):
        virtual_time.run(lambda one=one: hour(random.Random(one)))  # type: ignore[misc]
    outcome.at_most(75, live_after_s=max(waits))
    outcome.at_most(0, faster_than_ladder_s=max(hurries))
    return outcome


def live_again(
    *, seed: int = 1, cuts: int = 200, live_s: float = 31.0, quiet: bool = False, virtual: bool = False
) -> Outcome:
    """Cuts while the server is up, in real time: live again p50 <= 300 ms, p99 <= 1.5 s.

    Before each cut a client was live for 31 s, so that the cut finds it at the foot of its
    ladder, as in real life; 25 clients at once save the waiting.
    In virtual time it is the client's own waiting alone that counts.
    """
    outcome = Outcome()
    if virtual:
        took = virtual_time.run(lambda: _cut_many(random.Random(seed), cuts, live_s, emulator, quiet=quiet))
        promise = outcome.at_most
    else:
        took = asyncio.run(_cut_many(random.Random(seed), cuts, live_s, Emulator, quiet=quiet))
        promise = outcome.in_time
    outcome.note(cuts=len(took))
    promise(0.3, p50_s=percentile(took, 50))
    promise(1.5, p99_s=percentile(took, 99))
    outcome.note(max_s=max(took))
    return outcome


async def _cut_many(
    rng: random.Random, cuts: int, live_s: float, emulated: Callable[[], Emulator], *, quiet: bool
) -> list[float]:
    took: list[float] = []
    clock = asyncio.get_running_loop().time

    async def client(cuts: int) -> None:
        # Not all in the same millisecond.
        await asyncio.sleep(rng.uniform(0, min(live_s, 5)))
        async with stand(emulated()) as here:
            await here.listener.reached(State.LIVE)
            for n in range(cuts):
                if not quiet:
                    here.emu.portal.send("x", {"n": n})
                await asyncio.sleep(live_s)
                cut_at = clock()
                for line in here.proxy.lines:
                    line.cut("fin" if n % 2 else "reset")
                async for notice in here.listener.notices():
                    if isinstance(notice, StateChanged) and notice.state is State.LIVE:
                        took.append(clock() - cut_at)
                        break

    async with asyncio.TaskGroup() as clients:
        for share in _shares(cuts, 25):
            clients.create_task(client(share))
    return took


def _shares(total: int, parts: int) -> list[int]:
    """Divide a number as evenly as whole numbers allow."""
    return [total // parts + (part < total % parts) for part in range(min(total, parts))]
