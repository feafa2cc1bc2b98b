"""Who listens on which channel, by WebSocket or by a poll that hangs (protocol §4)."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Literal

from aiohttp import web

from bitrix_pull.emulator.channels import Subscription
from bitrix_pull.emulator.faults import Line
from bitrix_pull.emulator.frames import KEEP_ALIVE, Outgoing, join, websocket_frame
from bitrix_pull.wire.close_codes import ServerClose
from bitrix_pull.wire.formats import WireFormat

_OVERTAKEN_MAX_S = 1.0
"""How long a message waits to be overtaken by another one."""


class Subscriber(ABC):
    """One connection that listens on some channels.

    Attributes:
        number: Of all connections of its server, from 1 on; 0 before it is let in.
    """

    transport: Literal["websocket", "poll"]

    def __init__(
        self,
        channels: Sequence[Subscription],
        wire_format: WireFormat,
        line: Line,
    ) -> None:
        self.channels = channels
        self.wire_format = wire_format
        self.line = line
        self.number = 0

    @property
    def ids(self) -> list[bytes]:
        """Raw ids of all channels whose messages it gets."""
        return [channel_id for channel in self.channels for channel_id in channel.ids]

    @abstractmethod
    def send(self, outgoing: Outgoing) -> None:
        """Send messages. Never waits: what a slow reader leaves lying stays in the socket's buffer."""

    @abstractmethod
    async def close(self, code: int, reason: str) -> None:
        """End the connection as the protocol does it."""

    def abort(self) -> None:
        """End the connection without a word, as a dying network does."""
        self.line.abort()


