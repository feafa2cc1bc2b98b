"""Frames that were written beforehand, from a server in another process, to a callback."""

import asyncio
import importlib.util
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, Literal

import orjson
from websockets.asyncio.client import connect

from bitrix_pull import PullClient, PullEvent, PullOptions
from bitrix_pull.wire import push_pb2
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.text import CLOSING, OPENING
from tests.benchmarks.comparison import Comparison, Figures, peak_mib, resident_mib
from tests.benchmarks.flood import Load, command, flooding

Consumer = Literal["async handler", "sync handler", "async for", "async handler of 10 %"]
Loop = Literal["asyncio", "uvloop"]

_MESSAGES = 200_000
_KNOWN_MAX = 12_500
_KINDS = 100
_WANTED = 10
"""So many of those kinds."""

_VERSIONS = {WireFormat.TEXT: 3, WireFormat.PROTOBUF: 4, WireFormat.JSONRPC: 5}


def comparisons(scale: float) -> Iterable[Comparison]:
    """Frames to an async handler, a sync one and ``async for``, against the libraries' bare loop.

    Where uvloop is installed, the first loads come on it too: both sides run on the same loop.
    """
    protobuf, text, jsonrpc = WireFormat.PROTOBUF, WireFormat.TEXT, WireFormat.JSONRPC
    small = int(_MESSAGES * scale)
    large = small // 8

    def comparison(load: Load, consumer: Consumer = "async handler", loop: Loop = "asyncio") -> Comparison:
        size = f"{load.messages:,} of {load.body_bytes} B"
        name = f"{size}, {load.wire_format.name.lower()}, {load.per_frame} a frame, {consumer}, {loop}"
        return Comparison(name, partial(client, load, consumer, loop), partial(bare_loop, load, loop))

    loops: tuple[Loop, ...] = ("asyncio", "uvloop") if importlib.util.find_spec("uvloop") else ("asyncio",)
    for loop in loops:
        for per_frame in (1, 20, 100):
            yield comparison(Load(protobuf, small, per_frame), loop=loop)
    for consumer in ("sync handler", "async for"):
        yield comparison(Load(protobuf, small, 20), consumer)
    yield comparison(Load(protobuf, small, 20, kinds=_KINDS), "async handler of 10 %")
    for wire_format in (text, jsonrpc):
        for per_frame in (1, 20, 100):
            yield comparison(Load(wire_format, small, per_frame))
    for wire_format in (protobuf, text, jsonrpc):
        # A frame of 100 of them would be over the limit of a frame.
        for per_frame in (1, 20):
            yield comparison(Load(wire_format, large, per_frame, 16_384))
    # For what is held after a long time.
    yield comparison(Load(protobuf, 5 * small, 20))


