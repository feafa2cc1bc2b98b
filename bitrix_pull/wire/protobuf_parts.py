"""A ``ResponseBatch`` that is read while it comes: see ``parts``."""

from collections.abc import Iterator, Set
from typing import Literal, NamedTuple

from bitrix_pull.errors import MalformedFrame
from bitrix_pull.wire.json_guard import LIGHT_BYTES, MESSAGE_BYTES_MIN
from bitrix_pull.wire.messages import Incoming, Malformed
from bitrix_pull.wire.parts import PIECE_BYTES, TOO_LARGE
from bitrix_pull.wire.protobuf import MID_BYTES, read, wrapped
from bitrix_pull.wire.skim import NO_TOPICS, Topic

_MESSAGES = 2
"""How many fields are open around a message."""

_TAG = 0x0A
"""Of a response, of its messages, and of each of them."""

_ID = b"\x0a\x0d"
"""How a message begins: the tag of its id, and the length of that."""


_Kind = Literal["opening", "message", "other", "too large", "unknown"]


class _Field(NamedTuple):
    """One field, as far as its head tells.

    Attributes:
        kind: An "opening" holds fields that are looked at one by one. What is "other" stands
            beside the messages of a response and is read as it is. What is "unknown" is not read.
        start: Where its content begins.
        end: Where that ends.
    """

    kind: _Kind
    start: int
    end: int


class ProtobufParts:
    """Reads a ``ResponseBatch``, whose messages lie two fields deep."""

    def __init__(self, max_bytes: int, unwanted: Set[Topic] = NO_TOPICS) -> None:
        """Read a frame whose messages may be so large, and of which some are about what nobody wants."""
        self._max_bytes = max_bytes
        self._unwanted = unwanted
        self._left = bytearray()
        self._passed = 0
        self._skipped = 0
        # Where the fields end that are open.
        self._ends: list[int] = []
        self._fields = 0

    def feed(self, part: bytes) -> Iterator[Incoming]:
        """See ``PartReader``."""
        left = self._left
        left += part
        at = start = self._skip(0, self._skipped)
        while True:
            while self._ends and self._ends[-1] == self._passed + at:
                yield from self._read(start, at)
                start = at
                self._ends.pop()
            if (passed := self._pass_small(start, at)) > at:
                at = passed
                continue
            field = self._field(at)
            if field is None:
                break
            self._count(at)
            if field.kind != "message" or field.end - start > PIECE_BYTES:
                yield from self._read(start, at)
                start = at
            match field.kind:
                case "opening":
                    self._ends.append(self._passed + field.end)
                    start = at = field.start
                case "message":
                    at = field.end
                case "other":
                    yield from self._read(at, field.end)
                    start = at = field.end
                case "too large" | "unknown":
                    yield from self._left_out(field)
                    start = at = self._skip(at, field.end - at)
        yield from self._read(start, at)
        self._passed += at
        del left[:at]

    def _needed(self, field: _Field) -> int:
        """Return up to where a field must have come before anything can be done with it."""
        match field.kind:
            case "message" | "other":
                return field.end
            case "too large":
                return min(field.end, field.start + len(_ID) + MID_BYTES)
            case "opening" | "unknown":
                return field.start

    def end(self) -> Iterator[Incoming]:
        """See ``PartReader``."""
        if self._left or self._skipped or self._ends:
            raise self._no_batch()
        return iter(())

    def _pass_small(self, start: int, at: int) -> int:
        """Return where the messages end that are nothing special and fit into a piece."""
        if len(self._ends) < _MESSAGES:
            return at
        left, first = self._left, self._fields
        end = min(len(left), self._ends[-1] - self._passed, start + PIECE_BYTES)
        while at + 4 <= end and left[at] == _TAG:
            stop, length = at + 2, left[at + 1]
            if length > 127:
                stop, length = at + 3, length & 127 | left[at + 2] << 7
                if length > 0x3FFF:
                    stop, length = at + 4, length & 0x3FFF | left[at + 3] << 14
            stop += length
            # A fourth byte of a length leads beyond every end.
            if stop > end or length > self._max_bytes:
                break
            at = stop
            self._fields += 1
        if self._fields > first:
            self._check_crowd(at)
        return at

    def _field(self, at: int) -> _Field | None:
        """Read the head of a field; None if too little of it has come."""
        left = self._left
        if at == len(left):
            return None
        tag, start = (left[at], at + 1) if left[at] < 128 else self._varint(at)
        if tag is None:
            return None
        length: int | None
        match tag & 7:
            case 0:
                length, end = self._varint(start)
                if length is None:
                    return None
            case 1:
                end = start + 8
            case 2:
                length, start = self._varint(start)
                if length is None:
                    return None
                end = start + length
            case 5:
                end = start + 4
            case _:
                raise self._no_batch()
        if self._ends and self._passed + end > self._ends[-1]:
            raise self._no_batch()
        field = _Field(self._kind(tag, end - start), start, end)
        return field if len(left) >= self._needed(field) else None

    def _kind(self, tag: int, size: int) -> _Kind:
        depth = len(self._ends)
        if tag == _TAG and depth < _MESSAGES:
            return "opening"
        if tag != _TAG and (tag & 7 != 2 or depth != 1):
            return "unknown"
        if size > self._max_bytes:
            return "too large"
        return "message" if tag == _TAG else "other"

    def _count(self, at: int) -> None:
        """Take note of one more field, and refuse more than can say anything in so few bytes."""
        self._fields += 1
        self._check_crowd(at)

    def _check_crowd(self, at: int) -> None:
        if self._fields * MESSAGE_BYTES_MIN > self._passed + at + LIGHT_BYTES:
            raise MalformedFrame("a frame holds far too many messages for its size")

    def _varint(self, at: int) -> tuple[int | None, int]:
        """Return a number and where it ends; None if it has not come whole."""
        number = 0
        for position, byte in enumerate(self._left[at : at + 10]):
            number |= (byte & 127) << 7 * position
            if byte < 128:
                return number, at + position + 1
        if len(self._left) - at >= 10:
            raise self._no_batch()
        return None, at

    def _skip(self, at: int, size: int) -> int:
        """Pass over so many bytes, of which some may still have to come; return where that leads."""
        end = min(at + size, len(self._left))
        self._skipped = size - (end - at)
        return end

    def _read(self, start: int, end: int) -> Iterator[Incoming]:
        """Read whole fields of the innermost open one."""
        if start < end:
            with memoryview(self._left) as left, left[start:end] as fields:
                batch = wrapped(fields, len(self._ends))
            yield from read(batch, self._unwanted)

    def _left_out(self, field: _Field) -> Iterator[Malformed]:
        if field.kind == "too large":
            content = self._left[field.start : field.start + len(_ID) + MID_BYTES]
            yield Malformed(content[len(_ID) :].hex() if content.startswith(_ID) else "", TOO_LARGE)

    def _no_batch(self) -> MalformedFrame:
        return MalformedFrame(f"a frame is no protobuf ResponseBatch at byte {self._passed} or after")
