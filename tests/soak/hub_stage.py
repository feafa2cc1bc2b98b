"""An engine, an emulated cloud and hubs, each in a process of its own, and the log that is judged."""

import asyncio
import contextlib
import json
import math
import shutil
import signal
import tempfile
import time
from array import array
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis.asyncio

from bitrix_pull import OAuth, Portal, Tokens
from bitrix_pull.errors import EngineUnavailable
from bitrix_pull.hub.valkey import ClusterStatus, Engine, ValkeyCluster, ValkeyPortals
from tests.fault_proxy import FaultProxy
from tests.forked import Process
from tests.hub.engine import Server
from tests.soak.outcome import Outcome, percentile

NAME = "soak"
AT_ONCE = {"repl_diskless_sync_delay": "0"}
"""Replicas need not wait for others."""

DOMAIN = "localhost"
CLOUD_AT = "127.0.0.1"
ASKED = "asked"
_EVENTS = f"{{{NAME}:0}}:events"
_BEHIND_S = 30.0
"""How far the judge stays behind the log: no engine here goes back so far."""

_FOREVER_S = 10_000_000.0


@dataclass(slots=True)
class _Account:
    """What stands in the log of one portal."""

    last: int = 0
    epoch: int = 0
    missing: set[int] = field(default_factory=set[int])


class Judge:
    """Reads the log and takes away what it has read, so that an hour's events need not be kept.

    Attributes:
        events: How many there were.
        doubled: How many were there before.
        out_of_order: How many came after a later one of their portal.
        stale: How many were written under an epoch below one before.
        taken_up: How late the first event of each new owner was, the first owner of each left out.
        asked: How often each thing was published that somebody has asked for, by its number.
    """

    def __init__(self) -> None:
        self.events = self.doubled = self.out_of_order = self.stale = 0
        self.taken_up: list[float] = []
        self.asked = Counter[int]()
        self._sent_at, self._written_at = array("d"), array("d")
        self._accounts = defaultdict[str, _Account](_Account)

    def take(self, written_at: float, entry: dict[str, Any]) -> None:
        """Look at one entry."""
        if entry["command"] == ASKED:
            self.asked[entry["params"]["n"]] += 1
            return
        account, number, epoch = self._accounts[entry["portal"]], entry["params"]["n"], entry["epoch"]
        self.events += 1
        sent_at = entry["params"]["at"]
        self._sent_at.append(sent_at)
        self._written_at.append(written_at)
        if number > account.last:
            account.missing.update(range(account.last + 1, number))
            account.last = number
        elif number in account.missing:
            account.missing.discard(number)
            self.out_of_order += 1
        else:
            self.doubled += 1
        if epoch > account.epoch:
            if account.epoch:
                self.taken_up.append(written_at - sent_at)
            account.epoch = epoch
        self.stale += epoch < account.epoch

    def lost(self, sent: dict[str, int]) -> int:
        """Return how many events are not there."""
        accounts = self._accounts
        return sum(count - accounts[key].last + len(accounts[key].missing) for key, count in sent.items())

    def late(self, since: float = 0.0) -> list[float]:
        """Return how long each event took from the portal to the log, of those sent since a moment."""
        rows = zip(self._sent_at, self._written_at, strict=True)
        return [written - sent for sent, written in rows if sent >= since]

    def deaf_s(self, healed_at: float, until: float) -> float:
        """Return how long after a cut was healed the last event came late by it.

        That is the greatest delay of what was sent before ``until``, counted from the moment at
        which it was sent, or from the end of the cut, whichever was later.
        """
        first = bisect_left(self._written_at, healed_at)
        rows = zip(self._sent_at[first:], self._written_at[first:], strict=True)
        return max((written - max(sent, healed_at) for sent, written in rows if sent < until), default=0.0)


