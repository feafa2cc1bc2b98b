"""Events of many portals in a FastStream service: a hub writes them to a stream, a consumer group reads it.

Run it:  VALKEY=redis://localhost python examples/faststream_consumer.py
It needs:  pip install 'bitrix-pull[hub]' 'faststream[redis]'

The two halves are mostly two programs. The consumer needs no bitrix_pull: only FastStream.
"""

import asyncio
import contextlib
import logging
import os
import sqlite3
from typing import Any

import redis.asyncio
from faststream import AckPolicy, FastStream
from faststream.redis import RedisBroker, StreamSub
from pydantic import BaseModel, Json

from bitrix_pull.hub import Hub, Portal
from bitrix_pull.hub.valkey import ValkeyCluster, ValkeyStream
from portal_or_emulator import portal_or_emulator

VALKEY = os.environ.get("VALKEY", "")
STREAM = "{example:0}:events"
GROUP = "warehouse"
ME = "warehouse-1"
"""Each process of the service has a name of its own, and keeps it over a restart."""


class Event(BaseModel):
    """An entry of the log, as ``bitrix_pull.hub.valkey.envelope`` describes it; the rest is left."""

    portal: str
    kind: str
    created: float | None
    mid: str = ""
    command: str = ""
    params: Any = None
    record: int = 0
    name: str = ""
    data: Any = None

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from all others."""
        return self.portal, self.mid or f"{self.record} {self.created}"


class Entry(BaseModel):
    """What FastStream makes of an entry's fields."""

    event: Json[Event]


log = logging.getLogger("warehouse")
broker = RedisBroker(VALKEY or "redis://localhost", logger=log)
app = FastStream(broker, logger=log)
done = sqlite3.connect(":memory:")
done.execute("CREATE TABLE done (portal TEXT, id TEXT, PRIMARY KEY (portal, id))")


@app.on_startup
async def begin_with_the_oldest() -> None:
    """FastStream's own group would begin with what comes from now on."""
    async with redis.asyncio.Redis.from_url(VALKEY) as engine:  # pyright: ignore[reportUnknownMemberType]
        with contextlib.suppress(redis.asyncio.ResponseError):  # There is one already.
            await engine.xgroup_create(STREAM, GROUP, id="0", mkstream=True)


# What is new; and what others of the group were given a minute ago, and have not finished.
@broker.subscriber(
    stream=StreamSub(STREAM, group=GROUP, consumer=ME, max_records=100),
    ack_policy=AckPolicy.NACK_ON_ERROR,
)
@broker.subscriber(
    stream=StreamSub(STREAM, group=GROUP, consumer=ME, min_idle_time=60_000),
    ack_policy=AckPolicy.NACK_ON_ERROR,
)
async def consume(entry: Entry) -> None:
    """Handle an event, each once, whatever is killed in between."""
    with done:
        # In one transaction with what the event does: so it is done once.
        if done.execute("INSERT OR IGNORE INTO done VALUES (?, ?)", entry.event.key).rowcount:
            handle(entry.event)


def handle(event: Event) -> None:
    """Do what the service is for."""
    if event.kind == "portal":
        print(f"{event.portal}: {event.name} {event.data}")
    else:
        print(f"{event.portal}: {event.command} {event.params}")
    if event.params == {"id": 2}:
        app.exit()  # A service goes on.


async def main() -> None:
    if not VALKEY:
        raise SystemExit('Set VALKEY to a Valkey or Redis server, as in "redis://localhost".')
    async with portal_or_emulator() as portal:
        hub = Hub(
            [Portal("acme", portal.auth)],
            cluster=ValkeyCluster(VALKEY, name="example"),
            stream=ValkeyStream(VALKEY, name="example", max_events=100_000),
        )
        async with hub.serving():
            while not hub.health().live:  # noqa: ASYNC110 - a service has no need to wait
                await asyncio.sleep(0.1)
            for number in range(3):
                await hub.client("acme").publish("order_paid", {"id": number})
            await app.run()
    done.close()


if __name__ == "__main__":
    asyncio.run(main())
