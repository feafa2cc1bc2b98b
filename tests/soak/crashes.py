"""The process is killed in mid-flow, and another one goes on."""

import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bitrix_pull import AccessToken, PullClient, SqliteStore
from bitrix_pull.emulator import Emulator
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
            command = (
                sys.executable,
                "-m",
                "tests.soak.victim",
                emu.portal_url,
                emu.token,
                str(store),
                str(log),
            )
            # A first run, so that there is a point to resume from.
            async with PullClient(AccessToken(emu.portal_url, emu.token), resume=_store(store)):
                pass
            publishing = asyncio.create_task(_publish(emu, rate))
            for _ in range(kills):
                size = log.stat().st_size
                process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
                deadline = time.monotonic() + 30
                while log.stat().st_size == size and process.returncode is None:
                    outcome.promise("each process gets going", time.monotonic() < deadline)
                    if outcome.broken:
                        break
                    await asyncio.sleep(0.01)
                await asyncio.sleep(rng.uniform(0, 0.3))
                outcome.promise("the store is readable", process.returncode is None)
                if process.returncode is None:
                    process.kill()
                killed_at[process.pid] = time.time()
                assert process.stderr is not None
                said = await process.stderr.read()
                await process.wait()
                if outcome.broken:
                    outcome.note(stderr=said[-300:].decode())
                    break
            publishing.cancel()
            published = emu.push.counters.messages
            process = await asyncio.create_subprocess_exec(*command)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(30):
                    while len({one.n for one in _read(log)}) < published and not outcome.broken:
                        await asyncio.sleep(0.1)
            await asyncio.sleep(0.5)
            outcome.promise("the last process lives", process.returncode is None)
            if process.returncode is None:
                process.kill()
            await process.wait()
        _judge(outcome, kind, _read(log), killed_at, published)
        outcome.note(**{f"{kind}_kills": len(killed_at)})


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
    outcome.at_most(IN_FLIGHT_S, **{f"{kind}_redelivered_age_s": max(ages, default=0.0)})


async def _publish(emu: Emulator, rate: float) -> None:
    n = 0
    while True:
        emu.portal.send("x", {"n": n}, users=None if n % 2 else [1])
        n += 1
        await asyncio.sleep(1 / rate)


def _store(path: Path) -> SqliteStore | str:
    return SqliteStore(path) if path.suffix == ".db" else str(path)


def _read(log: Path) -> list[_Handled]:
    handled: list[_Handled] = []
    for line in log.read_text().splitlines():
        process, n, at = line.split()
        handled.append(_Handled(int(process), int(n), float(at)))
    return handled
