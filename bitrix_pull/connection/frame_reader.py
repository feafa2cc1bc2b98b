"""Reads frames: a large one while it comes, and other tasks get their turn in between."""

import asyncio
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from functools import partial

from bitrix_pull.errors import MalformedFrame
from bitrix_pull.events import PullEvent
from bitrix_pull.wire.formats import WireFormat, part_reader_for, reader_for
from bitrix_pull.wire.messages import Incoming, Unread
from bitrix_pull.wire.parts import PartReader
from bitrix_pull.wire.skim import NO_TOPICS, Topic

TURN_BYTES = 128 * 1024
"""How much to read before other tasks get their turn. Little enough that what was read is
still in the processor's cache, and mostly gone again before the garbage collector looks."""

_MESSAGE_BYTES = 1024
"""What a message, or a frame, counts for beside its size."""


@dataclass(slots=True, frozen=True)
class Part:
    """Some of a frame."""

    content: bytes
    is_last: bool

    def __len__(self) -> int:
        return len(self.content)


class FrameReader:
    """Turns the frames of one connection into messages."""

    def __init__(
        self, wire_format: WireFormat, max_message_bytes: int, unwanted: Set[Topic] = NO_TOPICS
    ) -> None:
        """Read frames of one format, whose messages may be so large.

        Args:
            wire_format: What they are written in.
            max_message_bytes: How large a message may be.
            unwanted: What nobody wants at present: messages about it may come as ``Unread``.
        """
        self._read = reader_for(wire_format, unwanted)
        self._new_parts = partial(part_reader_for, wire_format, max_message_bytes, unwanted)
        self._parts: PartReader | None = None
        self._rest: Iterator[Incoming] | None = None
        self._malformed: MalformedFrame | None = None
        self._read_bytes = 0

    @property
    def amid_frame(self) -> bool:
        """True if there is, or may be, more of the frame that was begun."""
        return self.has_rest or self._parts is not None

    @property
    def has_rest(self) -> bool:
        """True if there is, or may be, more in what was taken of the frame."""
        return self._rest is not None or self._malformed is not None

    @property
    def is_due(self) -> bool:
        """True if so much was read that it is the turn of other tasks."""
        return self._read_bytes >= TURN_BYTES

    async def turn(self) -> None:
        """Let other tasks run."""
        self._read_bytes = 0
        await asyncio.sleep(0)

    def take(self, frame: bytes | Part) -> list[Incoming]:
        """Return what a small frame holds, or some of what a part of a large one has made whole.

        Raises:
            MalformedFrame: It cannot be read.
        """
        if type(frame) is bytes:
            messages = list(self._read(frame))
            self._read_bytes += len(frame) + _MESSAGE_BYTES * (1 + len(messages))
            return messages
        assert isinstance(frame, Part)
        parts = self._parts or self._new_parts()
        self._parts = None if frame.is_last else parts
        self._rest = _messages(parts, frame)
        return self.go_on()

    def take_more(self, messages: list[Incoming], next_frame: Callable[[], bytes | Part | None]) -> None:
        """Add the same of more frames to messages, until there are no more or it is the turn of others.

        That one cannot be read is said later.
        """
        try:
            while self._read_bytes < TURN_BYTES and (frame := next_frame()) is not None:
                messages += self.take(frame)
                if type(frame) is not bytes and self.amid_frame:
                    break
        except MalformedFrame as error:
            # What came before it is sound.
            self._malformed = error

    def give_up(self) -> None:
        """Expect no more of the frame that was begun."""
        self._parts = self._rest = None

    def go_on(self) -> list[Incoming]:
        """Return more of what was taken; the last part may be empty.

        Raises:
            MalformedFrame: The rest cannot be read.
        """
        if self._malformed is not None:
            raise self._malformed
        assert self._rest is not None
        part: list[Incoming] = []
        try:
            for message in self._rest:
                part.append(message)
                self._read_bytes += _MESSAGE_BYTES
                if isinstance(message, PullEvent | Unread):
                    self._read_bytes += message.size
                if self._read_bytes >= TURN_BYTES:
                    return part
        except MalformedFrame as error:
            if not part:
                raise
            # What came before it is sound.
            self._malformed = error
            return part
        self._rest = None
        return part


def _messages(parts: PartReader, part: Part) -> Iterator[Incoming]:
    yield from parts.feed(part.content)
    if part.is_last:
        yield from parts.end()