class Stage:
    """An engine, a cloud whose portals send, and workers.

    Attributes:
        server: The engine.
        workers: The processes of hubs by name.
        judge: What is seen of the log.
        port: Where the cloud is.
    """

    def __init__(self, folder: Path, *, portals: int, rate: float, lease_s: float) -> None:
        self.server = Server(folder, appendonly="yes", appendfsync="everysec", **AT_ONCE)
        self.workers: dict[str, Process] = {}
        self.judge = Judge()
        self.lease_s = lease_s
        self.portals = portals
        self.port = 0
        self._rate = rate
        self._cloud: Process | None = None
        self._read_until = "-"
        self._reading = asyncio.Lock()
        self._over = False

    # -- the cloud ------------------------------------------------------------

    async def open_cloud(self, token_life_s: float | None) -> None:
        """Start the cloud, and keep its portals at the engine.

        Args:
            token_life_s: How long tokens are good for; those that the engine begins with are good
                no more. None: for good.
        """
        cloud = self._cloud = await Process.start(
            "tests.soak.hub_cloud",
            *(str(self.portals), DOMAIN, str(token_life_s or _FOREVER_S)),
            pipes=("stdin", "stdout"),
            limit=1 << 24,
        )
        assert cloud.stdout is not None
        told = json.loads(await cloud.stdout.readline())["portals"]
        self.port = int(told[0][1].rpartition(":")[2])
        engine = Engine(self.server.url)
        await engine.open()
        book = ValkeyPortals(engine, name=NAME)
        for key, url, access, refresh, client_id, secret in told:
            tokens = Tokens(
                access_token=access,
                refresh_token=refresh,
                expires=None if token_life_s is None else 1.0,
                fields={"member_id": key, "user_id": 1},
            )
            credentials = OAuth(
                url,
                client_id=client_id,
                client_secret=secret,
                oauth_url=f"{url}/oauth/token/",
                tokens=tokens,
            )
            await book.put(Portal(key, credentials))
        await engine.close()

    async def ask_cloud(self, *words: object) -> dict[str, Any]:
        """Say something to the cloud; return its answer."""
        assert self._cloud is not None
        assert self._cloud.stdin is not None
        assert self._cloud.stdout is not None
        self._cloud.stdin.write(f"{' '.join(map(str, words))}\n".encode())
        answer: dict[str, Any] = json.loads(await self._cloud.stdout.readline())
        return answer

    # -- workers --------------------------------------------------------------

    async def start(
        self, name: str, *, url: str | None = None, names_at: str = CLOUD_AT, **more: Any
    ) -> Process:
        """Start a hub.

        Args:
            name: What it is called.
            url: Where it finds the engine; None: where it is.
            names_at: Where it finds the cloud.
            more: For its order.
        """
        order = {
            "log": True,
            "name": NAME,
            "worker": name,
            "url": url or self.server.url,
            "names_at": names_at,
            "lease_s": self.lease_s,
            **more,
        }
        worker = self.workers[name] = await Process.start("tests.soak.hub_worker", json.dumps(order))
        return worker

    async def end(self, name: str, how: signal.Signals) -> None:
        """End a hub, and wait for it."""
        worker = self.workers.pop(name)
        worker.send_signal(how)
        await asyncio.wait_for(worker.wait(), 120)

    async def status(self) -> ClusterStatus:
        """Ask the engine who has which portal."""
        # A busy machine may keep an engine from an answer for longer than a hub would wait.
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(EngineUnavailable):
                    return await ValkeyCluster(self.server.url, name=NAME).status()

    async def shared_out(self, within_s: float = 60.0) -> bool:
        """Wait until every portal has an owner that lives."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if len((await self.status()).owners) == self.portals:
                return True
            await asyncio.sleep(0.2)
        return False

    async def kill(self, name: str) -> list[float]:
        """Kill a hub; return how long each of its portals then had to wait for an owner: a minute at most."""
        before = await self.status()
        mine = {key: before.epochs[key] for key, owner in before.owners.items() if owner == name}
        killed_at = time.time()
        await self.end(name, signal.SIGKILL)
        while True:
            epochs = (await self.status()).epochs
            taken = [epochs[key] for key, epoch in mine.items() if epochs[key] != epoch]
            if len(taken) == len(mine) or time.time() > killed_at + 60:
                # An epoch is the moment of its claim, in milliseconds, by the engine's clock: this machine's.
                return [epoch / 1000 - killed_at for epoch in taken] + [60.0] * (len(mine) - len(taken))
            await asyncio.sleep(1.0)

    async def settled(self, within_s: float = 120.0) -> dict[str, set[int]]:
        """Wait until all workers are there, and every portal has an owner and keeps it; return all epochs."""
        seen = defaultdict[str, set[int]](set)
        calm_at, deadline = time.monotonic(), time.monotonic() + within_s
        while time.monotonic() < min(calm_at + self.lease_s, deadline):
            status = await self.status()
            if len(status.owners) < self.portals or {each.name for each in status.workers} != set(
                self.workers
            ):
                calm_at = time.monotonic()
            for key, epoch in status.epochs.items():
                if epoch not in seen[key]:
                    seen[key].add(epoch)
                    calm_at = time.monotonic()
            await asyncio.sleep(0.2)
        return seen

    async def begin(self) -> None:
        """Let the portals send, once each was connected to and its resume point has been written down."""
        async with redis.asyncio.Redis.from_url(self.server.url) as client, asyncio.timeout(600):
            engine: Any = client  # Its commands have no types.
            for key in await engine.hkeys(f"{{{NAME}:portals}}:records"):
                while not await engine.hget(f"{{{NAME}:0}}:at:{key.decode()}", "mid"):
                    await asyncio.sleep(0.1)
        await self.ask_cloud("send", self._rate)

    # -- the log --------------------------------------------------------------

    async def follow(self) -> None:
        """Let the judge read, some way behind, until it is over.

        Not until it is cancelled: redis's client may swallow that.
        """
        while not self._over:
            with contextlib.suppress(redis.RedisError, OSError):
                await self.read(_BEHIND_S)
            await asyncio.sleep(1.0)

    async def read(self, behind_s: float = 0.0) -> None:
        """Let the judge read what is older than some seconds."""
        end = str(int((time.time() - behind_s) * 1000)) if behind_s else "+"
        async with self._reading, redis.asyncio.Redis.from_url(self.server.url) as client:
            engine: Any = client  # Its commands have no types.
            while rows := await engine.xrange(_EVENTS, min=self._read_until, max=end, count=1_000):
                for key, content in rows:
                    self.judge.take(int(key.split(b"-")[0]) / 1000, json.loads(content[b"event"]))
                self._read_until = f"({rows[-1][0].decode()}"
                await engine.xtrim(_EVENTS, minid=rows[-1][0], approximate=True)

    async def close(self) -> None:
        """End everything."""
        self._over = True
        for name, worker in list(self.workers.items()):
            with contextlib.suppress(ProcessLookupError):
                worker.send_signal(signal.SIGCONT)
            await self.end(name, signal.SIGKILL)
        if self._cloud is not None:
            self._cloud.kill()
            await self._cloud.wait()
        self.server.kill()


@contextlib.asynccontextmanager
async def staged(*, workers: int, token_life_s: float | None = None, **options: Any) -> AsyncGenerator[Stage]:
    """Run an engine, a cloud and hubs, if any, until each portal has an owner and sends."""
    folder = Path(tempfile.mkdtemp(prefix="bitrix_pull_hub_"))
    stage = Stage(folder, **options)
    following: asyncio.Task[None] | None = None
    try:
        stage.server.start()
        await stage.open_cloud(token_life_s)
        following = asyncio.create_task(stage.follow())
        for number in range(workers):
            await stage.start(f"worker-{number}")
        if workers:
            await stage.begin()
        yield stage
    finally:
        await stage.close()
        if following is not None:
            await following
        shutil.rmtree(folder, ignore_errors=True)


async def judged(outcome: Outcome, stage: Stage, *, within_s: float = 90.0) -> None:
    """Let the portals send no more, wait for what is under way, and compare the log with what was sent."""
    told = await stage.ask_cloud("sent")
    judge, sent, deadline = stage.judge, told["sent"], time.monotonic() + within_s
    while True:
        with contextlib.suppress(redis.RedisError, OSError):
            await stage.read()
        if not judge.lost(sent) or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.2)
    late = judge.late()
    outcome.note(portals=stage.portals, events=sum(sent.values()), refreshes=told["refreshes"])
    outcome.exactly(
        0,
        lost=judge.lost(sent),
        doubled=judge.doubled,
        out_of_order=judge.out_of_order,
        by_stale_owners=judge.stale,
        spent_twice=told["refused"],
    )
    outcome.note(late_p99_s=p99(late), late_max_s=round(max(late, default=0.0), 2))
    outcome.note(moved=len(judge.taken_up), taken_up_p99_s=p99(judge.taken_up))


def p99(values: Sequence[float]) -> float:
    """Return the seconds that 99 % of some do not exceed; none is worse than any."""
    return round(percentile(values, 99), 2) if values else math.inf


@contextlib.asynccontextmanager
async def way_to_cloud(stage: Stage, address: str) -> AsyncGenerator[FaultProxy]:
    """Pass on to the cloud, at its port of another address, what comes there."""
    async with FaultProxy(CLOUD_AT, stage.port, at=(address, stage.port)) as proxy:
        yield proxy
