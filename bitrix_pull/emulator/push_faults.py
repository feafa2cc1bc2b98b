"""Faults of the push server, and of what stands between it and its clients."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NoReturn, TypeVar

from bitrix_pull.emulator.faults import ConnectionFaults, Line, PublishFault
from bitrix_pull.emulator.subscribers import Subscriber


@dataclass(slots=True, frozen=True)
class ClosedAtOnce:
    """A handshake that is answered with 101, and followed by a close frame."""

    code: int = 1008
    reason: str = ""


WebSocketRefusal = int | ClosedAtOnce | Literal["reset", "black_hole"]
PollRefusal = int | Literal["reset", "black_hole"]


@dataclass(slots=True)
class PushFaults:
    """Faults of the push server, and of what stands between it and its clients.

    What the history loses is told by ``PushServer.drop_history``, what becomes of the
    mids by ``PushServer.flush`` and ``restore``.

    Attributes:
        websocket_refusal: What becomes of WebSocket handshakes while polling works: an HTTP
            status (200, 302, 403, 426, 502, …) refuses them, "reset" resets the TCP
            connection, "black_hole" never answers, ``ClosedAtOnce`` takes and closes them.
            Who is connected stays so.
        poll_refusal: The same for polls, while the WebSocket works; without the last.
        refuse_channels: Every channel is a wrong one (4010), valid or not.
        ignore_token_ends: Tokens of version 5 are taken past their end too. Channels of
            other versions always are: the reference server does not know when they end.
        keeps_nothing: The history keeps nothing of what is published, as with a Redis that has no
            memory left for it.
        replay_race: Called with each subscriber after its history was read and before it is
            registered: what is published meanwhile, it neither gets replayed nor sent.
        publishing: Says what befalls each request of a client, by its number from 0 on; None
            for those that are served well.
        script: Says what befalls each WebSocket, by its number from 0 on: the same script
            makes the same faults.
        poll_script: The same for each poll; only what concerns bytes is of use there.
    """

    websocket_refusal: WebSocketRefusal | None = None
    poll_refusal: PollRefusal | None = None
    refuse_channels: bool = False
    ignore_token_ends: bool = False
    keeps_nothing: bool = False
    replay_race: Callable[[Subscriber], object] | None = None
    publishing: Callable[[int], PublishFault | None] | None = None
    script: Callable[[int], ConnectionFaults] | None = None
    poll_script: Callable[[int], ConnectionFaults] | None = None
    _published: int = 0
    _scripted: int = 0
    _polls: int = 0

    async def meet_handshake(self, line: Line) -> int | ClosedAtOnce | None:
        """Return how to refuse a WebSocket, or None to let it pass.

        Where it gets no answer at all, this waits until the client has gone.
        """
        return await _refuse(self.websocket_refusal, line)

    async def meet_poll(self, line: Line) -> int | None:
        """Return the status to refuse a poll with, or None to let it pass; waits as for handshakes."""
        return await _refuse(self.poll_refusal, line)

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

    def next_poll(self) -> ConnectionFaults:
        """Return what befalls the answer to the poll that has come."""
        if self.poll_script is None:
            return ConnectionFaults()
        number, self._polls = self._polls, self._polls + 1
        return self.poll_script(number)


_Answer = TypeVar("_Answer", bound=int | ClosedAtOnce)


async def _refuse(refusal: _Answer | Literal["reset", "black_hole"] | None, line: Line) -> _Answer | None:
    if refusal is None or not isinstance(refusal, str):
        return refusal
    if refusal == "reset":
        line.end("reset")
    await _until_cancelled()


async def _until_cancelled() -> NoReturn:
    # As the handler of a request is when its connection has gone.
    while True:
        await asyncio.Event().wait()
