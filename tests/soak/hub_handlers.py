"""Hubs with handlers and no log, in processes of their own, that are stopped and cut off from the engine."""

import asyncio
import contextlib
import itertools
import json
import random
import shutil
import signal
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import psycopg
import redis.asyncio

from bitrix_pull import Tokens
from bitrix_pull.emulator import EmulatedCloud
from bitrix_pull.hub.valkey.cluster import LEASE_S
from tests.fault_proxy import FaultProxy
from tests.forked import Process
from tests.hub.engine import Server, free_port
from tests.postgres import postgres
from tests.soak.hub_worker import stores
from tests.soak.outcome import Outcome

NAME = "soak"
_TOKEN_LIFE_S = 1.0
_LOOK: Final = f"""
    SELECT record FROM (
        SELECT 1 AS part, 0 AS id, record FROM {NAME}.resume_point WHERE portal = %(portal)s
        UNION SELECT 2, id, record FROM {NAME}.resume_advance WHERE portal = %(portal)s
    ) AS records ORDER BY part DESC, id DESC LIMIT 1
"""

Trouble = Literal["stopped", "cut off"]
Handed = list[tuple[float, int, int]]
"""When, which, and under which epoch."""

Look = Callable[[str], Awaitable[str | None]]
"""Gives the mid of a portal's resume point, as it is kept."""


@dataclass(slots=True)
class Worker:
    """One hub's process, and its way to the engine."""

    process: Process
    proxy: FaultProxy

    async def suffer(self, trouble: Trouble, seconds: float) -> None:
        """Be stopped, or cut off, for a while."""
        if trouble == "stopped":
            self.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            self.process.send_signal(signal.SIGCONT)
            return
        self.proxy.cut_off()
        await asyncio.sleep(seconds)
        self.proxy.heal()


@dataclass(slots=True)
class Stage:
    """An engine, an emulated cloud whose portals send, and what workers tell."""

    cloud: EmulatedCloud
    look: Look
    handed: defaultdict[str, Handed] = field(default_factory=lambda: defaultdict[str, Handed](list))
    sent: int = 0
    went_back: int = 0
    points: dict[str, str] = field(default_factory=dict[str, str])
    over: bool = False

    async def read(self, process: Process) -> None:
        """Note what a worker hands on."""
        assert process.stdout is not None
        async for line in process.stdout:
            portal, number, epoch, at = json.loads(line)
            self.handed[portal].append((at, number, epoch))

    async def send(self, rate: float) -> None:
        """Let each portal send one message after the other."""
        while True:
            self.sent += 1
            for portal in self.cloud.portals:
                portal.send("numbered", {"n": self.sent})
            await asyncio.sleep(1 / rate)

    async def watch(self) -> None:
        """See how far the resume points are, and that none goes back, until it is over.

        Not until it is cancelled: redis's client may swallow that.
        """
        while not self.over:
            for portal in self.cloud.portals:
                key = portal.member_id
                mid = await self.look(key)
                if mid is not None:
                    self.went_back += mid < self.points.get(key, "")
                    self.points[key] = mid
            await asyncio.sleep(0.05)

    async def connected(self) -> None:
        """Wait until each portal has been connected to, and that is written down."""
        async with asyncio.timeout(60):
            while len(self.points) < len(self.cloud.portals):
                await asyncio.sleep(0.05)

    def missing(self) -> int:
        """Return how many messages were not handed on yet."""
        return sum(
            self.sent - len({number for _, number, _ in self.handed[portal.member_id]})
            for portal in self.cloud.portals
        )


@contextlib.asynccontextmanager
async def _looking(url: str, conninfo: str) -> AsyncIterator[Look]:
    if not conninfo:
        async with redis.asyncio.Redis.from_url(url, decode_responses=True) as engine:
            client: Any = engine  # Its commands have no types.

            async def look(key: str) -> str | None:
                mid: str | None = await client.hget(f"{NAME}:{{{key}}}:at:{key}", "mid")
                return mid

            yield look
        return
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as database:

        async def look_there(key: str) -> str | None:
            # Before the first worker has come there is no table.
            with contextlib.suppress(psycopg.errors.UndefinedTable):
                row = await (await database.execute(_LOOK, {"portal": key})).fetchone()
                return None if row is None else str(json.loads(row[0])["mid"])
            return None

        yield look_there


