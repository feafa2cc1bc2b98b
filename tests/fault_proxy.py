"""A TCP proxy on loopback that does to bytes what bad networks do, below HTTP."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

_LINGER_0_S = struct.pack("ii", 1, 0)
_CHUNK_BYTES = 65_536

End = Literal["fin", "reset", "silence"]


@dataclass(slots=True, kw_only=True)
class Weather:
    """What befalls one connection. Everything may be changed while it is open.

    Attributes:
        cut_after_bytes: How many bytes of the server still reach the client before the end.
        end: What that end looks like: a FIN, a reset, or nothing at all.
        to_server_lost: What the client sends goes nowhere; no FIN, no reset.
        to_client_lost: What the server sends goes nowhere.
        bytes_per_s: How fast the server's bytes trickle through; None: at once.
    """

    cut_after_bytes: int | None = None
    end: End = "fin"
    to_server_lost: bool = False
    to_client_lost: bool = False
    bytes_per_s: float | None = None

    @classmethod
    def black_hole(cls) -> "Weather":
        """Return the weather in which nothing passes, either way."""
        return cls(to_server_lost=True, to_client_lost=True)


class Line:
    """One proxied connection."""

    def __init__(
        self,
        weather: Weather,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.weather = weather
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server

    async def serve(self) -> None:
        """Carry bytes until one side has ended."""
        directions = [asyncio.create_task(self._upstream()), asyncio.create_task(self._downstream())]
        try:
            _, pending = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            if self.weather.to_client_lost and pending:
                # An end of the server that nobody on the other side gets to see.
                await asyncio.wait(pending)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.wait(directions)
            self._to_client.close()
            self._to_server.transport.abort()

    def abort(self) -> None:
        """Let go of both sides."""
        self._to_client.transport.abort()
        self._to_server.transport.abort()

    def cut(self, end: End = "fin") -> None:
        """End the connection now."""
        match end:
            case "fin":
                self._to_client.close()
            case "reset":
                _reset(self._to_client)
            case "silence":
                self.weather = Weather.black_hole()
                return
        self._to_server.transport.abort()

    async def _upstream(self) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await self._from_client.read(_CHUNK_BYTES):
                if not self.weather.to_server_lost:
                    self._to_server.write(chunk)
                    await self._to_server.drain()

    async def _downstream(self) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await self._from_server.read(_CHUNK_BYTES):
                await self._deliver(chunk)

    async def _deliver(self, chunk: bytes) -> None:
        limit = self.weather.cut_after_bytes
        if limit is not None:
            chunk = chunk[:limit]
            self.weather.cut_after_bytes = limit - len(chunk)
        step = len(chunk) if self.weather.bytes_per_s is None else 1
        for start in range(0, len(chunk), step or 1):
            if self.weather.to_client_lost:
                return
            self._to_client.write(chunk[start : start + step])
            await self._to_client.drain()
            if self.weather.bytes_per_s is not None:
                await asyncio.sleep(step / self.weather.bytes_per_s)
        if self.weather.cut_after_bytes == 0:
            self.weather.cut_after_bytes = None
            self.cut(self.weather.end)


class FaultProxy:
    """Listens on a port of its own and passes every connection on, as the weather allows."""

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None = None,
        *,
        at: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        """Pass connections on to this address; speak TLS to clients if there is a context for it.

        Listen ``at`` another address than a free port where somebody must find it there.
        """
        self._at = at
        self.target = (host, port)
        """Where connections to come are passed on to."""
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.lines: list[Line] = []
        """The connections that are open, the oldest first."""
        self.forecast: Callable[[], Weather] = Weather
        """Says the weather of each new connection."""

    @classmethod
    def before(cls, address: str, tls: ssl.SSLContext | None = None) -> "FaultProxy":
        """Return a proxy before ``HOST:PORT``."""
        host, port = address.rsplit(":", 1)
        return cls(host, int(port), tls)

    @property
    def address(self) -> str:
        """``HOST:PORT`` at which it listens."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    def cut_off(self) -> None:
        """Let nothing pass any more, either way, on the connections that there are and those to come."""
        self.forecast = Weather.black_hole
        for line in list(self.lines):
            line.cut("silence")

    def heal(self) -> None:
        """Let all pass that connects from now on; what was cut off is reset."""
        self.forecast = Weather
        for line in list(self.lines):
            line.cut("reset")

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, *self._at, ssl=self._tls)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for line in self.lines:
            line.abort()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._server.wait_closed()
        # What was just closed ends with the next step of the loop.
        await asyncio.sleep(0.01)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            upstream = await asyncio.open_connection(*self.target)
        except (OSError, asyncio.CancelledError):
            _reset(writer)
            self._tasks.discard(task)
            return
        line = Line(self.forecast(), (reader, writer), upstream)
        self.lines.append(line)
        try:
            # The streams module would report a cancellation as an error of this callback.
            with contextlib.suppress(asyncio.CancelledError):
                await line.serve()
        finally:
            self.lines.remove(line)
            self._tasks.discard(task)


def _reset(writer: asyncio.StreamWriter) -> None:
    endpoint: socket.socket | None = writer.get_extra_info("socket")
    if endpoint is not None and endpoint.fileno() >= 0:
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0_S)
    writer.transport.abort()
