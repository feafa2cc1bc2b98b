"""From a publish by the trusted path to the callback."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import aiohttp
import orjson
from websockets.asyncio.client import connect

from bitrix_pull import AccessToken, PullClient, PullEvent
from bitrix_pull.wire import push_pb2
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.urls import subscription_url
from tests.benchmarks.comparison import Comparison, Figures
from tests.benchmarks.served_emulator import ServedEmulator, serving

_MESSAGES = 2_000
_PAUSE_S = 0.002
_BODY = b'{"module_id":"application","command":"tick","params":{"n":1},"extra":{}}'


def comparisons(scale: float) -> Iterable[Comparison]:
    """From a publish by the trusted path to an async handler, against a bare receive."""
    messages = max(int(_MESSAGES * scale), 2)
    yield Comparison("published to handled", partial(client, messages), partial(bare_receive, messages))


class StopWatch:
    """Publishes one message after the other, and measures until each has arrived."""

    def __init__(self) -> None:
        self._arrived_s = 0.0
        self._arrival = asyncio.Event()

    def message(self, _: object) -> None:
        """Take note of the arrival."""
        self._arrived_s = time.perf_counter()
        self._arrival.set()

    async def measure(self, publish: Callable[[], Awaitable[None]], messages: int) -> Figures:
        """Publish so many."""
        taken_s: list[float] = []
        for _ in range(messages):
            self._arrival.clear()
            published_s = time.perf_counter()
            await publish()
            await self._arrival.wait()
            taken_s.append(self._arrived_s - published_s)
            await asyncio.sleep(_PAUSE_S)
        taken_s.sort()
        return {"p50_ms": taken_s[messages // 2] * 1000, "p99_ms": taken_s[messages * 99 // 100] * 1000}


def client(messages: int) -> Figures:
    """Let a ``PullClient`` receive."""

    async def main() -> Figures:
        watch = StopWatch()
        async with serving() as served, aiohttp.ClientSession() as http:
            pull = PullClient(AccessToken(served.portal_url, served.token))

            @pull.on()
            async def handle(event: PullEvent) -> None:
                watch.message(event)

            config = await _config(http, served)
            async with pull:
                return await watch.measure(_publisher(http, served, config), messages)

    return asyncio.run(main())


def bare_receive(messages: int) -> Figures:
    """Let the libraries alone receive."""

    async def main() -> Figures:
        watch = StopWatch()
        async with serving() as served, aiohttp.ClientSession() as http:
            config = await _config(http, served)
            address = subscription_url(
                config["server"]["websocket"],
                [config["channels"]["private"]["id"], config["channels"]["shared"]["id"]],
                WireFormat.PROTOBUF,
            )
            async with connect(address, compression=None) as socket:

                async def receive() -> None:
                    while True:
                        batch = push_pb2.ResponseBatch()
                        batch.ParseFromString(await socket.recv(decode=False))
                        for response in batch.responses:
                            for message in response.outgoingMessages.messages:
                                watch.message(orjson.loads(message.body))

                receiving = asyncio.create_task(receive())
                figures = await watch.measure(_publisher(http, served, config), messages)
                receiving.cancel()
                return figures

    return asyncio.run(main())


async def _config(http: aiohttp.ClientSession, served: ServedEmulator) -> Any:
    address = f"{served.portal_url}/rest/pull.application.config.get"
    async with http.post(address, json={"auth": served.token}) as response:
        return (await response.json())["result"]


def _publisher(
    http: aiohttp.ClientSession, served: ServedEmulator, config: Any
) -> Callable[[], Awaitable[None]]:
    shared = config["channels"]["shared"]["id"].partition(".")[0]

    async def publish() -> None:
        async with http.post(
            served.publish_url, params={"CHANNEL_ID": shared}, data=_BODY, headers={"Message-Expiry": "60"}
        ) as response:
            response.raise_for_status()

    return publish