class Meter:
    """Counts messages, and measures from the tenth part on."""

    def __init__(self, messages: int, share: int = 1) -> None:
        """Await so many messages, each of which stands for so many."""
        self.done = asyncio.Event()
        self._left = messages
        self._share = share
        self._counted = messages - max(messages // 10, 1)
        self._cpu_s = self._wall_s = self._resident_mib = 0.0
        self._grown_mib = self._peak_mib = 0.0

    def message(self, _: object) -> None:
        """Take note of a message."""
        left = self._left = self._left - 1
        if left == self._counted:
            self._resident_mib = resident_mib()
            self._cpu_s, self._wall_s = time.process_time(), time.perf_counter()
        elif not left:
            self._cpu_s = time.process_time() - self._cpu_s
            self._wall_s = time.perf_counter() - self._wall_s
            self._grown_mib, self._peak_mib = resident_mib() - self._resident_mib, peak_mib()
            self.done.set()

    def figures(self) -> Figures:
        """Return what was measured."""
        return {
            "cpu_us": self._cpu_s / (self._counted * self._share) * 1e6,
            "messages_per_s": self._counted * self._share / self._wall_s,
            "growth_mib": self._grown_mib,
            "peak_mib": self._peak_mib,
        }


def _run(main: Coroutine[Any, Any, Figures], loop: Loop) -> Figures:
    if loop == "asyncio":
        return asyncio.run(main)
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


# -- the client -------------------------------------------------------------------


def client(load: Load, consumer: Consumer, loop: Loop) -> Figures:
    """Let a ``PullClient`` receive."""
    return _run(_client(load, consumer), loop)


async def _client(load: Load, consumer: Consumer) -> Figures:
    # One counts for all that came since the one before.
    share = _KINDS // _WANTED if consumer == "async handler of 10 %" else 1
    meter = Meter(load.messages // share, share)
    async with flooding(load) as address:
        pull = PullClient(Portal(address, load.wire_format), options=PullOptions(start_timeout_s=60))
        match consumer:
            case "async handler":

                @pull.on()
                async def handle(event: PullEvent) -> None:
                    meter.message(event)

                async with pull:
                    await meter.done.wait()
            case "async handler of 10 %":

                @pull.on(*map(command, range(_WANTED)))
                async def handle_some(event: PullEvent) -> None:
                    meter.message(event)

                async with pull:
                    await meter.done.wait()
            case "sync handler":
                pull.on()(meter.message)
                async with pull:
                    await meter.done.wait()
            case "async for":
                async with pull.subscribe() as events, pull:
                    async for event in events:
                        meter.message(event)
                        if meter.done.is_set():
                            break
    return meter.figures()


class Portal:
    """A REST client whose portal knows one push server."""

    def __init__(self, address: str, wire_format: WireFormat, publish: str = "") -> None:
        self._config = {
            "server": {
                "version": _VERSIONS[wire_format],
                "server_enabled": True,
                "websocket": address,
                "publish_enabled": bool(publish),
                "publish": publish,
            },
            "channels": {"private": {"id": "1" * 32 + ":" + "2" * 32}, "shared": {"id": "3" * 32}},
        }

    async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
        """Answer the configuration."""
        return self._config


# -- the bare loop ----------------------------------------------------------------


def bare_loop(load: Load, loop: Loop) -> Figures:
    """Let the libraries alone receive: a socket, a parser, a dictionary of known ids."""
    return _run(_bare_loop(load), loop)


async def _bare_loop(load: Load) -> Figures:
    meter = Meter(load.messages)
    read = _READERS[load.wire_format]
    known: dict[object, None] = {}
    async with (
        flooding(load) as address,
        connect(address, compression=None, ping_interval=None, max_size=None) as socket,
    ):
        while not meter.done.is_set():
            frame = await socket.recv(decode=False)
            read(frame, known, meter.message)
            if len(known) > _KNOWN_MAX:
                known = dict(islice(known.items(), len(known) // 5, None))
    return meter.figures()


def _read_protobuf(frame: bytes, known: dict[object, None], callback: Callable[[Any], None]) -> None:
    batch = push_pb2.ResponseBatch()
    batch.ParseFromString(frame)
    for response in batch.responses:
        for message in response.outgoingMessages.messages:
            mid = message.id
            if mid not in known:
                known[mid] = None
                callback(orjson.loads(message.body))


def _read_text(frame: bytes, known: dict[object, None], callback: Callable[[Any], None]) -> None:
    for envelope in _envelopes(frame):
        mid = envelope["mid"]
        if mid not in known:
            known[mid] = None
            callback(envelope["text"])


def _envelopes(frame: bytes) -> Iterator[Any]:
    start = 0
    while start < len(frame):
        start += len(OPENING)
        end = frame.index(CLOSING, start)
        yield orjson.loads(frame[start:end])
        start = end + len(CLOSING)


def _read_jsonrpc(frame: bytes, known: dict[object, None], callback: Callable[[Any], None]) -> None:
    content = orjson.loads(frame)
    for request in content if isinstance(content, list) else [content]:
        params = request["params"]
        mid = params["mid"]
        if mid not in known:
            known[mid] = None
            callback(params["body"])


_READERS = {
    WireFormat.PROTOBUF: _read_protobuf,
    WireFormat.TEXT: _read_text,
    WireFormat.JSONRPC: _read_jsonrpc,
}
