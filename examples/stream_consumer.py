"""Events of many portals for other services: a hub writes them to a stream, a consumer group reads it.

Run it:  VALKEY=redis://localhost python examples/stream_consumer.py

The two halves are mostly two programs. The consumer needs no bitrix_pull: only ``redis``.
"""

import asyncio
import contextlib
import json
import os
import sqlite3
from typing import Any

import redis.asyncio

from bitrix_pull.hub import Hub, Portal
from bitrix_pull.hub.valkey import ValkeyCluster, ValkeyStream
from portal_or_emulator import portal_or_emulator

STREAM = "{example:0}:events"
GROUP = "billing"
ME = "billing-1"
"""Each process of the service has a name of its own, and keeps it over a restart."""


async def consume(engine: redis.asyncio.Redis, done: sqlite3.Connection, count: int) -> None:
    """Handle so many events, each once, whatever is killed in between."""
    done.execute("CREATE TABLE IF NOT EXISTS done (portal TEXT, id TEXT, PRIMARY KEY (portal, id))")
    try:
        await engine.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    except redis.asyncio.ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise
    while count > 0:
        # What others of the group were given a minute ago, and have not finished; then what is new.
        claimed: Any = await engine.xautoclaim(STREAM, GROUP, ME, min_idle_time=60_000, count=100)
        read: Any = await engine.xreadgroup(GROUP, ME, {STREAM: ">"}, count=100, block=1_000)
        entries = [*claimed[1], *(entry for _, some in read for entry in some)]
        for entry_id, fields in entries:
            event = json.loads(fields[b"event"])
            with done:
                # In one transaction with what the event does: so it is done once.
                key = (event["portal"], event.get("mid") or f"{event['record']} {event['created']}")
                if done.execute("INSERT OR IGNORE INTO done VALUES (?, ?)", key).rowcount:
                    handle(event)
            await engine.xack(STREAM, GROUP, entry_id)
            count -= 1


def handle(event: dict[str, Any]) -> None:
    """Do what the service is for."""
    if event["kind"] == "portal":
        print(f"{event['portal']}: {event['name']} {event['data']}")
    else:
        print(f"{event['portal']}: {event['command']} {event['params']}")


async def main() -> None:
    url = os.environ.get("VALKEY")
    if not url:
        raise SystemExit('Set VALKEY to a Valkey or Redis server, as in "redis://localhost".')
    async with portal_or_emulator() as portal:
        hub = Hub(
            [Portal("acme", portal.auth)],
            cluster=ValkeyCluster(url, name="example"),
            stream=ValkeyStream(url, name="example", max_events=100_000),
        )
        async with hub.serving(), redis.asyncio.Redis.from_url(url) as engine:  # pyright: ignore[reportUnknownMemberType]
            while not hub.health().live:  # noqa: ASYNC110 - a service has no need to wait
                await asyncio.sleep(0.1)
            for number in range(3):
                await hub.client("acme").publish("order_paid", {"id": number})
            with contextlib.closing(sqlite3.connect(":memory:")) as done:
                await consume(engine, done, 3)


if __name__ == "__main__":
    asyncio.run(main())
