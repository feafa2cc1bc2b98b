"""What is small to send and large to read.

A mebibyte of ``{},{},…`` is 350,000 maps in memory, and a mebibyte of empty protobuf
messages is half a million objects. What a frame or a body would become is estimated before
it is read, and only where it is long enough to matter. Nearly all content is far from any
limit, so JSON is counted only where a random sample of it comes near.
"""

import random
from collections.abc import Iterator

from bitrix_pull.errors import MalformedFrame

TOO_DENSE = "it would take far more memory than its size"
"""Why a message was left out."""

LIGHT_BYTES = 64 * 1024
"""What is not longer than this is harmless, whatever it holds."""

_MIB = 1024 * 1024

_COSTS = {b"{": 90, b"[": 104, b":": 80, b",": 88}
"""The most memory that each of these marks stands for: a map, a list, a new key, an item."""

_COST_MAX = max(_COSTS.values())

BODY_GROWTH = 12
"""How many times its own size a body may become, by this estimate."""

FRAME_GROWTH = 16
"""The same for a frame of many messages, whose keys are always the same and so cost less."""

MESSAGE_BYTES_MIN = 48
"""Bytes of the shortest protobuf message that says anything: an id, a module, a command."""


_SAMPLED_MARKS = 120
"""So many marks would be in the sample, on average, of what is just over the limit. That less
than half of them are has a chance of one in a million at most, wherever they stand."""


def is_dense(text: bytes, growth: int = BODY_GROWTH) -> bool:
    """Tell whether JSON would take far more memory than its text.

    Marks inside strings are counted too, so it errs on the careful side.
    """
    size = len(text)
    if size <= LIGHT_BYTES:
        return False
    limit = growth * max(size, _MIB)
    sample = bytes(random.choices(text, k=_SAMPLED_MARKS * _COST_MAX * size // limit))
    if _grown(sample) / len(sample) < limit / size / 2:
        return False
    return _grown(text) > limit


def _grown(text: bytes) -> int:
    """Return the most memory that JSON may take."""
    return sum(text.count(mark) * cost for mark, cost in _COSTS.items())


def refuse_dense(frame: bytes) -> None:
    """Refuse a frame of JSON that is dense.

    Raises:
        MalformedFrame: It is.
    """
    if is_dense(frame, FRAME_GROWTH):
        raise MalformedFrame(f"a frame of {len(frame)} bytes would take far more memory than that")


def refuse_crowded(batch: bytes) -> None:
    """Refuse a ``ResponseBatch`` of more messages than can say anything in so few bytes.

    Raises:
        MalformedFrame: It is one, or it is not even a ``ResponseBatch``.
    """
    limit = left = len(batch) // MESSAGE_BYTES_MIN
    # Each response, message and status begins with this byte: few of it, few of them. The
    # next one is found far sooner than all are counted.
    at = batch.find(b"\x0a")
    while at >= 0 and left:
        at, left = batch.find(b"\x0a", at + 1), left - 1
    if at < 0:
        return
    # It is also a newline, and bodies are anybody's: only what counts is counted now.
    for count, _ in enumerate(_parts(batch)):
        if count > limit:
            raise MalformedFrame(f"a frame of {len(batch)} bytes holds far too many messages")


def _parts(batch: bytes) -> Iterator[None]:
    """Yield once for each response, message and status."""
    for response in _fields(batch, (0, len(batch)), 1):
        yield
        for command in _fields(batch, response, 2):
            for _ in _fields(batch, command, 1):
                yield


def _fields(batch: bytes, within: tuple[int, int], last: int) -> Iterator[tuple[int, int]]:
    """Yield from where to where the sub-messages with numbers up to ``last`` go."""
    at, end = within
    end = min(end, len(batch))
    while at < end:
        tag, at = (batch[at], at + 1) if batch[at] < 128 else _varint(batch, at)
        match tag & 7:
            case 0:
                _, at = _varint(batch, at)
            case 1:
                at += 8
            case 2:
                length, at = (batch[at], at + 1) if at < end and batch[at] < 128 else _varint(batch, at)
                if tag >> 3 <= last:
                    yield at, at + length
                at += length
            case 5:
                at += 4
            case _:
                raise MalformedFrame(f"a frame of {len(batch)} bytes is no protobuf ResponseBatch")


def _varint(batch: bytes, at: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    number = 0
    for position, byte in enumerate(batch[at : at + 10]):
        number |= (byte & 127) << 7 * position
        if byte < 128:
            return number, at + position + 1
    raise MalformedFrame(f"a frame of {len(batch)} bytes is no protobuf ResponseBatch")
