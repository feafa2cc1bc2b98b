"""Workers in processes of their own share portals out, and are killed, stopped, cut off and replaced."""

import asyncio
import contextlib
import itertools
import json
import math
import os
import random
import shutil
import signal
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis.asyncio

from bitrix_pull.events import BACKEND_SENDER, PullEvent
from bitrix_pull.hub.cluster import Lease
from bitrix_pull.hub.valkey import ValkeyStream
from tests.fault_proxy import FaultProxy, Weather
from tests.forked import Process
from tests.hub.engine import Server
from tests.soak.cluster_worker import mid, number_of
from tests.soak.outcome import Outcome

NAME = "soak"
ANOTHER_OWNER_S = 10.0
PLANNED_S = 2.0
AT_ONCE = {"repl_diskless_sync_delay": "0"}
"""Replicas need not wait for others."""


@dataclass(slots=True)
class Worker:
    """One worker's process."""

    name: str
    process: Process
    told: list[tuple[str, str, int, float]] = field(default_factory=list)
    reading: "asyncio.Task[None] | None" = None

    present: set[str] = field(default_factory=set)

    @property
    def held(self) -> int:
        """How many portals it has, by its own word."""
        return len(self.present)


class Stage:
    """An engine, workers, and portals that send."""

    def __init__(
        self, folder: Path, *, portals: int, rate: float, lease_s: float, size: int = 0, idle: bool = False
    ) -> None:
        self.server = Server(folder, appendonly="yes", appendfsync="everysec", **AT_ONCE)
        self.workers: dict[str, Worker] = {}
        self.gone: list[Worker] = []
        self._order: dict[str, Any] = {
            "name": NAME,
            "portals": portals,
            "rate": rate,
            "lease_s": lease_s,
            "settle_s": lease_s / 2,
            "size": size,
            "idle": idle,
            "began": time.time(),
            "ends": math.inf,
        }
        self.portals = portals
        self.lease_s = lease_s
        self.ready_at = math.inf
        """When all portals had an owner for the first time."""

    @property
    def sent(self) -> int:
        """How many messages of each portal there are in the end."""
        return int((self._order["ends"] - self._order["began"]) * self._order["rate"])

    async def start(self, name: str, *, url: str | None = None, **changes: Any) -> Worker:
        """Start a worker."""
        order = {**self._order, "worker": name, "url": url or self.server.url, **changes}
        process = await Process.start("tests.soak.cluster_worker", json.dumps(order), pipes=("stdout",))
        worker = self.workers[name] = Worker(name, process)
        worker.reading = asyncio.create_task(self._read(worker))
        return worker

    async def _read(self, worker: Worker) -> None:
        assert worker.process.stdout is not None
        async for line in worker.process.stdout:
            what, key, epoch, at = json.loads(line)
            worker.told.append((what, key, epoch, at))
            (worker.present.add if what == "acquired" else worker.present.discard)(key)

    async def end(self, worker: Worker, how: signal.Signals) -> None:
        """End a worker, and wait for it."""
        del self.workers[worker.name]
        self.gone.append(worker)
        worker.process.send_signal(how)
        await asyncio.wait_for(worker.process.wait(), 60)
        if worker.reading is not None:
            await worker.reading

    async def shared_out(self, within_s: float = 60.0) -> bool:
        """Wait until every portal has an owner."""
        deadline = time.monotonic() + within_s
        while sum(worker.held for worker in self.workers.values()) != self.portals:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True

    async def finish(self, within_s: float) -> bool:
        """Let nothing more be sent; wait until the workers have written down all of it."""
        # Their feed has no end, so what is sent by now is what is looked for.
        self._order["ends"] = time.time()
        deadline = time.monotonic() + within_s
        async with redis.asyncio.Redis.from_url(self.server.url) as client:
            while time.monotonic() < deadline:
                points = [
                    await client.hget(f"{{{NAME}:0}}:at:portal-{n}", "mid") for n in range(self.portals)
                ]
                if all(point is not None and number_of(_text(point)) >= self.sent for point in points):
                    return True
                await asyncio.sleep(0.3)
        return False

    async def written(self) -> list[tuple[float, dict[str, Any]]]:
        """Return the log: when each was appended, and what."""
        entries = list[tuple[float, dict[str, Any]]]()
        last = "-"
        async with redis.asyncio.Redis.from_url(self.server.url) as client:
            while rows := _rows(await client.xrange(f"{{{NAME}:0}}:events", min=last, count=5_000)):
                for key, content in rows:
                    entries.append((int(key.split(b"-")[0]) / 1000, json.loads(content[b"event"])))
                last = f"({rows[-1][0].decode()}"
        return entries


