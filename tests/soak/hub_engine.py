"""What leases and the log cost, at the workers and at the engine: without any portals."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import redis.asyncio

from bitrix_pull.events import BACKEND_SENDER, PullEvent
from bitrix_pull.hub.cluster import Lease
from bitrix_pull.hub.valkey import ValkeyCluster, ValkeyStream
from tests.forked import Process
from tests.hub.engine import Server, running
from tests.soak.outcome import Outcome

NAME = "soak"


def hub_leases(*, seconds: float = 60.0, leases: int = 5_000, workers: int = 4) -> Outcome:
    """Renewing 5,000 leases: <= 2 % of a core in all workers together, <= 2 % at the server."""
    outcome = Outcome()

    async def renew() -> None:
        with running(appendonly="yes", appendfsync="everysec") as server:
            async with _holders(server, workers, leases) as pids:
                assert server.process is not None
                everybody = *pids, server.process.pid
                before, began = [_cpu_s(pid) for pid in everybody], time.monotonic()
                await asyncio.sleep(seconds)
                spent = [_cpu_s(pid) - was for pid, was in zip(everybody, before, strict=True)]
                took = time.monotonic() - began
        outcome.note(leases=leases, workers=workers)
        outcome.at_most(
            2.0,
            workers_percent=round(100 * sum(spent[:-1]) / took, 2),
            server_percent=round(100 * spent[-1] / took, 2),
        )

    asyncio.run(renew())
    return outcome


@contextlib.asynccontextmanager
async def _holders(server: Server, workers: int, leases: int) -> AsyncGenerator[list[int]]:
    """Run workers until the leases stay where they are."""
    processes = [
        await Process.start("tests.soak.lease_holder", server.url, NAME, f"worker-{number}", str(leases))
        for number in range(workers)
    ]
    try:
        cluster, epochs = ValkeyCluster(server.url, name=NAME), dict[str, int]()
        while len(epochs) < leases or epochs != (await cluster.status()).epochs:
            epochs = dict((await cluster.status()).epochs)
            await asyncio.sleep(6)
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            await process.wait()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def hub_stream(
    *, events: int = 100_000, size: int = 1_000, portals: int = 50, at_least: float = 8_000.0
) -> Outcome:
    """Throughput to the log of one worker, 1 KB events, Valkey beside it: >= 8,000 events/s."""
    outcome = Outcome()

    async def append() -> None:
        with running(appendonly="yes", appendfsync="everysec") as server:
            log = ValkeyStream(server.url, name=NAME, max_events=200_000)
            await log.open()
            writers = [log.writer(Lease(f"portal-{number}", "one", 1)) for number in range(portals)]
            made = [_message(number, size) for number in range(events // portals)]
            assert server.process is not None
            before, server_before = time.process_time(), _cpu_s(server.process.pid)
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
                server_us=round((_cpu_s(server.process.pid) - server_before) / count * 1e6, 1),
            )
            outcome.promise(f"events_per_s >= {at_least:g}", count / took >= at_least)
            async with redis.asyncio.Redis.from_url(server.url) as client:
                outcome.exactly(
                    count, written=int((await client.xinfo_stream(log.streams[0]))["entries-added"])
                )
            await log.close()

    asyncio.run(append())
    return outcome


def _message(number: int, size: int) -> PullEvent[Any]:
    filling = "x" * max(size - 250, 0)
    extra = {"server_time_unix": 1_700_000_100.25}
    return PullEvent(
        f"1700000000{number:016}",
        "application",
        "x",
        {"n": number, "filling": filling},
        extra,
        BACKEND_SENDER,
        "server",
        1_700_000_100,
    )
