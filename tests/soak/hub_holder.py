"""Holds a connection to each of many portals, and tells what that takes.

    python -m tests.soak.hub_holder hub|bare RATE IDLE_S < PORTALS

With "hub" a ``Hub`` does, with "bare" ``websockets`` alone, with the same pings. It reads the
portals from its input as ``hub_cloud`` writes them, and writes a JSON line of figures.
"""

import asyncio
import contextlib
import gc
import json
import sys
import time

import aiohttp
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bitrix_pull import AccessToken, Hub, Portal, PullEvent
from bitrix_pull.program import collect_less_often
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.urls import subscription_url
from tests.benchmarks.comparison import resident_mib

_PING_INTERVAL_S = 10
_SETTLE_S = 20.0
"""Until idle: starts end with an audit poll, and HTTP connections are kept for 15 s after that."""

Portals = list[tuple[str, str, str]]


def _kib() -> float:
    gc.collect()
    return resident_mib() * 1024


async def by_hub(portals: Portals, rate: float, idle_s: float) -> dict[str, float]:
    first, rest = portals[0], portals[1:]
    hub = Hub([Portal(first[0], AccessToken(first[1], first[2]))], starts_per_s=rate)

    @hub.on()
    async def take(event: PullEvent) -> None: ...

    async with hub.serving():
        await _until_live(hub, 1)
        before = _kib()
        began = time.perf_counter()
        for key, url, token in rest:
            await hub.add(Portal(key, AccessToken(url, token)))
        await _until_live(hub, len(portals))
        live_s = time.perf_counter() - began
        figures = await _idle(before, len(rest), idle_s)
        return {"live_s": live_s, **figures, "still_live": hub.health().live}


async def _until_live(hub: Hub, count: int) -> None:
    while hub.health().live < count:
        await asyncio.sleep(0.1)


async def by_bare_connections(portals: Portals, rate: float, idle_s: float) -> dict[str, float]:
    async with aiohttp.ClientSession() as http, contextlib.AsyncExitStack() as open_ones:
        await open_ones.enter_async_context(contextlib.aclosing(await _connect(http, portals[0])))
        before = _kib()
        began = time.perf_counter()
        for number, portal in enumerate(portals[1:]):
            await open_ones.enter_async_context(contextlib.aclosing(await _connect(http, portal)))
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        return await _idle(before, len(portals) - 1, idle_s)


class _Reading:
    """A connection, and the task that reads it."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for _ in self._socket:
                pass

    async def aclose(self) -> None:
        self._socket.transport.abort()
        await asyncio.wait({self._task})


async def _connect(http: aiohttp.ClientSession, portal: tuple[str, str, str]) -> _Reading:
    _, url, token = portal
    async with http.post(f"{url}/rest/pull.application.config.get", json={"auth": token}) as response:
        config = (await response.json())["result"]
    channels = [config["channels"][kind]["id"] for kind in ("private", "shared")]
    address = subscription_url(
        config["server"]["websocket"], channels, WireFormat.PROTOBUF, client_id=config["clientId"]
    )
    return _Reading(await connect(address, compression=None, ping_interval=_PING_INTERVAL_S))


async def _idle(before_kib: float, count: int, idle_s: float) -> dict[str, float]:
    await asyncio.sleep(min(_SETTLE_S, idle_s))
    kib = (_kib() - before_kib) / count
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    await asyncio.sleep(idle_s)
    busy = (time.process_time() - cpu_s) / (time.perf_counter() - wall_s)
    return {"kib": kib, "cpu_percent": busy * 100}


if __name__ == "__main__":
    collect_less_often()
    given: Portals = [tuple(each[:3]) for each in json.loads(sys.stdin.readline())["portals"]]
    hold = by_hub if sys.argv[1] == "hub" else by_bare_connections
    print(json.dumps(asyncio.run(hold(given, float(sys.argv[2]), float(sys.argv[3])))))  # noqa: T201