def _rows(told: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    return list(told or ())


def _text(told: Any) -> str:
    return told.decode() if isinstance(told, bytes) else str(told)


@contextlib.asynccontextmanager
async def staged(*, workers: int, **options: Any) -> AsyncIterator[Stage]:
    """Run an engine and workers, if any, and wait until each portal has an owner."""
    folder = Path(tempfile.mkdtemp(prefix="bitrix_pull_hub_"))
    stage = Stage(folder, **options)
    try:
        stage.server.start()
        for number in range(workers):
            await stage.start(f"worker-{number}")
        if workers:
            await stage.shared_out()
            await asyncio.sleep(stage.lease_s)
            stage.ready_at = time.time()
        yield stage
    finally:
        for worker in list(stage.workers.values()):
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGCONT)
            await stage.end(worker, signal.SIGKILL)
        stage.server.kill()
        shutil.rmtree(folder, ignore_errors=True)


async def judge(outcome: Outcome, stage: Stage, late_s: float | None, *, within_s: float = 60.0) -> None:
    """Compare the log with what was sent.

    Args:
        outcome: Where to note it.
        stage: Whose log.
        late_s: Within what time of being sent 99 % must be in the log; None: that is not promised.
        within_s: How long to wait for the last ones.
    """
    await stage.finish(within_s)
    entries = await stage.written()
    by_portal = defaultdict[str, list[tuple[int, int]]](list)
    late = list[float]()
    for at, entry in entries:
        number = entry["params"]["n"]
        if number <= stage.sent:
            by_portal[entry["portal"]].append((number, entry["epoch"]))
            if entry["params"]["due"] > stage.ready_at:
                late.append(at - entry["params"]["due"])
    lost = doubled = out_of_order = stale = 0
    for number in range(stage.portals):
        rows = by_portal[f"portal-{number}"]
        numbers = [n for n, _ in rows]
        lost += stage.sent - len(set(numbers))
        doubled += len(numbers) - len(set(numbers))
        out_of_order += sum(one > other for one, other in itertools.pairwise(numbers))
        stale += sum(one > other for (_, one), (_, other) in itertools.pairwise(rows))
    outcome.note(events=len(entries))
    outcome.exactly(0, lost=lost, doubled=doubled, out_of_order=out_of_order, by_stale_owners=stale)
    late.sort()
    p99 = late[int(len(late) * 0.99)] if late else math.inf
    outcome.note(late_max_s=round(late[-1], 2) if late else math.inf)
    if late_s is None:
        outcome.note(late_p99_s=round(p99, 2))
    else:
        outcome.at_most(late_s, late_p99_s=round(p99, 2))


def _run(doing: Callable[[Outcome], Awaitable[None]]) -> Outcome:
    outcome = Outcome()

    async def run() -> None:
        await doing(outcome)

    asyncio.run(run())
    return outcome


def hub_kill(
    *, times: int = 50, portals: int = 1_000, rate: float = 2.0, lease_s: float = 6.0, seed: int = 1
) -> Outcome:
    """SIGKILL of one of 4 workers: in the log lost 0, doubled 0, in order; another owner <= 10 s (p99)."""

    async def kill(outcome: Outcome) -> None:
        rng = random.Random(seed)
        took = list[float]()
        async with staged(workers=4, portals=portals, rate=rate, lease_s=lease_s) as stage:
            for _ in range(times):
                victim = rng.choice(list(stage.workers.values()))
                killed_at = time.time()
                await stage.end(victim, signal.SIGKILL)
                outcome.promise("every portal finds another owner", await stage.shared_out())
                others = [each for worker in stage.workers.values() for each in worker.told]
                took += [at - killed_at for what, _, _, at in others if what == "acquired" and at > killed_at]
                await stage.start(victim.name)
                outcome.promise("every portal finds another owner", await stage.shared_out())
                await asyncio.sleep(rng.uniform(0.5, 1.0) * lease_s)
            await judge(outcome, stage, None)
        took.sort()
        outcome.note(moved=len(took))
        outcome.at_most(
            ANOTHER_OWNER_S,
            another_owner_p99_s=round(took[int(len(took) * 0.99)], 2) if took else math.inf,
        )

    return _run(kill)