@contextlib.asynccontextmanager
async def _staged(
    portals: int, lease_s: float, *, in_postgres: bool
) -> AsyncIterator[tuple[Stage, list[Worker]]]:
    folder = Path(tempfile.mkdtemp(prefix="bitrix_pull_hub_"))
    server = Server(folder)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        server.start()
        stack.callback(server.kill)
        conninfo = stack.enter_context(postgres(free_port())) if in_postgres else ""
        look = await stack.enter_async_context(_looking(server.url, conninfo))
        cloud = await stack.enter_async_context(EmulatedCloud(portals))
        kept = stores(server.url, conninfo, NAME)
        for portal in cloud.portals:
            portal.token_life_s = _TOKEN_LIFE_S
            tokens = Tokens(access_token=portal.token, refresh_token=portal.refresh_token, expires=1.0)
            await kept.tokens(portal.member_id).save(tokens)
        stage = Stage(cloud, look)
        doing = [asyncio.create_task(stage.watch())]
        workers = list[Worker]()
        for number in range(2):
            proxy = await stack.enter_async_context(FaultProxy("127.0.0.1", server.port))
            order = {
                "url": f"redis://{proxy.address}",
                "postgres": conninfo,
                "name": NAME,
                "worker": f"worker-{number}",
                "lease_s": lease_s,
                "portals": [
                    [portal.member_id, portal.url, portal.client_id, portal.client_secret]
                    for portal in cloud.portals
                ],
            }
            process = await Process.start(
                "tests.soak.hub_worker", json.dumps(order), pipes=("stdout",), limit=1 << 24
            )
            workers.append(Worker(process, proxy))
            doing.append(asyncio.create_task(stage.read(process)))
        try:
            yield stage, workers
        finally:
            stage.over = True
            for worker in workers:
                worker.process.kill()
                await worker.process.wait()
            await asyncio.wait(doing)


def hub_stale(
    *,
    times: int = 30,
    away_s: float = 20.0,
    portals: int = 50,
    rate: float = 5.0,
    lease_s: float = LEASE_S,
    seed: int = 1,
    in_postgres: bool = False,
) -> Outcome:
    """A hub of handlers is stopped, or cut off from Valkey, for 20 s: it hands on and writes nothing late.

    Without a log: events come at least once (lost 0), by an owner of before none once another has
    the portal, no resume point goes back, and no refresh token is spent twice. In PostgreSQL too,
    from which nobody is cut off: the fence alone keeps a worker from writing late.
    """
    outcome = Outcome()

    async def run() -> None:
        rng = random.Random(seed)
        async with _staged(portals, lease_s, in_postgres=in_postgres) as (stage, workers):
            await stage.connected()
            sending = asyncio.create_task(stage.send(rate))
            troubles: itertools.cycle[Trouble] = itertools.cycle(("stopped", "cut off"))
            for trouble in itertools.islice(troubles, times):
                await asyncio.sleep(rng.uniform(1.0, 2.0) * lease_s)
                await rng.choice(workers).suffer(trouble, away_s)
            sending.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(90):
                    while stage.missing():
                        await asyncio.sleep(0.1)
            _judge(outcome, stage)

    asyncio.run(run())
    return outcome


def _judge(outcome: Outcome, stage: Stage) -> None:
    stale = moved = handed = 0
    for rows in stage.handed.values():
        epochs = [epoch for _, _, epoch in sorted(rows)]
        stale += sum(one > other for one, other in itertools.pairwise(epochs))
        moved += len(set(epochs)) - 1
        handed += len(rows)
    asked = [request for portal in stage.cloud.portals for request in portal.token_requests]
    sent = stage.sent * len(stage.cloud.portals)
    outcome.note(events=sent, moved=moved, refreshes=len(asked), handed_twice=handed - sent)
    outcome.exactly(
        0,
        lost=stage.missing(),
        by_stale_owners=stale,
        points_gone_back=stage.went_back,
        spent_twice=sum(not request.granted for request in asked),
    )
    outcome.promise("portals find another owner", moved > 0)
