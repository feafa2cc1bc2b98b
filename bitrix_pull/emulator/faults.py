"""How an emulator can be told to misbehave. Everything may be changed while it runs."""

import asyncio
import socket
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import Literal, NoReturn

WebSocketRefusal = int | Literal["reset", "black_hole"]

_LINGER_0_S = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class PushFaults:
    """Faults of the push server, and of what stands between it and its clients.

    Attributes:
        websocket_refusal: What becomes of WebSocket handshakes while polling works: an HTTP
            status (403, 404, 405, 426, 502, …) refuses them, "reset" resets the TCP
            connection, "black_hole" never answers. Who is connected stays so.
        refuse_channels: Every channel is a wrong one (4010), valid or not.
    """

    websocket_refusal: WebSocketRefusal | None = None
    refuse_channels: bool = False

    async def meet_handshake(self, transport: asyncio.Transport) -> int | None:
        """Return the status to refuse a WebSocket with, or None to let it pass.

        Where it gets no answer at all, this waits until the client has gone.
        """
        if isinstance(self.websocket_refusal, int | None):
            return self.websocket_refusal
        if self.websocket_refusal == "reset":
            _reset(transport)
        await _until_cancelled()


@dataclass(slots=True, frozen=True)
class RestFailure:
    """What the portal answers instead of doing what it is asked."""

    status: int
    body: str
    content_type: str


@dataclass(slots=True)
class PortalFaults:
    """Faults of the portal, or of what stands before it."""

    _failures: deque[RestFailure] = field(default_factory=deque[RestFailure])

    def fail_rest(
        self,
        times: int,
        status: int = 502,
        body: str = "<html><body>Bad Gateway</body></html>",
        content_type: str = "text/html",
    ) -> None:
        """Let the next REST calls fail, whatever they are, after those that shall fail already."""
        self._failures.extend([RestFailure(status, body, content_type)] * times)

    def next_rest_failure(self) -> RestFailure | None:
        """Return how the present call fails, if it does."""
        return self._failures.popleft() if self._failures else None


async def _until_cancelled() -> NoReturn:
    # As the handler of a request is when its connection has gone.
    while True:
        await asyncio.Event().wait()


def _reset(transport: asyncio.Transport) -> None:
    """End a TCP connection with a reset, where ``abort`` alone would end it politely."""
    # What asyncio gives out here has the methods of a socket, but is none by type.
    endpoint: socket.socket = transport.get_extra_info("socket")
    endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0_S)
    transport.abort()
