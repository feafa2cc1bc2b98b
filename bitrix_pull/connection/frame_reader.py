"""Reads frames: a large one in parts, and other tasks get their turn in between."""

import asyncio
from collections.abc import Iterator

from bitrix_pull.events import PullEvent
from bitrix_pull.wire.formats import Read
from bitrix_pull.wire.messages import Incoming

TURN_BYTES = 128 * 1024
"""How much to read before other tasks get their turn. Little enough that what was read is
still in the processor's cache, and mostly gone again before the garbage collector looks."""

_MESSAGE_BYTES = 1024
"""What a message, or a frame, counts for beside its size."""


class FrameReader:
    """Turns the frames of one connection into messages."""

    def __init__(self, read: Read) -> None:
        """Read frames of one format."""
        self._read = read
        self._rest: Iterator[Incoming] | None = None
        self._read_bytes = 0

    @property
    def amid_frame(self) -> bool:
        """True if there is, or may be, more of the frame that was begun."""
        return self._rest is not None

    @property
    def is_due(self) -> bool:
        """True if so much was read that it is the turn of other tasks."""
        return self._read_bytes >= TURN_BYTES

    async def turn(self) -> None:
        """Let other tasks run."""
        self._read_bytes = 0
        await asyncio.sleep(0)

    def begin(self, frame: bytes) -> list[Incoming]:
        """Return what a frame holds, or the first part of it.

        Raises:
            MalformedFrame: It cannot be read.
        """
        if len(frame) <= TURN_BYTES:
            messages = list(self._read(frame))
            self._read_bytes += len(frame) + _MESSAGE_BYTES * (1 + len(messages))
            return messages
        self._rest = iter(self._read(frame))
        return self.go_on()

    def go_on(self) -> list[Incoming]:
        """Return the next part of the frame that was begun; the last one may be empty.

        Raises:
            MalformedFrame: The rest cannot be read.
        """
        assert self._rest is not None
        self._read_bytes = 0
        part: list[Incoming] = []
        for message in self._rest:
            part.append(message)
            self._read_bytes += _MESSAGE_BYTES
            if isinstance(message, PullEvent):
                self._read_bytes += message.size
            if self._read_bytes >= TURN_BYTES:
                return part
        self._rest = None
        self._read_bytes = TURN_BYTES
        return part