def hub_pause(
    *,
    times: int = 30,
    pause_s: float = 20.0,
    portals: int = 200,
    rate: float = 5.0,
    lease_s: float = 6.0,
    seed: int = 1,
) -> Outcome:
    """SIGSTOP for 20 s, then SIGCONT: the stale owner appends nothing."""

    async def pause(outcome: Outcome) -> None:
        rng = random.Random(seed)
        async with staged(workers=4, portals=portals, rate=rate, lease_s=lease_s) as stage:
            for _ in range(times):
                victim = rng.choice(list(stage.workers.values()))
                victim.process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(pause_s)
                victim.process.send_signal(signal.SIGCONT)
                await asyncio.sleep(lease_s)
                outcome.promise("every portal finds an owner again", await stage.shared_out())
            await judge(outcome, stage, None)

    return _run(pause)


def hub_cut(
    *,
    times: int = 30,
    cut_s: float = 30.0,
    portals: int = 200,
    rate: float = 5.0,
    lease_s: float = 6.0,
    seed: int = 1,
) -> Outcome:
    """A worker cut off from Valkey for 1 to 30 s: lost 0, doubled 0; deaf <= 10 s after it heals."""

    async def cut(outcome: Outcome) -> None:
        rng = random.Random(seed)
        deaf = list[float]()
        async with (
            staged(workers=3, portals=portals, rate=rate, lease_s=lease_s) as stage,
            FaultProxy("127.0.0.1", stage.server.port) as proxy,
        ):
            shaky = await stage.start("shaky", url=f"redis://{proxy.address}")
            await stage.shared_out()
            for _ in range(times):
                await asyncio.sleep(lease_s)
                proxy.forecast = Weather.black_hole
                for line in list(proxy.lines):
                    line.cut("silence")
                await asyncio.sleep(rng.uniform(cut_s / 30, cut_s))
                proxy.forecast = Weather
                for line in list(proxy.lines):
                    line.cut("reset")
                healed_at = time.time()
                outcome.promise("every portal finds an owner again", await stage.shared_out())
                gained = [at for what, _, _, at in shaky.told if what == "acquired" and at > healed_at]
                deaf.append(min(gained, default=healed_at) - healed_at)
            await judge(outcome, stage, None)
        outcome.at_most(ANOTHER_OWNER_S, deaf_after_s=round(max(deaf), 2))

    return _run(cut)


def hub_valkey_restart(
    *, times: int = 20, portals: int = 200, rate: float = 5.0, lease_s: float = 6.0, seed: int = 1
) -> Outcome:
    """Valkey killed, and back without its last second: log and resume points go back together, lost 0."""

    async def restart(outcome: Outcome) -> None:
        rng = random.Random(seed)
        async with staged(workers=3, portals=portals, rate=rate, lease_s=lease_s) as stage:
            folder, aside = stage.server.folder, stage.server.folder.with_suffix(".aside")
            for turn in range(times):
                await asyncio.sleep(rng.uniform(0.5, 1.0) * lease_s)
                if turn % 2 == 0:
                    # What a replica has that is a second behind.
                    shutil.copytree(folder, aside)
                    await asyncio.sleep(1.0)
                stage.server.kill()
                if aside.exists():
                    shutil.rmtree(folder)
                    aside.rename(folder)
                stage.server.start()
                await asyncio.sleep(lease_s * 0.5)
                outcome.promise("every portal has an owner again", await stage.shared_out())
            await judge(outcome, stage, None)

    return _run(restart)


def hub_clocks(
    *,
    seconds: float = 120.0,
    portals: int = 200,
    rate: float = 5.0,
    lease_s: float = 6.0,
    late_s: float = PLANNED_S,
) -> Outcome:
    """Wall clocks of workers a day apart, jumping each second: nothing changes."""

    async def clocks(outcome: Outcome) -> None:
        async with staged(workers=1, portals=portals, rate=rate, lease_s=lease_s) as stage:
            for number in range(3):
                await stage.start(f"off-{number}", clock=86_400.0)
            await asyncio.sleep(3 * lease_s)
            stage.ready_at = time.time()
            outcome.promise("every portal has an owner", await stage.shared_out())
            await asyncio.sleep(seconds)
            workers = list(stage.workers.values())
            outcome.exactly(0, leases_lost=sum(what == "lost" for one in workers for what, *_ in one.told))
            await judge(outcome, stage, late_s)

    return _run(clocks)


