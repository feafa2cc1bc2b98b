"""One worker of a cluster: ``python -m tests.soak.cluster_worker`` and a JSON object of what to do.

Its portals are made up, and need no network: message ``n`` of each is there from a moment on that
all processes can tell, and for good, as in the history of a push server. A worker gives to the log
what is there and not settled, as a client does, and writes down how far it is. It tells on stdout
what it gains and loses.
"""

import asyncio
import contextlib
import json
import random
import signal
import sys
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

from bitrix_pull import LeaseLost, ResumePoint
from bitrix_pull.errors import PullError
from bitrix_pull.events import BACKEND_SENDER, PullEvent
from bitrix_pull.hub.cluster import Acquired, Lease, Lost, Membership, Recalled
from bitrix_pull.hub.valkey import ValkeyCluster, ValkeyStream

real_time = time.time

_TICK_S = 0.1
_SAVE_EVERY_S = 0.5
_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Feed:
    """What portals send: so many messages a second each, from one moment to another."""

    began: float
    ends: float
    rate: float

    def there(self) -> int:
        """Return how many messages of each portal there are by now."""
        return max(int((min(real_time(), self.ends) - self.began) * self.rate), 0)


def mid(number: int) -> str:
    """Return a message's mid."""
    return f"1700000000{number:016}"


def number_of(written: str) -> int:
    """Return which message a mid is of."""
    return int(written[10:])


@dataclass(slots=True)
class Portal:
    """A portal that this worker has."""

    lease: Lease
    writer: Any
    feed: Feed
    size: int
    known: set[int] = field(default_factory=set)
    low: int = 0
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self) -> None:
        """Give to the log what is there, until told to stop; then write down how far it is."""
        with contextlib.suppress(LeaseLost):
            while not await self._loaded():
                await asyncio.sleep(0.2)
            saved_at = 0.0
            while not self.stopping.is_set():
                await self._append()
                if time.monotonic() - saved_at > _SAVE_EVERY_S:
                    await self._save()
                    saved_at = time.monotonic()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.stopping.wait(), _TICK_S)
            await self._save()

    async def _loaded(self) -> bool:
        try:
            point = await self.writer.resume.load("key")
        except LeaseLost:
            raise
        except PullError:
            return False
        if point is not None:
            self.low = number_of(point.mid)
            self.known = {number_of(each) for each in point.settled}
        return True

    async def _append(self) -> None:
        # As after a reconnect, some that are known come again.
        wanted = [n for n in range(self.low + 1, self.feed.there() + 1) if n not in self.known][:_AT_ONCE]
        await asyncio.gather(*(self.writer.append(self._message(n)) for n in wanted))
        self.known.update(wanted)
        while self.low + 1 in self.known:
            self.low += 1
            self.known.discard(self.low)

    async def _save(self) -> None:
        beyond = tuple(mid(n) for n in sorted(self.known))
        with contextlib.suppress(PullError):
            self.lease.require()
            await self.writer.resume.save("key", ResumePoint(mid(self.low), beyond))

    def _message(self, number: int) -> PullEvent[Any]:
        due = self.feed.began + number / self.feed.rate
        params = {"n": number, "due": due, "filling": "x" * self.size}
        return PullEvent(mid(number), "application", "x", params, {}, BACKEND_SENDER, "server", int(due))


async def _nothing(doing: Awaitable[object]) -> None:
    await doing


def tell(what: str, lease: Lease) -> None:
    """Tell the parent."""
    sys.stdout.write(json.dumps([what, lease.key, lease.epoch, real_time()]) + "\n")
    sys.stdout.flush()


async def work(
    membership: Membership, log: ValkeyStream, keys: list[str], feed: Feed, size: int, *, idle: bool
) -> None:
    """Serve what the cluster gives to this worker."""
    membership.want(keys)
    portals: dict[str, tuple[Portal, asyncio.Task[None]]] = {}
    releasing = set[asyncio.Task[None]]()

    async def drain(portal: Portal, serving: "asyncio.Task[None]") -> None:
        portal.stopping.set()
        await asyncio.wait({serving})
        tell("released", portal.lease)
        await membership.release(portal.lease)

    async for change in membership.changes():
        match change:
            case Acquired(lease):
                portal = Portal(lease, log.writer(lease), feed, size)
                serving = portal.stopping.wait() if idle else portal.serve()
                portals[lease.key] = portal, asyncio.create_task(_nothing(serving))
                tell("acquired", lease)
            case Recalled(lease):
                task = asyncio.create_task(drain(*portals.pop(lease.key)))
                releasing.add(task)
                task.add_done_callback(releasing.discard)
            case Lost(lease):
                tell("lost", lease)
                if lease.key in portals:
                    portals.pop(lease.key)[1].cancel()


async def main(order: dict[str, Any]) -> None:
    """Work until told to leave by SIGTERM."""
    if order.get("clock"):
        _set_clock(order["clock"], random.Random(order["worker"]))
    cluster = ValkeyCluster(
        order["url"], name=order["name"], lease_s=order["lease_s"], settle_s=order["settle_s"]
    )
    log = ValkeyStream(order["url"], name=order["name"], max_events=0)
    feed = Feed(order["began"], order["ends"], order["rate"])
    keys = [f"portal-{number}" for number in range(order["portals"])]
    while True:
        try:
            async with cluster.join(order["worker"]) as membership:
                await log.open()
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, membership.leave)
                await work(membership, log, keys, feed, order["size"], idle=order["idle"])
                await log.close()
                return
        except PullError:
            await asyncio.sleep(0.2)


def _set_clock(off_s: float, rng: random.Random) -> None:
    """Let this process's wall clock be wrong, and jump."""
    began = time.monotonic()
    jumps = [rng.uniform(-off_s, off_s) for _ in range(1000)]
    time.time = lambda: real_time() + jumps[int(time.monotonic() - began) % len(jumps)]


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
