"""Portals and push servers that do what a test tells them, byte by byte where need be."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

from websockets.exceptions import InvalidState
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from bitrix_pull.emulator import Emulator
from bitrix_pull.wire import push_pb2
from tests.connection.listening import Listener

PRIVATE_ID = "canary00private0000000000000000a:canary00public00000000000000000.canary00signature"
SHARED_ID = "canary00shared00000000000000000b.canary00signature"
CANARY = "canary00"
"""Stands in every channel id of a stand-in: no log and no error may hold it."""

DATE_UNIX = 1_800_000_000
"""What a stand-in's clock always shows."""

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class StandInPortal:
    """A REST client of the user's own whose portal answers one configuration.

    Attributes:
        config: What it answers; may be changed at any time.
        calls: The methods that were called.
    """

    def __init__(self, **server: Any) -> None:
        """Answer with a push server of version 4 that is described by ``server``."""
        self.config: dict[str, Any] = {
            "server": {"version": 4, "server_enabled": True, **server},
            "channels": {"private": {"id": PRIVATE_ID, "public_id": "0" * 32}, "shared": {"id": SHARED_ID}},
            "publicChannels": {"1": {"user_id": 1, "public_id": "1" * 32}},
        }
        self.calls: list[str] = []

    async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
        self.calls.append(method)
        return self.config


class AlteredPortal:
    """A REST client of the user's own that alters what an emulator's portal answers."""

    def __init__(self, emulator: Emulator, **server: Any) -> None:
        """Answer the emulator's configuration with these fields of ``server`` replaced."""
        self._emulator = emulator
        self.server = server
        self.calls: list[str] = []

    async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
        self.calls.append(method)
        config = self._emulator.portal.config("application", 1)
        config["server"] |= self.server
        return config


def listener_of(portal: StandInPortal, **options: Any) -> Listener:
    """Return a listener on a stand-in portal."""
    # The emulator is only asked for an address and a token, which are not used.
    return Listener(Emulator(), auth=portal, **options)


@asynccontextmanager
async def tcp_server(answer: Answer) -> AsyncIterator[str]:
    """Serve ``answer`` on loopback; give ``HOST:PORT``. At the end every connection is cut."""
    connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections[task] = writer
        try:
            # Cancelled by the end of this server alone; streams would log that as an error.
            with contextlib.suppress(OSError, EOFError, InvalidState, asyncio.CancelledError):
                await answer(reader, writer)
        finally:
            del connections[task]
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        server.close()
        tasks = list(connections)
        for task in tasks:
            connections[task].transport.abort()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read what comes until the client goes, and never answer."""
    while await reader.read(65_536):
        pass


def send(*parts: bytes) -> Answer:
    """Return what waits for a request, sends these bytes whatever it was, and hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"".join(parts))
        await writer.drain()

    return answer


def http_answer(status: int, body: bytes = b"", *headers: str) -> bytes:
    """Return a whole HTTP answer that ends its connection."""
    lines = [
        f"HTTP/1.1 {status} Whatever",
        f"Date: {formatdate(DATE_UNIX, usegmt=True)}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class WebSocketPeer:
    """The server's end of a WebSocket; nothing goes out unless a test says so."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol = ServerProtocol()
        self.path = ""
        """What was asked for: path and query."""

    async def accept(self) -> None:
        """Complete the handshake."""
        while self._protocol.state is State.CONNECTING:
            await self.receive()
            for event in self._protocol.events_received():
                assert isinstance(event, Request)
                self.path = event.path
                self._protocol.send_response(self._protocol.accept(event))
        self.flush()

    async def receive(self) -> bool:
        """Read something; pongs and the like are then ready to be flushed. False: the client has gone."""
        received = await self._reader.read(65_536)
        if received:
            self._protocol.receive_data(received)
        return bool(received)

    def take_ready(self) -> bytes:
        """Return what is ready instead of sending it."""
        return b"".join(self._protocol.data_to_send())

    def flush(self) -> None:
        """Send what is ready."""
        self._writer.write(self.take_ready())

    def send(self, frame: bytes, *, text: bool = False) -> None:
        """Make a frame ready to be sent."""
        if text:
            self._protocol.send_text(frame)
        else:
            self._protocol.send_binary(frame)

    def close(self, code: int, reason: str = "") -> None:
        """Make a close frame ready to be sent."""
        self._protocol.send_close(code, reason)

    def hang_up(self) -> None:
        """End the connection without a close frame."""
        self._writer.close()

    async def serve(self) -> None:
        """Answer pings and the like at once until the client goes."""
        while await self.receive():
            self.flush()


def protobuf_frame(*numbers: int, padding_bytes: int = 0, created: int = DATE_UNIX) -> bytes:
    """Return a frame of events ``x`` of the portal with these numbers."""
    batch = push_pb2.ResponseBatch()
    messages = batch.responses.add().outgoingMessages.messages
    for number in numbers:
        message = messages.add()
        message.id = bytes.fromhex(f"1800000000{number:016}")
        content = {"module_id": "application", "command": "x", "params": {"n": number}}
        message.body = json.dumps({**content, "padding": "x" * padding_bytes}).encode()
        message.created = created
        message.expiry = 86_400
        message.sender.type = push_pb2.BACKEND
    return batch.SerializeToString()
