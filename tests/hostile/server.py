"""A portal, an OAuth server and a push server at one loopback address, which behave until told not to."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

from bitrix_pull.wire.formats import WireFormat, format_of
from tests.connection.stand_ins import DATE_UNIX, PRIVATE_ID, SHARED_ID, http_answer, tcp_server
from tests.hostile.victim import CALM
from tests.hostile.websocket import BINARY, TEXT, Peer, frame, handshake
from tests.wire.test_codecs import WRITERS, Written, body

Door = Literal["rest", "oauth", "websocket", "poll", "options"]
DOORS: tuple[Door, ...] = ("rest", "oauth", "websocket", "poll", "options")

Strike = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Answers one request, whose head was read, in the worst of manners."""


class HostileServer:
    """Serves well but for what ``strike`` plans.

    Attributes:
        address: ``HOST:PORT``.
        format: How its frames are written.
        config: What the portal answers.
        requests: How many came to each door.
        mids: The resume points that the client came with.
        peers: The open WebSockets, the oldest first.
        greeting: The body of the message that each new WebSocket begins with.
    """

    def __init__(self, version: int = 4, *, protobuf: bool = True, polling: bool = False) -> None:
        """Be a push server of a version."""
        self.format = format_of(version, protobuf=protobuf)
        self.address = ""
        self.config: dict[str, Any] = {}
        self.requests: dict[Door, int] = dict.fromkeys(DOORS, 0)
        self.mids: list[str] = []
        self.peers: list[Peer] = []
        self._version = version
        self._polling = polling
        self._strikes: list[tuple[str, Strike]] = []
        self._numbers = itertools.count(1)
        self.greeting = body({}, command=CALM)
        self._polled: asyncio.Queue[bytes] = asyncio.Queue()

    def open_at(self, address: str) -> None:
        """Take note of the address, and make a configuration that leads there."""
        self.address = address
        server: dict[str, Any] = {"version": self._version, "server_enabled": True}
        if self._polling:
            server["long_polling_secure"] = f"http://{address}/sub/"
        else:
            server["websocket_secure"] = f"ws://{address}/subws/"
        self.config = {
            "server": server,
            "channels": {"private": {"id": PRIVATE_ID, "public_id": "0" * 32}, "shared": {"id": SHARED_ID}},
            "publicChannels": {"1": {"user_id": 1, "public_id": "1" * 32}},
        }
        self._polled.put_nowait(self.event(CALM))

    # -- frames -------------------------------------------------------------------

    def next_mid(self) -> str:
        """Return an id that is newer than all before."""
        return f"1795313001{next(self._numbers):016}"

    def frame(self, *bodies: str) -> bytes:
        """Return a frame of messages with these bodies."""
        return WRITERS[self.format]([Written(self.next_mid(), text) for text in bodies])

    def event(self, command: str) -> bytes:
        """Return a frame of one event."""
        return self.frame(body({}, command=command))

    def pasted(self, text: str) -> bytes:
        """Return a frame of one message with this body, pasted in unread as servers do."""
        stand_in = body({}, command="stand-in")
        if self.format is WireFormat.PROTOBUF:
            return self.frame(text)
        return (
            self.frame(stand_in)
            .replace(json.dumps(json.loads(stand_in)).encode(), text.encode())
            .replace(stand_in.encode(), text.encode())
        )

    # -- what a test does -----------------------------------------------------------

    def strike(self, door: str, strike: Strike) -> None:
        """Let this befall the next request at a door."""
        self._strikes.append((door, strike))

    def say(self, payload: bytes) -> None:
        """Send a frame to whoever is connected; by polling, as the next poll's answer."""
        if self._polling:
            self._polled.put_nowait(payload)
        else:
            self.say_raw(frame(BINARY if self.format is WireFormat.PROTOBUF else TEXT, payload))

    def say_raw(self, data: bytes) -> None:
        """Send bytes below the WebSocket layer."""
        for peer in self.peers:
            peer.writer.write(data)

    def hang_up(self) -> None:
        """Cut every connection."""
        for peer in self.peers:
            peer.writer.close()

    def greet(self, command: str) -> None:
        """Say this to those who are connected and to those who come."""
        self.greeting = body({}, command=command)
        self.say(self.event(command))

    # -- serving ----------------------------------------------------------------------

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one request."""
        head = await reader.readuntil(b"\r\n\r\n")
        verb, target, _ = head.decode().split(" ", 2)
        door = _door(verb, target)
        self.requests[door] += 1
        _, has_mid, mid = target.partition("mid=")
        if has_mid:
            self.mids.append(mid.partition("&")[0])
        for planned in self._strikes:
            if planned[0] == door:
                self._strikes.remove(planned)
                await planned[1](head, reader, writer)
                return
        match door:
            case "rest":
                # Our own client sends a call's head and body together or one after the other.
                request = b"" if b"Content-Length: 0" in head else await reader.read(4096)
                writer.write(self._call(target, request))
            case "oauth":
                tokens = {"access_token": "fresh000", "refresh_token": "refresh1", "expires_in": 3600}
                writer.write(http_answer(200, json.dumps(tokens).encode()))
            case "options":
                writer.write(http_answer(200))
            case "poll":
                writer.write(http_answer(200, await self._polled.get()))
            case "websocket":
                await self._stream(head, reader, writer)
        await writer.drain()

    def _call(self, target: str, request: bytes) -> bytes:
        if b"expired0" in request:
            return http_answer(401, b'{"error":"expired_token","error_description":"expired"}')
        return rest_answer(self.config if "config.get" in target else True)

    async def _stream(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(handshake(head))
        peer = Peer(reader, writer)
        self.peers.append(peer)
        opcode = BINARY if self.format is WireFormat.PROTOBUF else TEXT
        writer.write(frame(opcode, self.frame(self.greeting)))
        try:
            await peer.serve()
        finally:
            self.peers.remove(peer)


def _door(verb: str, target: str) -> Door:
    for path, door in (("/rest/", "rest"), ("/oauth/", "oauth"), ("/subws/", "websocket")):
        if target.startswith(path):
            return door  # type: ignore[return-value]
    return "options" if verb == "OPTIONS" else "poll"


def rest_answer(result: object) -> bytes:
    """Return the HTTP answer of a portal."""
    return http_answer(200, json.dumps({"result": result, "time": {"finish": DATE_UNIX}}).encode())


@asynccontextmanager
async def hostile_server(version: int = 4, **settings: Any) -> AsyncIterator[HostileServer]:
    """Serve on loopback."""
    server = HostileServer(version, **settings)
    async with tcp_server(server.serve) as address:
        server.open_at(address)
        yield server
