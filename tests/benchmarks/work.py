"""Pieces of the hot path, each of which does the same for so many messages however fast the machine is.

Sender and receiver share one thread and take turns: the next block is sent when the last one was
handled, and each is small enough to cross the loopback as a whole. So neither the scheduler nor
what else the machine does changes how often anything is read, and it can be counted.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

import aiohttp

from bitrix_pull import Message, PullClient, PullEvent, PullOptions
from bitrix_pull.wire.formats import WireFormat
from tests.benchmarks import handlers
from tests.benchmarks.flood import Load, command
from tests.benchmarks.frame_server import Block, discard, shake_hands
from tests.benchmarks.receive import Portal

Work = Callable[[int], object]
"""Does it for so many messages, a multiple of ``A_BLOCK``."""

A_BLOCK: Final = 20
_PATIENT = PullOptions(start_timeout_s=600, connect_timeout_s=300, rest_timeout_s=300)
"""Under valgrind all takes fifty times as long."""

_A_REQUEST = 100
_PUBLIC = "2" * 32 + "." + "4" * 40


def receive(load: Load, count: int, wanted_kinds: int | None = None) -> None:
    """Let a ``PullClient`` receive messages in blocks, and give those of some kinds to an async handler."""
    asyncio.run(_receive(load, count, wanted_kinds))


async def _receive(load: Load, count: int, wanted_kinds: int | None) -> None:
    block = Block(load)
    commands = [command(kind) for kind in range(wanted_kinds or 0)]
    # All kinds are in a block, each as often as the others.
    share = block.messages * wanted_kinds // load.kinds if wanted_kinds else block.messages
    handled = 0
    taken = asyncio.Event()
    done = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await shake_hands(reader, writer)
        discarding = asyncio.create_task(discard(reader))
        for number in range(count // block.messages):
            writer.write(block.numbered(number))
            await taken.wait()
            taken.clear()
        done.set()
        await discarding
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        pull = PullClient(Portal(f"ws://{host}:{port}/subws/", load.wire_format), options=_PATIENT)

        @pull.on(*commands)
        async def handle(event: PullEvent) -> None:
            nonlocal handled
            handled += 1
            if not handled % share:
                taken.set()

        async with pull:
            await done.wait()
    assert handled == count * share // block.messages


def publish(count: int) -> None:
    """Let a ``PullClient`` publish messages by the endpoint; making them is part of it."""
    asyncio.run(_publish(count))


async def _publish(count: int) -> None:
    loop = asyncio.get_running_loop()
    async with await loop.create_server(_Endpoint, "127.0.0.1", 0) as server, aiohttp.ClientSession() as http:
        host, port = server.sockets[0].getsockname()
        portal = Portal(f"ws://{host}:{port}/subws/", WireFormat.PROTOBUF, f"http://{host}:{port}/pub/")
        pull = PullClient(portal, http=http, options=_PATIENT)
        for start in range(0, count, _A_REQUEST):
            numbers = range(start, min(start + _A_REQUEST, count))
            messages = [
                Message("order_update", {"id": n, "status": "paid"}, channels=_PUBLIC) for n in numbers
            ]
            receipt = await pull.publish_many(messages, route="endpoint")
            assert not receipt.failures
        await pull.close()


class _Endpoint(asyncio.Protocol):
    """Accepts whatever is posted, as soon as all of it is there."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if end and len(body) >= int(length):
            self._received.clear()
            assert self._transport is not None
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


WORK: dict[str, tuple[Work, int]] = {
    "receive, 1 a frame": (partial(receive, Load(WireFormat.PROTOBUF, A_BLOCK, 1)), 600),
    "receive, 20 a frame": (partial(receive, Load(WireFormat.PROTOBUF, A_BLOCK, 20)), 1_000),
    "receive, 20 a frame, 10 % wanted": (
        partial(receive, Load(WireFormat.PROTOBUF, A_BLOCK, 20, kinds=A_BLOCK), wanted_kinds=2),
        1_000,
    ),
    "dispatch": (partial(handlers.run, handlers.plain), 4_000),
    "publish": (publish, 600),
}
"""Each by its name, with how many messages are enough to count it."""
