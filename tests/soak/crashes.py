"""The process is killed in mid-flow, and another one goes on."""

import asyncio
import contextlib
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bitrix_pull import AccessToken, PullClient, SqliteStore
from bitrix_pull.emulator import Emulator
from tests.forked import Process
from tests.soak.outcome import Outcome

IN_FLIGHT_S = 1.0
"""What a killed process has handled before this is written down, however slow the disk is."""


@dataclass(slots=True, frozen=True)
class _Handled:
    process: int
    n: int
    at: float


def sigkill(*, seed: int = 1, kills: int = 200, stores: str = "file,sqlite", rate: float = 100.0) -> Outcome:
    """SIGKILL in mid-flow, 200 times for each store: lost 0, redelivered only what was in flight."""
    outcome = Outcome()

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            for store in stores.split(","):
                group.create_task(_kill_again_and_again(outcome, store, random.Random(seed), kills, rate))

    asyncio.run(both())
    return outcome


async def _kill_again_and_again(
    outcome: Outcome, kind: str, rng: random.Random, kills: int, rate: float
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = Path(directory) / {"file": "resume.json", "sqlite": "resume.db"}[kind]
        log = Path(directory) / "handled"
        log.touch()
        killed_at: dict[int, float] = {}
        async with Emulator() as emu:
            # A first run, so that there is a point to resume from.
            async with PullClient(AccessToken(emu.portal_url, emu.token), resume=store_at(store)):
                pass
            publishing = asyncio.create_task(_publish(emu, rate))
            for _ in range(kills):
                async with victim(emu, store, log) as process:
                    size = log.stat().st_size
                    await until(partial(has_worked, log, size, process))
                    await asyncio.sleep(rng.uniform(0, 0.3))
                    outcome.promise("each process can read the store and works", not ended(process))
                killed_at[process.pid] = time.time()
            publishing.cancel()
            published = emu.push.counters.messages
            async with victim(emu, store, log) as process:
                await until(
                    lambda: len({one.n for one in _read(log)}) >= published or ended(process),
                    every_s=0.2,
                    within_s=120,
                )
                # What is still to come would be doubled.
                await asyncio.sleep(0.5)
                killed_at[process.pid] = math.inf
        _judge(outcome, kind, _read(log), killed_at, published)
        outcome.note(**{f"{kind}_kills": kills})


@contextlib.asynccontextmanager
async def victim(emu: Emulator, store: Path, log: Path) -> AsyncIterator[Process]:
    """Run a listener in a process of its own, and kill it at the end."""
    process = await Process.start("tests.soak.victim", emu.portal_url, emu.token, str(store), str(log))
    try:
        yield process
    finally:
        if not ended(process):
            process.kill()
        await process.wait()


def has_worked(log: Path, size: int, process: Process) -> bool:
    """Tell whether a process has handled something, or never will."""
    return log.stat().st_size > size or ended(process)


def ended(process: Process) -> bool:
    """Tell whether a process has ended."""
    return process.returncode is not None


async def until(condition: Callable[[], bool], *, every_s: float = 0.01, within_s: float = 30.0) -> None:
    """Wait for something; what comes after it finds out whether it is so."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(every_s)


def _judge(
    outcome: Outcome, kind: str, handled: list[_Handled], killed_at: dict[int, float], published: int
) -> None:
    last: dict[int, _Handled] = {}
    ages: list[float] = []
    within = 0
    for one in handled:
        before = last.get(one.n)
        if before is not None and before.process == one.process:
            within += 1
        elif before is not None:
            ages.append(killed_at[before.process] - before.at)
        last[one.n] = one
    outcome.note(**{f"{kind}_delivered": len(last)})
    outcome.exactly(0, **{f"{kind}_lost": published - len(last), f"{kind}_doubled_in_a_process": within})
    most = max(Counter(one.process for one in handled).values(), default=0)
    outcome.note(**{f"{kind}_redelivered": len(ages), f"{kind}_handled_by_one_process": most})
    outcome.in_time(IN_FLIGHT_S, **{f"{kind}_redelivered_age_s": max(ages, default=0.0)})


async def _publish(emu: Emulator, rate: float) -> None:
    n = 0
    while True:
        emu.portal.send("x", {"n": n}, users=None if n % 2 else [1])
        n += 1
        await asyncio.sleep(1 / rate)


def store_at(path: Path) -> SqliteStore | str:
    """Return the kind of store that the file's name tells."""
    return SqliteStore(path) if path.suffix == ".db" else str(path)


def _read(log: Path) -> list[_Handled]:
    handled: list[_Handled] = []
    for line in log.read_text().splitlines():
        process, n, at = line.split()
        handled.append(_Handled(int(process), int(n), float(at)))
    return handled