def hub_rolling(
    *,
    times: int = 20,
    portals: int = 400,
    rate: float = 2.0,
    lease_s: float = 6.0,
    workers: int = 4,
    late_s: float = PLANNED_S,
) -> Outcome:
    """Rolling restart of all workers: each portal moves at most once a step; delayed <= 2 s (p99)."""

    async def roll(outcome: Outcome) -> None:
        most = moved = 0
        async with staged(workers=workers, portals=portals, rate=rate, lease_s=lease_s) as stage:
            await asyncio.sleep(3 * lease_s)
            for turn in range(times):
                for step in ("leave", "join"):
                    before = time.time()
                    name = f"worker-{turn % workers}"
                    if step == "leave":
                        await stage.end(stage.workers[name], signal.SIGTERM)
                    else:
                        await stage.start(name)
                        await asyncio.sleep(lease_s)
                    outcome.promise("every portal has an owner", await stage.shared_out())
                    moves = defaultdict[str, int](int)
                    for worker in stage.workers.values():
                        for what, key, _, at in worker.told:
                            moves[key] += what == "acquired" and at > before
                    most, moved = max(most, *moves.values()), moved + sum(moves.values())
            await judge(outcome, stage, late_s)
        outcome.note(moved=moved)
        outcome.at_most(1, moves_a_step=most)

    return _run(roll)


def hub_leases(*, seconds: float = 60.0, leases: int = 5_000, workers: int = 4) -> Outcome:
    """Renewing 5,000 leases: <= 2 % of a core in all workers together, <= 2 % at the server."""

    async def renew(outcome: Outcome) -> None:
        async with staged(workers=workers, portals=leases, rate=1.0, lease_s=6.0, idle=True) as stage:
            while True:
                told = sum(len(worker.told) for worker in stage.workers.values())
                await asyncio.sleep(6)
                if told == sum(len(worker.told) for worker in stage.workers.values()):
                    break
            assert stage.server.process is not None
            pids = [worker.process.pid for worker in stage.workers.values()]
            before = [_cpu_s(pid) for pid in (*pids, stage.server.process.pid)]
            began = time.monotonic()
            await asyncio.sleep(seconds)
            took = time.monotonic() - began
            spent = [
                now - was
                for now, was in zip(map(_cpu_s, (*pids, stage.server.process.pid)), before, strict=True)
            ]
            outcome.note(leases=leases, workers=workers)
            outcome.at_most(
                2.0,
                workers_percent=round(100 * sum(spent[:-1]) / took, 2),
                server_percent=round(100 * spent[-1] / took, 2),
            )

    return _run(renew)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def hub_stream(
    *, events: int = 100_000, size: int = 1_000, portals: int = 50, at_least: float = 8_000.0
) -> Outcome:
    """Throughput to the log of one worker, 1 KB events, Valkey beside it: >= 8,000 events/s."""

    async def append(outcome: Outcome) -> None:
        async with staged(workers=0, portals=0, rate=0.0, lease_s=6.0) as stage:
            log = ValkeyStream(stage.server.url, name=NAME, max_events=200_000)
            await log.open()
            writers = [log.writer(Lease(f"portal-{number}", "one", 1)) for number in range(portals)]
            made = [_message(number, size) for number in range(events // portals)]
            assert stage.server.process is not None
            before, server_before = time.process_time(), _cpu_s(stage.server.process.pid)
            began = time.perf_counter()
            # As many at once as the inboxes of so many portals may hold.
            for start in range(0, len(made), 100):
                part = made[start : start + 100]
                await asyncio.gather(*(writer.append(event) for event in part for writer in writers))
            took = time.perf_counter() - began
            count = len(made) * portals
            outcome.note(
                events_per_s=round(count / took),
                worker_us=round((time.process_time() - before) / count * 1e6, 1),
                server_us=round((_cpu_s(stage.server.process.pid) - server_before) / count * 1e6, 1),
            )
            outcome.promise(f"events_per_s >= {at_least:g}", count / took >= at_least)
            async with redis.asyncio.Redis.from_url(stage.server.url) as client:
                outcome.exactly(
                    count, written=int((await client.xinfo_stream(log.streams[0]))["entries-added"])
                )
            await log.close()

    return _run(append)


def _message(number: int, size: int) -> PullEvent[Any]:
    filling = "x" * max(size - 250, 0)
    extra = {"server_time_unix": 1_700_000_100.25}
    return PullEvent(
        mid(number),
        "application",
        "x",
        {"n": number, "filling": filling},
        extra,
        BACKEND_SENDER,
        "server",
        1_700_000_100,
    )
