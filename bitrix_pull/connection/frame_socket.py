"""A WebSocket whose frames wait in a queue, and cost no task, timer or future each."""

import asyncio
import contextlib
import math
import os
import socket
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from struct import iter_unpack
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.frames import Frame, Opcode
from websockets.protocol import Event, State

from bitrix_pull.connection.frame_reader import TURN_BYTES, Part
from bitrix_pull.connection.heartbeat import Heartbeat

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover
    from websockets.utils import apply_mask

_UNREAD_MAX_BYTES = 256 * 1024
"""From how many bytes of unread frames on the reading stops."""

_UNREAD_MIN_BYTES = 64 * 1024
"""How few must be left before it goes on."""

_FRAME_BYTES = 64
"""What a frame counts for beside its content."""

_SIGN_OF_LIFE_BYTES = 16 * 1024
"""How much of a frame that is still coming counts as heard from the server."""

_HANDED_ON_BYTES = 4 * 1024
"""How much the library gets at a time of what it has to parse by itself."""

_CROWD = 1_000
"""Frames in so few bytes from which on the rest waits until other tasks have run."""

_WHOLE = (0x81, 0x82)
"""How a frame begins that holds all of a text or binary message (RFC 6455 §5.2)."""

_SENT_AT_ONCE = 500
"""Frames of our own that are written before those are sent."""

_SHORT_MAX = 125
_SHORT_HEADS = [bytes([0x81, 0x80 | length]) for length in range(_SHORT_MAX + 1)]
"""How text frames begin whose length fits into the second byte."""

_EMPTY_PING, _PONG = b"\x89\x80", 0x8A
"""A ping without content up to its masking bytes, and how its answer begins."""

_TEXT, _BINARY, _CONT = Opcode.TEXT, Opcode.BINARY, Opcode.CONT
_CONNECTING, _OPEN, _CLOSED = State.CONNECTING, State.OPEN, State.CLOSED
"""To look one up in its class takes several times as long."""

_TCP_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", None)

_LENGTH_LIMIT = 1 << 63
"""No frame may be so large (RFC 6455 §5.2)."""


