"""An engine's primary dies, and a replica that lacks the last second takes its place."""

import asyncio
import contextlib
import random
import shutil
import signal
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import redis.asyncio

from bitrix_pull.hub.valkey.cluster import LEASE_S
from tests.fault_proxy import FaultProxy
from tests.hub.engine import Server
from tests.soak.hub_stage import AT_ONCE, NAME, Stage, judged, staged
from tests.soak.outcome import Outcome


class Pair:
    """A primary and a replica of it, behind an address that stays.

    Attributes:
        primary: Which server clients are led to.
        url: Where they go.
    """

    def __init__(self, primary: Server, folder: Path, clients: FaultProxy) -> None:
        self.primary = primary
        self.url: str = f"redis://{clients.address}"
        self._folder = folder
        self._clients = clients
        self._replica: Server | None = None
        self._link: FaultProxy | None = None
        self._number = 0

    async def replicate(self) -> None:
        """Let a new, empty server become the primary's replica, and wait until it has all."""
        self._number += 1
        replica = self._replica = Server(self._folder / str(self._number), **AT_ONCE)
        replica.start()
        self._link = await FaultProxy("127.0.0.1", self.primary.port).__aenter__()
        host, _, port = self._link.address.partition(":")
        async with _client(replica) as client, asyncio.timeout(60):
            await client.replicaof(host, port)
            while True:
                told = await client.info("replication")
                if told["master_link_status"] == "up" and not told["master_sync_in_progress"]:
                    return
                await asyncio.sleep(0.05)

    async def fail_over(self, lacks_s: float) -> int:
        """Kill the primary, and let the replica take its place, which has heard nothing for a while.

        Returns:
            How many entries of the log are lost by that.
        """
        assert self._link is not None
        assert self._replica is not None
        for line in self._link.lines:
            line.weather.to_client_lost = True
        await asyncio.sleep(lacks_s)
        had = await _entries(self.primary)
        self.primary.kill()
        await self._link.__aexit__(None, None, None)
        self.primary, self._replica, self._link = self._replica, None, None
        async with _client(self.primary) as client:
            await client.replicaof("NO", "ONE")
        self._clients.target = "127.0.0.1", self.primary.port
        for line in list(self._clients.lines):
            line.cut("reset")
        return had - await _entries(self.primary)

    async def stop(self) -> None:
        """End both."""
        for server in (self.primary, self._replica):
            if server is not None:
                server.kill()
        if self._link is not None:
            await self._link.__aexit__(None, None, None)


def _client(server: Server) -> Any:
    # Its commands have no types.
    return redis.asyncio.Redis.from_url(server.url, decode_responses=True)


async def _entries(server: Server) -> int:
    async with _client(server) as client:
        # Not how many there are: the judge takes some away.
        return int((await client.xinfo_stream(f"{{{NAME}:0}}:events"))["entries-added"])


@contextlib.asynccontextmanager
async def _paired(stage: Stage, workers: int) -> AsyncGenerator[Pair]:
    folder = Path(tempfile.mkdtemp(prefix="bitrix_pull_replicas_"))
    try:
        async with FaultProxy("127.0.0.1", stage.server.port) as clients:
            pair = Pair(stage.server, folder, clients)
            try:
                await pair.replicate()
                for number in range(workers):
                    await stage.start(f"worker-{number}", url=pair.url)
                await stage.begin()
                yield pair
            finally:
                for name in list(stage.workers):
                    await stage.end(name, signal.SIGKILL)
                await pair.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def hub_failover(
    *,
    times: int = 20,
    lacks_s: float = 1.0,
    portals: int = 1_000,
    rate: float = 2_000.0,
    lease_s: float = LEASE_S,
    seed: int = 1,
) -> Outcome:
    """A replica that lacks the last second takes over: log and resume points go back together, lost 0."""
    outcome = Outcome()

    async def run() -> None:
        rng = random.Random(seed)
        lacked = list[int]()
        async with (
            staged(workers=0, portals=portals, rate=rate, lease_s=lease_s) as stage,
            _paired(stage, workers=3) as pair,
        ):
            for _ in range(times):
                await asyncio.sleep(rng.uniform(0.5, 1.0) * lease_s)
                lacked.append(await pair.fail_over(lacks_s))
                stage.server = pair.primary
                await asyncio.sleep(rng.uniform(0.0, 1.0) * lease_s)
                outcome.promise("every portal has an owner again", await stage.shared_out())
                await pair.replicate()
            await judged(outcome, stage)
        outcome.note(entries_lacked=sum(lacked))
        outcome.promise("each replica lacked something", min(lacked) > 0)

    asyncio.run(run())
    return outcome