class WebSocketSubscriber(Subscriber):
    """A WebSocket.

    A first message goes out at once; what follows within the next ``gather_s`` seconds
    goes out in one frame at their end (protocol §4).
    """

    transport: Literal["websocket", "poll"] = "websocket"

    def __init__(
        self,
        channels: Sequence[Subscription],
        wire_format: WireFormat,
        line: Line,
        websocket: web.WebSocketResponse,
        gather_s: float,
    ) -> None:
        super().__init__(channels, wire_format, line)
        self._websocket = websocket
        self._gather_s = gather_s
        self._gathered: list[bytes] = []
        self._gathering: asyncio.TimerHandle | None = None
        self._overtaken: Outgoing | None = None
        self._overtaking: asyncio.TimerHandle | None = None
        self._frames = 0
        self._closing: asyncio.Task[None] | None = None

    def send(self, outgoing: Outgoing) -> None:
        """Send messages at once, or with others at the end of the time of gathering."""
        faults = self.line.faults
        overtaken = self._take_overtaken()
        if overtaken is None and faults.happens(faults.overtaken):
            self._overtaken = outgoing
            self._overtaking = asyncio.get_running_loop().call_later(_OVERTAKEN_MAX_S, self._send_overtaken)
            return
        self._send(outgoing)
        if overtaken is not None:
            self._send(overtaken)

    def _send(self, outgoing: Outgoing) -> None:
        if self._gathering is None:
            self._write(outgoing.websocket_frame(self.wire_format))
        else:
            self._gathered.append(outgoing.chunk(self.wire_format))

    def _send_overtaken(self) -> None:
        if (overtaken := self._take_overtaken()) is not None:
            self._send(overtaken)

    def _take_overtaken(self) -> Outgoing | None:
        """Return what the message that is sent now has overtaken, if anything."""
        overtaken, self._overtaken = self._overtaken, None
        if self._overtaking is not None:
            self._overtaking.cancel()
            self._overtaking = None
        return overtaken

    def answer(self, chunk: bytes) -> None:
        """Send the answer to a request; it is gathered with messages like another one."""
        if self._gathering is None:
            self._write(websocket_frame(self.wire_format, [chunk]))
        else:
            self._gathered.append(chunk)

    async def close(self, code: int, reason: str) -> None:
        """Close with a code, and wait for the client to agree."""
        self.stop()
        await self._websocket.close(code=code, message=reason.encode())

    def stop(self) -> None:
        """Drop what has not gone out yet: the connection is over."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        self._gathered.clear()
        self._take_overtaken()

    def _write(self, frame: bytes) -> None:
        # Straight to the transport: WebSocketResponse.send_bytes() is a coroutine and
        # writes each frame anew, which thousands of subscribers to one message cannot afford.
        self._put(frame)
        gather_s = self.line.faults.gather_s
        self._gathering = asyncio.get_running_loop().call_later(
            self._gather_s if gather_s is None else gather_s, self._flush
        )

    def _put(self, frame: bytes) -> None:
        faults = self.line.faults
        for piece in faults.pieces(frame):
            self.line.write(piece)
        self._frames += 1
        if self._frames == faults.close_after_frames:
            closing = self.close(faults.close_code, "as the faults have it")
            self._closing = asyncio.create_task(closing)

    def _flush(self) -> None:
        self._gathering = None
        if self._gathered:
            self._put(websocket_frame(self.wire_format, self._gathered))
            self._gathered.clear()


class PushStreamSubscriber(WebSocketSubscriber):
    """A WebSocket of version 2, which is nginx with a module: it pings, and looks at no pong."""

    def __init__(
        self,
        channels: Sequence[Subscription],
        wire_format: WireFormat,
        line: Line,
        websocket: web.WebSocketResponse,
        gather_s: float,
        ping_interval_s: float,
    ) -> None:
        super().__init__(channels, wire_format, line, websocket, gather_s)
        self._ping_interval_s = ping_interval_s
        self._pinging = asyncio.get_running_loop().call_later(ping_interval_s, self._ping)

    def stop(self) -> None:
        """Stop pinging, and drop what has not gone out yet."""
        self._pinging.cancel()
        super().stop()

    def _ping(self) -> None:
        for frame in KEEP_ALIVE:
            self.line.write(frame)
        self._pinging = asyncio.get_running_loop().call_later(self._ping_interval_s, self._ping)


class PollSubscriber(Subscriber):
    """A request that hangs until there is something to answer."""

    transport: Literal["websocket", "poll"] = "poll"

    def __init__(
        self,
        channels: Sequence[Subscription],
        wire_format: WireFormat,
        line: Line,
    ) -> None:
        super().__init__(channels, wire_format, line)
        self.answered: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        """HTTP status and body, once they are known."""

    def send(self, outgoing: Outgoing) -> None:
        """Answer the request. Whatever comes after that passes this poll by."""
        if not self.answered.done():
            self.answered.set_result((200, join(self.wire_format, [outgoing.chunk(self.wire_format)])))

    async def close(self, code: int, reason: str) -> None:
        """Answer the request with an error."""
        if not self.answered.done():
            status = 429 if code == ServerClose.TOO_MANY_CONNECTIONS else 400
            self.answered.set_result((status, (reason or str(code)).encode()))


class Registry:
    """The subscribers of every channel, the oldest first."""

    def __init__(self) -> None:
        # Dicts are sets that keep their order here.
        self._by_channel: dict[bytes, dict[Subscriber, None]] = {}
        self._all: dict[Subscriber, None] = {}
        self._last_number = 0

    @property
    def subscribers(self) -> list[Subscriber]:
        """Everyone who is connected."""
        return list(self._all)

    @property
    def channels(self) -> int:
        """How many channels have subscribers."""
        return len(self._by_channel)

    def add(self, subscriber: Subscriber) -> None:
        """Let the subscriber get what is sent from now on."""
        self._last_number += 1
        subscriber.number = self._last_number
        self._all[subscriber] = None
        for channel_id in subscriber.ids:
            self._by_channel.setdefault(channel_id, {})[subscriber] = None

    def remove(self, subscriber: Subscriber) -> bool:
        """Send nothing more to it. Return False if it is not there."""
        was_there = subscriber in self._all
        self._all.pop(subscriber, None)
        for channel_id in subscriber.ids:
            if (subscribers := self._by_channel.get(channel_id)) is not None:
                subscribers.pop(subscriber, None)
                if not subscribers:
                    del self._by_channel[channel_id]
        return was_there

    def on(self, channel_id: bytes) -> Iterable[Subscriber]:
        """Return who listens on one channel."""
        return self._by_channel.get(channel_id, ())

    def on_any(self, channel_ids: Sequence[bytes]) -> Iterable[Subscriber]:
        """Return who listens on at least one of the channels, each of them once."""
        if len(channel_ids) == 1:
            return self.on(channel_ids[0])
        return dict.fromkeys(subscriber for channel_id in channel_ids for subscriber in self.on(channel_id))

    def count(self, kind: type[Subscriber]) -> int:
        """How many subscribers are of a kind."""
        return sum(isinstance(subscriber, kind) for subscriber in self._all)