class FrameSocket(ClientConnection):
    """The library's connection, read by ``next_frame`` instead of ``recv``.

    Whatever one read of the socket brings is parsed at once and wakes the reader once. Messages
    are taken here: a small one that has come as a whole as it is, any other part by part as it
    comes, however large it is. The library gets all else: handshake, the heads of messages in
    parts, what steers the connection, and what is wrong.
    """

    # Python keeps the dictionaries of instances small up to 30 attributes, and the library has 20.
    __slots__ = (
        "_amid_message",
        "_awaited",
        "_begun",
        "_content_bytes",
        "_discarding",
        "_events",
        "_heartbeat",
        "_held",
        "_library_bytes",
        "_max_whole_bytes",
        "_partial_head",
        "_silent_bytes",
        "_unparsed",
        "_unread",
        "_unread_bytes",
        "silent",
    )

    def __init__(self, protocol: ClientProtocol, *, max_whole_bytes: int, **settings: Any) -> None:
        """Create a connection; ``connect`` does it.

        Args:
            protocol: The library's own part.
            max_whole_bytes: The largest message to give as a whole.
            settings: What the library wants to know.
        """
        super().__init__(protocol, **settings)
        self._max_whole_bytes = min(max_whole_bytes, TURN_BYTES)
        self._unread: deque[bytes | Part] = deque()
        self._unread_bytes = 0
        self._amid_message = False
        self._events = 0
        self._unparsed = b""
        self._partial_head = b""
        # How much has come since the heartbeat was told of anything.
        self._silent_bytes = 0
        # How much is still to come of a frame that the library reads, and of one read here.
        self._library_bytes = 0
        self._content_bytes = 0
        # What has come of a small message.
        self._begun: bytearray | None = None
        self._awaited: asyncio.Future[None] | None = None
        self._held = False
        self._discarding = False
        self._heartbeat: Heartbeat | None = None
        self.silent: bool = False
        """True if it was given up because the server did not answer a ping."""

    def watch(self, *, interval_s: float, timeout_s: float) -> None:
        """Ping the server after so much silence, and abort if it then stays silent.

        Any frame counts as an answer, and so does each part of a large one. While unread
        frames hold up the reading, no answer can be seen: there it is the system that aborts,
        where it can be told to (Linux), once the other side has not confirmed a ping for so long.
        """
        tcp = self.transport.get_extra_info("socket")
        if tcp is not None and _TCP_USER_TIMEOUT is not None:
            with contextlib.suppress(OSError):
                tcp.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, int((interval_s + timeout_s) * 1000))
        self._heartbeat = Heartbeat(self._ping, self._give_up, interval_s=interval_s, timeout_s=timeout_s)

    @property
    def drained(self) -> bool:
        """True if somebody waits for the next frame: all that has come was read."""
        return self._awaited is not None and not self._unread

    @property
    def heard_at(self) -> float:
        """When something was heard last, by the loop's clock; only while it is watched."""
        return -math.inf if self._heartbeat is None else self._heartbeat.heard_at

    @property
    def unread(self) -> bool:
        """True if there are messages that nobody has taken."""
        return bool(self._unread)

    async def next_frame(self) -> bytes | Part:
        """Return the next text or binary message, or part of one. Cancelling it loses nothing.

        Raises:
            ConnectionClosed: None is left, and none will come.
        """
        while (frame := self.take_frame()) is None:
            if self.protocol.state is not _OPEN:
                raise self.ending
            self._awaited = self.loop.create_future()
            try:
                await self._awaited
            finally:
                self._awaited = None
        return frame

    def take_frame(self) -> bytes | Part | None:
        """Return the same if it has come already."""
        if not self._unread:
            return None
        frame = self._unread.popleft()
        self._unread_bytes -= len(frame) + _FRAME_BYTES
        if self._held and self._unread_bytes <= _UNREAD_MIN_BYTES:
            self._regulate()
        return frame

    @property
    def ending(self) -> ConnectionClosed:
        """What has ended the connection, as far as it is known by now."""
        protocol = self.protocol
        return ConnectionClosedError(protocol.close_rcvd, protocol.close_sent, protocol.close_rcvd_then_sent)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection; what is unread is dropped."""
        self._discarding = True
        self._unread.clear()
        self._unread_bytes = 0
        self._regulate()
        if self._heartbeat is not None:
            self._heartbeat.stop()
        await super().close(code, reason)

    async def send_all(self, texts: Iterable[bytes]) -> None:
        """Send text messages, many at a time; made for short ones.

        Raises:
            ConnectionClosed: The connection is over.
        """
        left = iter(texts)
        while batch := list(islice(left, _SENT_AT_ONCE)):
            if self.protocol.state is not _OPEN:
                raise self.ending
            *others, last = batch
            self.transport.write(_text_frames(others))
            # It also waits until there is room for more.
            await self.send(last, text=True)

    # -- what the transport and the library call --------------------------------------

    def process_event(self, event: Event) -> None:
        """Take note of the heads of messages; the library deals with the other frames."""
        self._events += 1
        if not isinstance(event, Frame):
            super().process_event(event)
            return
        if event.opcode in (_BINARY, _TEXT, _CONT):
            # Only the head: what the message holds is taken here.
            self._amid_message = not event.fin
        else:
            super().process_event(event)

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        """Parse what has come; of a crowd of tiny frames as many as do not hold up other tasks."""
        self._events = 0
        if self._partial_head:
            data = self._partial_head + data
            self._partial_head = b""
        parsed = self._take_frames(data)
        self._silent_bytes += len(data)
        if self._events or self._silent_bytes >= _SIGN_OF_LIFE_BYTES:
            self._silent_bytes = 0
            if self._heartbeat is not None:
                self._heartbeat.heard_at = self.loop.time()
        self._unparsed = data[parsed:]
        if self._unparsed:
            self.loop.call_soon(self._parse_on)
        self._regulate()
        self._wake()

    def _take_frames(self, data: bytes) -> int:
        """Take the frames that have come, or hand them on to the library; return up to where."""
        at, end = 0, len(data)
        if self._library_bytes:
            at = min(self._library_bytes, end)
            self._library_bytes -= at
            super().data_received(data[:at])
        at = self._take_content(data, at) if self._content_bytes else at
        while at < end and self._events < _CROWD:
            state = self.protocol.state
            if state is _CONNECTING or state is _CLOSED:
                at = self._hand_on(data, at)
                continue
            if state is _OPEN and not (self._amid_message or self._discarding):
                at = self._take_small(data, at)
            if at < end:
                at = self._take_next(data, at)
        return at

    def _take_small(self, data: bytes, at: int) -> int:
        """Take small messages, as many as have come as a whole one behind the other; return up to where.

        Nearly every frame is taken here.
        """
        unread, max_bytes = self._unread, self._max_whole_bytes
        end, before, taken_bytes = len(data), len(unread), 0
        for _ in range(_CROWD):
            start = at + 4
            if start > end or data[at] not in _WHOLE:
                break
            length = data[at + 1]
            if length == 126:
                length = data[at + 2] << 8 | data[at + 3]
            else:
                start = at + 2
                if length > 126:
                    break
            stop = start + length
            if stop > end or length > max_bytes:
                break
            unread.append(data[start:stop])
            taken_bytes += length
            at = stop
        taken = len(unread) - before
        self._events += taken
        self._unread_bytes += taken_bytes + taken * _FRAME_BYTES
        return at

    def _take_next(self, data: bytes, at: int) -> int:
        """Take one frame of any kind, or what has come of it; return up to where."""
        end, start = len(data), at + 2
        length = data[at + 1] if start <= end else 126
        if length == 126:
            start = at + 4
            length = data[at + 2] << 8 | data[at + 3] if start <= end else 0
        elif length == 127:
            start = at + 10
            length = int.from_bytes(data[at + 2 : start])
        elif length > 127:
            # Masked: the library says so to the server.
            return self._hand_on(data, at)
        if start > end:
            self._partial_head = data[at:]
            return end
        if length <= self._max_whole_bytes and data[at] in _WHOLE and not self._amid_message:
            if start + length <= end:
                self._events += 1
                self._put(data[start : start + length])
                return start + length
            self._content_bytes, self._begun = length, bytearray()
            return self._take_content(data, start)
        return self._take_other(data, at, start, length)

    def _take_other(self, data: bytes, at: int, start: int, length: int) -> int:
        """Take a frame that is no small message; return up to where."""
        self._events += 1
        stop = min(start + length, len(data))
        if data[at] & 0x0F <= _BINARY and length < _LENGTH_LIMIT:
            # Whether it may stand here is for the library to say.
            super().data_received(bytes((data[at], 0)))
            self._content_bytes = length
            return self._take_content(data, start)
        if length == 0 and data[at] == _PONG:
            return stop  # The answer to one of the heartbeat's: to be heard is all that it is for.
        self._library_bytes = start + length - stop
        super().data_received(data[at:stop])
        return stop

    def _take_content(self, data: bytes, at: int) -> int:
        """Take what has come of a message; return up to where."""
        stop = min(at + self._content_bytes, len(data))
        self._content_bytes -= stop - at
        if self._begun is not None:
            self._begun += data[at:stop]
            if not self._content_bytes:
                self._events += 1
                self._put(bytes(self._begun))
                self._begun = None
            return stop
        is_last = not (self._content_bytes or self._amid_message)
        if is_last or stop > at:
            self._put(Part(data[at:stop], is_last))
        return stop

    def _hand_on(self, data: bytes, at: int) -> int:
        """Let the library have what does not belong to an open connection; return up to where.

        The handshake goes line by line: right behind its last line frames may begin.
        """
        if self.protocol.state is _CONNECTING:
            stop = data.find(b"\n", at) + 1 or len(data)
        else:
            stop = min(at + _HANDED_ON_BYTES, len(data))
        self._events += 1
        super().data_received(data[at:stop])
        return stop

    def _parse_on(self) -> None:
        if self._unparsed:
            self._parse(self._unparsed)

    def eof_received(self) -> None:
        """Take note that nothing more will come."""
        # TLS tells so even while the reading is paused.
        while self._unparsed:
            self._parse(self._unparsed)
        super().eof_received()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the end."""
        super().connection_lost(exc)
        self._unparsed = b""
        if self._heartbeat is not None:
            self._heartbeat.stop()
        self._wake()

    # ---------------------------------------------------------------------------------

    def _put(self, frame: bytes | Part) -> None:
        if self.protocol.state is _OPEN and not self._discarding:
            self._unread.append(frame)
            self._unread_bytes += len(frame) + _FRAME_BYTES

    def _wake(self) -> None:
        if self._awaited is None or self._awaited.done():
            return
        if self._unread or self.protocol.state is not _OPEN:
            self._awaited.set_result(None)

    def _regulate(self) -> None:
        """Stop reading while much is unread, and go on once little is."""
        limit = _UNREAD_MIN_BYTES if self._held else _UNREAD_MAX_BYTES
        hold = bool(self._unparsed) or self._unread_bytes > limit
        if hold == self._held or self.transport.is_closing():
            return
        self._held = hold
        if hold:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
        if self._heartbeat is not None:
            if hold:
                self._heartbeat.pause()
            else:
                self._heartbeat.resume()

    def _ping(self) -> None:
        if self.protocol.state is _OPEN:
            self.transport.write(_EMPTY_PING + os.urandom(4))

    def _give_up(self) -> None:
        self.silent = True
        self.transport.abort()


def _text_frames(texts: Sequence[bytes]) -> bytes:
    """Write a frame for each, masked as a client must, for a tenth of what the library takes.

    Each has random masking bytes of its own (RFC 6455 §5.3).
    """
    frames: list[bytes] = []
    for text, (mask,) in zip(texts, iter_unpack("4s", os.urandom(4 * len(texts))), strict=True):
        if len(text) <= _SHORT_MAX:
            frames += (_SHORT_HEADS[len(text)], mask, apply_mask(text, mask))
        else:
            frames.append(Frame(_TEXT, text).serialize(mask=True))
    return b"".join(frames)
