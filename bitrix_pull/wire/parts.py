"""Frames that are read while they come, part by part, however many messages they hold.

What has come is cut between two messages, and the codecs read the pieces: as many messages
as are harmless together, or one that is larger. So what is held is never more than that, and
the guards of the codecs judge a message and not its frame. A message over the limit is left
out; the frame goes on behind it.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from bitrix_pull.errors import MalformedFrame
from bitrix_pull.wire import jsonrpc, text
from bitrix_pull.wire.json_guard import LIGHT_BYTES
from bitrix_pull.wire.messages import Incoming, Malformed
from bitrix_pull.wire.text import CLOSING, OPENING

PIECE_BYTES = LIGHT_BYTES
"""How much to read at a time, where a message is not larger than that."""

TOO_LARGE = "it is larger than max_message_bytes"
"""Why a message was left out."""


class PartReader(Protocol):
    """Reads one frame."""

    def feed(self, part: bytes) -> Iterator[Incoming]:
        """Yield the messages that are whole now. To be used up before the next part is fed.

        Raises:
            MalformedFrame: This is no such frame; what came before is sound.
        """
        ...

    def end(self) -> Iterator[Incoming]:
        """Yield what is left when no more will come.

        Raises:
            MalformedFrame: The frame is not whole.
        """
        ...


class DelimitedParts:
    """Reads delimited JSON."""

    _BETWEEN = CLOSING + OPENING + b'{"id":'
    """One message ends and the next begins. No JSON holds it: ``#`` stands in strings only, and
    then this quotation mark would end one, which no letter may follow."""

    def __init__(self, max_bytes: int) -> None:
        """Read a frame whose messages may be so large."""
        self._max_bytes = max_bytes
        self._window = min(PIECE_BYTES, max_bytes)
        self._left = bytearray()
        self._searched = 0
        self._is_dropping = False

    def feed(self, part: bytes) -> Iterator[Incoming]:
        """See ``PartReader``."""
        left = self._left
        left += part
        while (stop := self._next_end()) >= 0:
            yield from self._take(stop)
        # Where a message ends shows by what comes behind it.
        if len(left) > self._max_bytes + len(self._BETWEEN) and not self._is_dropping:
            yield self._too_large()
            self._is_dropping = True
        if self._is_dropping:
            del left[: -len(self._BETWEEN)]
        self._searched = max(len(left) - len(self._BETWEEN), 0)

    def end(self) -> Iterator[Incoming]:
        """See ``PartReader``."""
        yield from self._take(len(self._left))

    def _next_end(self) -> int:
        """Return where the messages end that are to be read next, or -1."""
        at = -1
        if not self._is_dropping:
            at = self._left.rfind(self._BETWEEN, self._searched, self._window)
        if at < 0:
            at = self._left.find(self._BETWEEN, self._searched)
        return at + len(CLOSING) if at >= 0 else -1

    def _take(self, stop: int) -> Iterator[Incoming]:
        if self._is_dropping:
            self._is_dropping = False
        elif stop > self._max_bytes:
            yield self._too_large()
        else:
            yield from text.read(_copy(self._left, stop))
        del self._left[:stop]
        self._searched = 0

    def _too_large(self) -> Malformed:
        if not self._left.startswith(OPENING):
            raise MalformedFrame("a frame of more bytes than a message may have holds no message in text")
        return _too_large(text.HEAD, self._left, len(OPENING))


@dataclass(frozen=True, slots=True)
class ArrayFormat:
    """How messages stand in an array.

    Attributes:
        mark: What stands where an item may end, and another begin, at the comma.
        between: Matches only there.
        head: How an item begins; its first group is the mid.
        parse: Reads an array that is sound. Raises ValueError if it is no JSON.
        read: Reads any.
        is_pasted: True if bodies may be anything: the server pastes them unread.
    """

    mark: bytes
    between: re.Pattern[bytes]
    head: re.Pattern[bytes]
    parse: Callable[[bytes], Iterable[Incoming]]
    read: Callable[[bytes], Iterable[Incoming]]
    is_pasted: bool


ENVELOPES = ArrayFormat(text.SECOND, text.BETWEEN, text.HEAD, text.parse_array, text.read, True)
REQUESTS = ArrayFormat(jsonrpc.SECOND, jsonrpc.BETWEEN, jsonrpc.HEAD, jsonrpc.parse, jsonrpc.read, False)

_OVERLAP = 96
"""Bytes before the end of what has come in which one of those patterns may have begun."""


class ArrayParts:
    """Reads a JSON array.

    A comma before what looks like an item may also stand within an item. But then what is
    before it, as an array, is no JSON, so that reading it shows whether it was the right one.
    Only where it was not is JSON followed bracket by bracket.
    """

    def __init__(self, max_bytes: int, array: ArrayFormat) -> None:
        """Read a frame whose messages may be so large; its first byte is the bracket."""
        self._max_bytes = max_bytes
        self._window = min(PIECE_BYTES, max_bytes)
        self._array = array
        self._is_begun = False
        self._is_dropping = False
        self._left = bytearray()
        self._nesting = Nesting()
        self._searched: int = 0
        self._followed: int = 0
        self._is_doubtful = False
        self._last_doubt: int = -1

    def _go_on(self) -> None:
        """Begin with the next item."""
        self._nesting = Nesting()
        self._searched = self._followed = 0
        self._is_doubtful = False
        self._last_doubt = -1

    def feed(self, part: bytes) -> Iterator[Incoming]:
        """See ``PartReader``."""
        left = self._left
        left += part
        if not self._is_begun and left:
            self._is_begun = True
            del left[:1]
        while True:
            if self._is_doubtful or self._is_dropping:
                comma = self._next_comma()
                if comma < 0:
                    break
                yield from self._take(comma)
            else:
                comma = self._likely_comma()
                if comma < 0:
                    break
                messages = self._parse(comma)
                if messages is None:
                    self._is_doubtful = True
                    self._searched = 0
                    continue
                yield from messages
                del left[: comma + 1]
                self._go_on()
        # Where an item ends shows by what comes behind it.
        if len(left) > self._max_bytes + _OVERLAP and not self._is_dropping:
            if self._is_spoilt:
                yield from self._read(self._last_doubt)
            else:
                yield _too_large(self._array.head, left)
                self._is_dropping = True
        if self._is_dropping:
            self._drop()

    def end(self) -> Iterator[Incoming]:
        """See ``PartReader``."""
        if self._is_dropping:
            return
        if len(self._left) > self._max_bytes + len(b"]") and not self._is_spoilt:
            yield _too_large(self._array.head, self._left)
        else:
            yield from self._array.read(_copy(self._left, len(self._left), b"["))

    @property
    def _is_spoilt(self) -> bool:
        """True if what is larger than a message may have a body in it that is no JSON.

        That must not take along what comes behind it.
        """
        return self._array.is_pasted and self._last_doubt >= 0

    def _parse(self, comma: int) -> Iterable[Incoming] | None:
        """Read the items up to a comma; None if that does not stand between two."""
        if comma > self._max_bytes:
            return None
        try:
            return self._array.parse(_copy(self._left, comma, b"[", b"]"))
        except ValueError:
            return None

    def _likely_comma(self) -> int:
        """Return where the next items seem to end, or -1."""
        left, mark, between = self._left, self._array.mark, self._array.between
        at = left.rfind(mark, self._searched, self._window)
        while at >= 0 and between.match(left, at) is None:
            at = left.rfind(mark, self._searched, at)
        if at < 0:
            at = self._find(self._searched)
        if at < 0:
            self._searched = max(len(left) - _OVERLAP, 0)
        return at

    def _find(self, start: int) -> int:
        """Return the next place where an item may end, or -1."""
        left, mark, between = self._left, self._array.mark, self._array.between
        at = left.find(mark, start)
        while at >= 0 and between.match(left, at) is None:
            at = left.find(mark, at + 1)
        return at

    def _next_comma(self) -> int:
        """Return where this item surely ends, or -1."""
        left, nesting = self._left, self._nesting
        while (comma := self._find(self._searched)) >= 0:
            self._searched = comma + 1
            nesting.follow(left[self._followed : comma])
            self._followed = comma
            # The pattern has marks that do not stand in a string, nor behind the end of an
            # array: if this does, the item is spoilt.
            if nesting.in_string or nesting.depth <= 0:
                return comma
            self._last_doubt = comma
        self._searched = max(len(left) - _OVERLAP, self._searched)
        return -1

    def _take(self, comma: int) -> Iterator[Incoming]:
        """Read one item, or leave it out."""
        if not self._is_dropping and comma <= self._max_bytes:
            yield from self._read(comma)
            return
        if not self._is_dropping:
            yield _too_large(self._array.head, self._left)
        self._is_dropping = False
        del self._left[: comma + 1]
        self._go_on()

    def _read(self, comma: int) -> Iterator[Incoming]:
        yield from self._array.read(_copy(self._left, comma, b"[", b"]"))
        del self._left[: comma + 1]
        self._go_on()

    def _drop(self) -> None:
        """Let go of what is known not to hold the end of what is too large."""
        stop = max(len(self._left) - _OVERLAP, self._followed)
        self._nesting.follow(self._left[self._followed : stop])
        del self._left[:stop]
        self._searched = max(self._searched - stop, 0)
        self._followed = 0


class Nesting:
    """How deep JSON is nested behind what was followed of it."""

    _OTHERS = bytes(byte for byte in range(256) if byte not in b'"{}[]')

    def __init__(self) -> None:
        """Begin where a value does."""
        self.depth: int = 0
        self.in_string: bool = False
        self._is_escaped = False

    def follow(self, piece: bytes | bytearray) -> None:
        """Take note of what comes next."""
        if self._is_escaped and piece:
            piece = piece[1:] if piece[0] in b'"\\' else piece
            self._is_escaped = False
        if b"\\" in piece:
            piece = piece.replace(b"\\\\", b"")
            self._is_escaped = piece.endswith(b"\\")
            piece = piece.replace(b'\\"', b"")
        parts = piece.translate(None, self._OTHERS).split(b'"')
        marks = b"".join(parts[1 if self.in_string else 0 :: 2])
        self.in_string ^= len(parts) % 2 == 0
        self.depth += marks.count(b"{") + marks.count(b"[") - marks.count(b"}") - marks.count(b"]")


class SingleParts:
    """Reads a frame that is one message."""

    def __init__(
        self, max_bytes: int, head: re.Pattern[bytes], read: Callable[[bytes], Iterable[Incoming]]
    ) -> None:
        """Read a frame that may be so large."""
        self._max_bytes = max_bytes
        self._head = head
        self._read = read
        self._left = bytearray()
        self._is_dropping = False

    def feed(self, part: bytes) -> Iterator[Incoming]:
        """See ``PartReader``."""
        if self._is_dropping:
            return
        self._left += part
        if len(self._left) > self._max_bytes:
            yield _too_large(self._head, self._left)
            self._is_dropping = True
            self._left.clear()

    def end(self) -> Iterator[Incoming]:
        """See ``PartReader``."""
        if not self._is_dropping:
            yield from self._read(bytes(self._left))


class TextParts:
    """Reads text, whose first byte tells what it is."""

    def __init__(self, array: PartReader, other: PartReader) -> None:
        """Let ``array`` read what is an array, and ``other`` all else."""
        self._array = array
        self._reader = self._other = other
        self._is_begun = False

    def feed(self, part: bytes) -> Iterator[Incoming]:
        """See ``PartReader``."""
        if not self._is_begun and part:
            self._is_begun = True
            self._reader = self._array if part.startswith(b"[") else self._other
        return self._reader.feed(part)

    def end(self) -> Iterator[Incoming]:
        """See ``PartReader``."""
        return self._reader.end()


def text_parts(max_bytes: int) -> TextParts:
    """Read a frame of either text format."""
    return TextParts(ArrayParts(max_bytes, ENVELOPES), DelimitedParts(max_bytes))


def jsonrpc_parts(max_bytes: int) -> TextParts:
    """Read a frame of JSON-RPC."""
    single = SingleParts(max_bytes, jsonrpc.HEAD, jsonrpc.read)
    return TextParts(ArrayParts(max_bytes, REQUESTS), single)


def _copy(left: bytearray, stop: int, before: bytes = b"", behind: bytes = b"") -> bytes:
    """Return what has come up to there, between these, for one copy of it."""
    with memoryview(left) as view, view[:stop] as begin:
        return b"".join([before, begin, behind])


def _too_large(head: re.Pattern[bytes], message: bytearray, start: int = 0) -> Malformed:
    match = head.match(message, start)
    return Malformed(match[1].decode() if match is not None else "", TOO_LARGE)
