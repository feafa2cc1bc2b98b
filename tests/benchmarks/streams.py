"""Many clients in one process, on one ``aiohttp.ClientSession``."""

import asyncio
import gc
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import aiohttp
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bitrix_pull import AccessToken, PullClient, PullEvent, State
from bitrix_pull.program import collect_less_often
from bitrix_pull.wire import push_pb2
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.urls import subscription_url
from tests.benchmarks.comparison import Comparison, Figures, resident_mib

_SIZES = (100, 1_000, 5_000)
_IDLE_S = 20.0
_EVENTS_S = 10.0
_PING_INTERVAL_S = 10
_AT_ONCE = 50


def comparisons(scale: float) -> Iterable[Comparison]:
    """Many clients idle, with one event a second each, and after a restart of their server."""
    window = min(scale, 1.0)
    for count in dict.fromkeys(max(int(size * scale), 2) for size in _SIZES):
        yield Comparison(
            f"{count:,} streams", partial(clients, count, window), partial(bare_connections, count, window)
        )


class Streams(ABC):
    """As many streams as there are tokens."""

    def __init__(self) -> None:
        self.received = 0

    @abstractmethod
    async def open(self, portal: str, tokens: Sequence[str], http: aiohttp.ClientSession) -> None:
        """Begin to open all, and return at once or when all are open."""

    @property
    @abstractmethod
    def live(self) -> int:
        """How many are open now."""

    @abstractmethod
    async def close(self) -> None:
        """Close all."""


def clients(count: int, window: float) -> Figures:
    """Let ``PullClient`` keep them."""
    return asyncio.run(_measure(Clients(), count, window))


def bare_connections(count: int, window: float) -> Figures:
    """Let ``websockets`` alone keep them, with its own pings, and reconnect at once."""
    return asyncio.run(_measure(BareConnections(), count, window))


async def _measure(streams: Streams, count: int, window: float) -> Figures:
    collect_less_often()  # As ``bitrix_pull.run`` does.
    async with _crowd_server(count) as server, aiohttp.ClientSession() as http:
        # What the first one loads into memory is not what one more takes.
        await streams.open(server.portal, server.tokens[:1], http)
        await _until(streams, 1)
        before_mib = _resident_mib()
        started = time.perf_counter()
        await streams.open(server.portal, server.tokens[1:], http)
        live_s = await _until(streams, count) - started
        await asyncio.sleep(_IDLE_S / 2 * window)  # Until what belongs to the start is over.
        idle_percent = await _cpu_percent(_IDLE_S * window)
        kib = (_resident_mib() - before_mib) * 1024 / (count - 1)
        await server.do("events on")
        events_percent = await _cpu_percent(_EVENTS_S * window)
        await server.do("events off")
        received = streams.received
        await server.do("restart")
        restarted = time.perf_counter()
        again_s = await _until(streams, count) - restarted
        busiest = (await server.do("attempts"))["busiest"]
        await streams.close()
        assert received, "no event has come"
        return {
            "live_s": live_s,
            "kib_a_stream": kib,
            "idle_cpu_percent": idle_percent,
            "events_cpu_percent": events_percent,
            "live_again_s": again_s,
            "busiest_second_percent": busiest / count * 100,
        }


async def _until(streams: Streams, live: int) -> float:
    """Wait until so many are live; return when."""
    while streams.live < live:
        await asyncio.sleep(0.05)
    return time.perf_counter()


async def _cpu_percent(seconds: float) -> float:
    """Return how busy this process is, in percent of one core."""
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    return (time.process_time() - cpu_s) / (time.perf_counter() - wall_s) * 100


def _resident_mib() -> float:
    gc.collect()
    return resident_mib()


# -- the clients --------------------------------------------------------------------


class Clients(Streams):
    """One ``PullClient`` each."""

    def __init__(self) -> None:
        super().__init__()
        self._clients: list[PullClient] = []
        self._running: list[asyncio.Task[None]] = []

    async def open(self, portal: str, tokens: Sequence[str], http: aiohttp.ClientSession) -> None:
        for token in tokens:
            pull = PullClient(AccessToken(portal, token), http=http)
            pull.on()(self._handle)
            self._clients.append(pull)
            self._running.append(asyncio.create_task(pull.run()))

    async def _handle(self, event: PullEvent) -> None:
        self.received += 1

    @property
    def live(self) -> int:
        return sum(pull.state is State.LIVE for pull in self._clients)

    async def close(self) -> None:
        await asyncio.gather(*(pull.close(drain=0) for pull in self._clients))
        await asyncio.gather(*self._running)


# -- the bare connections -----------------------------------------------------------


class BareConnections(Streams):
    """One WebSocket each, read by a task."""

    def __init__(self) -> None:
        super().__init__()
        self._live = 0
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._reading: list[asyncio.Task[None]] = []

    async def open(self, portal: str, tokens: Sequence[str], http: aiohttp.ClientSession) -> None:
        self._reading += [asyncio.create_task(self._serve(portal, token, http)) for token in tokens]

    async def _serve(self, portal: str, token: str, http: aiohttp.ClientSession) -> None:
        async with http.post(f"{portal}/rest/pull.application.config.get", json={"auth": token}) as response:
            config = (await response.json())["result"]
        channels = config["channels"]
        address = subscription_url(
            config["server"]["websocket"],
            [channels["private"]["id"], channels["shared"]["id"]],
            WireFormat.PROTOBUF,
        )
        while True:
            async with self._gate:
                socket = await self._connect(address)
            self._live += 1
            with suppress(ConnectionClosed):
                await self._receive(socket)
            self._live -= 1

    async def _connect(self, address: str) -> ClientConnection:
        while True:
            try:
                return await connect(address, compression=None, ping_interval=_PING_INTERVAL_S)
            except OSError:
                await asyncio.sleep(0.1)

    async def _receive(self, socket: ClientConnection) -> None:
        while True:
            batch = push_pb2.ResponseBatch()
            batch.ParseFromString(await socket.recv(decode=False))
            for response in batch.responses:
                self.received += len(response.outgoingMessages.messages)

    @property
    def live(self) -> int:
        return self._live

    async def close(self) -> None:
        for task in self._reading:
            task.cancel()
        await asyncio.wait(self._reading)


# -- the server ---------------------------------------------------------------------


class CrowdServer:
    """An emulator in another process; see ``crowd_server``."""

    def __init__(self, process: asyncio.subprocess.Process, ready: dict[str, Any]) -> None:
        self._process = process
        self.portal: str = ready["portal"]
        self.tokens: list[str] = ready["tokens"]

    async def do(self, command: str) -> dict[str, Any]:
        """Let it obey a command; return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())
        return await _answer(self._process)


@asynccontextmanager
async def _crowd_server(count: int) -> AsyncIterator[CrowdServer]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.benchmarks.crowd_server", str(count)),
        stdin=pipe,
        stdout=pipe,
        limit=64 * 1024 * 1024,  # All tokens come in one line.
    )
    try:
        yield CrowdServer(process, await _answer(process))
    finally:
        process.terminate()
        await process.wait()


async def _answer(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    answer: dict[str, Any] = json.loads(await process.stdout.readline())
    return answer
