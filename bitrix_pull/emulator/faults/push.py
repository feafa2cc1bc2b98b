"""Faults of the push server, and of what stands between it and its clients."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NoReturn

from bitrix_pull.emulator.faults.connection import ConnectionFaults
from bitrix_pull.emulator.faults.line import Line
from bitrix_pull.emulator.faults.publishing import PublishFault

if TYPE_CHECKING:
    from bitrix_pull.emulator.subscribers import Subscriber

WebSocketRefusal = int | Literal["reset", "black_hole"]


@dataclass(slots=True)
class PushFaults:
    """Faults of the push server, and of what stands between it and its clients.

    What the history loses is told by ``PushServer.drop_history``.

    Attributes:
        websocket_refusal: What becomes of WebSocket handshakes while polling works: an HTTP
            status (403, 404, 405, 426, 502, …) refuses them, "reset" resets the TCP
            connection, "black_hole" never answers. Who is connected stays so.
        refuse_channels: Every channel is a wrong one (4010), valid or not.
        replay_race: Called with each subscriber after its history was read and before it is
            registered: what is published meanwhile, it neither gets replayed nor sent.
        publishing: Says what befalls each request of a client, by its number from 0 on; None
            for those that are served well.
        script: Says what befalls each WebSocket, by its number from 0 on: the same script
            makes the same faults.
    """

    websocket_refusal: WebSocketRefusal | None = None
    refuse_channels: bool = False
    replay_race: "Callable[[Subscriber], object] | None" = None
    publishing: Callable[[int], PublishFault | None] | None = None
    script: Callable[[int], ConnectionFaults] | None = None
    _published: int = 0
    _scripted: int = 0

    async def meet_handshake(self, line: Line) -> int | None:
        """Return the status to refuse a WebSocket with, or None to let it pass.

        Where it gets no answer at all, this waits until the client has gone.
        """
        if isinstance(self.websocket_refusal, int | None):
            return self.websocket_refusal
        if self.websocket_refusal == "reset":
            line.end("reset")
        await _until_cancelled()

    def next_publishing(self) -> PublishFault | None:
        """Return what befalls the request that has just come, if anything."""
        if self.publishing is None:
            return None
        number, self._published = self._published, self._published + 1
        return self.publishing(number)

    def next_connection(self) -> ConnectionFaults:
        """Return what befalls the WebSocket that is being opened."""
        if self.script is None:
            return ConnectionFaults()
        number, self._scripted = self._scripted, self._scripted + 1
        return self.script(number)


async def _until_cancelled() -> NoReturn:
    # As the handler of a request is when its connection has gone.
    while True:
        await asyncio.Event().wait()
