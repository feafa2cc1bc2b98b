"""A push server that floods each WebSocket with frames written beforehand; ``flood.py`` starts it."""

import asyncio
import contextlib
import json
import math
import pickle
import sys
import time

from websockets.http11 import Request
from websockets.server import ServerProtocol

from bitrix_pull.emulator.frames import Outgoing, websocket_frame
from bitrix_pull.emulator.history import Message
from bitrix_pull.wire.formats import WireFormat
from tests.benchmarks.flood import Load, command

EPOCH = str(int(time.time()))
"""With what a mid begins: the time when the server was started."""

_BLOCK_MARK = "77777777"
_BLOCK_MESSAGES = 2_000
_STRIDE = 37
"""It has no divisor in common with a number of kinds that is used here."""

_CLOSE_HEAD = b"\x88\x82"
"""How a client's close frame begins that holds a code and nothing else: 8 bytes in all."""


async def _serve(load: Load) -> None:
    block = Block(load)
    blocks = math.ceil(load.messages / block.messages)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await shake_hands(reader, writer)
        discarding = asyncio.create_task(discard(reader))
        with contextlib.suppress(OSError):
            for number in range(blocks):
                writer.write(block.numbered(number))
                await writer.drain()
            await discarding
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"ws://{host}:{port}/subws/", flush=True)  # noqa: T201
    await server.serve_forever()


async def shake_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a client's handshake."""
    protocol = ServerProtocol()
    protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
    (request,) = protocol.events_received()
    assert isinstance(request, Request)
    protocol.send_response(protocol.accept(request))
    writer.write(b"".join(protocol.data_to_send()))


async def discard(reader: asyncio.StreamReader) -> None:
    """Read what the client sends until it wants to go."""
    while received := await reader.read(65_536):
        if received[-8:-6] == _CLOSE_HEAD:
            return


class Block:
    """The frames of some messages, which are written once and sent under new mids each time.

    Attributes:
        messages: How many there are in it.
    """

    def __init__(self, load: Load) -> None:
        """Write the frames."""
        most = min(_BLOCK_MESSAGES, load.messages, 8_000_000 // load.body_bytes)
        self.messages: int = max(most // load.per_frame, 1) * load.per_frame
        self._wire_format = load.wire_format
        self._mark = self._digits(_BLOCK_MARK)
        bodies = [_body(load.body_bytes, command(kind)) for kind in range(load.kinds)]
        messages = [
            Message(f"{EPOCH}{_BLOCK_MARK}{number:08}", bodies[_kind(number, load)], float(EPOCH), 86_400)
            for number in range(self.messages)
        ]
        chunks = [Outgoing([message], float(EPOCH)).chunk(load.wire_format) for message in messages]
        self._template = b"".join(
            websocket_frame(load.wire_format, chunks[start : start + load.per_frame])
            for start in range(0, len(chunks), load.per_frame)
        )

    def numbered(self, number: int) -> bytes:
        """Return the frames, whose mids all hold the number of the block."""
        return self._template.replace(self._mark, self._digits(f"{number:08}"))

    def _digits(self, block: str) -> bytes:
        digits = EPOCH + block
        return bytes.fromhex(digits) if self._wire_format is WireFormat.PROTOBUF else digits.encode()


def _kind(number: int, load: Load) -> int:
    """Return the kind of a message: they come in no order, and all of them in as many messages."""
    return number * _STRIDE % load.kinds


def _body(size: int, command: str) -> bytes:
    """Return a body of a size, as a portal writes it: some fields, a list of small objects."""
    goods: list[dict[str, object]] = []
    params = {"id": 1234, "status": "paid", "total": 1999.5, "goods": goods, "comment": ""}
    extra = {
        "server_time": "2027-01-15T11:00:00+03:00",
        "server_time_unix": float(EPOCH),
        "server_name": "portal.example",
        "revision_web": 19,
        "revision_mobile": 3,
    }
    content = {"module_id": "application", "command": command, "params": params, "extra": extra}

    def written() -> bytes:
        return json.dumps(content, separators=(",", ":")).encode()

    while len(written()) + 120 <= size:
        goods.append({"id": len(goods), "name": f"Product {len(goods)}", "price": 199.9, "in_stock": True})
    params["comment"] = "x" * (size - len(written()))
    return written()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(pickle.load(sys.stdin.buffer)))
