"""Hubs that share portals out over a real engine, with a log, over real sockets."""

import asyncio
import json
from collections import defaultdict
from typing import Any

import pytest
import redis.asyncio

from bitrix_pull import AccessToken
from bitrix_pull.emulator import EmulatedCloud
from bitrix_pull.hub.hub import Hub
from bitrix_pull.hub.portals import Portal
from bitrix_pull.hub.valkey import ValkeyCluster, ValkeyStream
from tests.hub.engine import until


async def written(url: str, log: ValkeyStream) -> dict[str, list[int]]:
    """Return the numbers of what each portal has in the log."""
    numbers = defaultdict[str, list[int]](list)
    async with redis.asyncio.Redis.from_url(url) as client:
        rows: Any = await client.xrange(log.streams[0])
    for _, fields in rows:
        event = json.loads(fields[b"event"])
        if event["command"] == "order":
            numbers[event["portal"]].append(event["params"]["n"])
    return numbers


@pytest.mark.parametrize("how", ["leaves", "is cancelled"])
async def test_the_log_has_each_event_once_and_in_order_whoever_serves_the_portal(
    valkey_url: str, name: str, how: str
) -> None:
    async with EmulatedCloud(6) as cloud:
        log = ValkeyStream(valkey_url, name=name)
        one, two = (_hub(cloud, valkey_url, name, worker) for worker in ("one", "two"))
        sent = 0

        async def send(times: int) -> None:
            nonlocal sent
            for _ in range(times):
                for portal in cloud.portals:
                    portal.send("order", {"n": sent})
                sent += 1
                await asyncio.sleep(0.02)

        async with one.serving():
            await until(lambda: one.health().live == 6)
            stopping = asyncio.Event()
            other = asyncio.create_task(_serve(two, stopping))
            await until(lambda: one.health().live + two.health().live == 6 and two.health().live > 0)
            await send(30)
            if how == "leaves":
                stopping.set()
            else:
                other.cancel()
            while not other.done():
                await send(1)
            await send(30)
            await until(lambda: one.health().live == 6)
            await send(10)
            expected = {portal.member_id: list(range(sent)) for portal in cloud.portals}
            async with asyncio.timeout(60):
                while await written(valkey_url, log) != expected:
                    await asyncio.sleep(0.2)


def _hub(cloud: EmulatedCloud, url: str, name: str, worker: str) -> Hub:
    return Hub(
        [Portal(each.member_id, AccessToken(each.url, each.token)) for each in cloud.portals],
        cluster=ValkeyCluster(url, name=name, lease_s=2.0, settle_s=0.2),
        stream=ValkeyStream(url, name=name),
        worker=worker,
    )


async def _serve(hub: Hub, stopping: asyncio.Event) -> None:
    async with hub.serving():
        await stopping.wait()
