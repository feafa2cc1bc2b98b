"""The text formats: delimited JSON (version ≤ 3, or 4 without ``binaryMode``) and ``format=json``.

A delimited frame is any number of ``#!NGINXNMS!#`` + JSON + ``#!NGINXNME!#``; the JSON may
hold both marks inside its strings (protocol §4.1).
"""

import re
from collections.abc import Iterable, Iterator
from typing import cast

from bitrix_pull.errors import MalformedFrame
from bitrix_pull.events import UNKNOWN_SENDER, PullEvent
from bitrix_pull.wire.density import FRAME_GROWTH, LIGHT_BYTES, TOO_DENSE, is_dense, refuse_dense
from bitrix_pull.wire.json_text import Parse, parser_for
from bitrix_pull.wire.messages import (
    Incoming,
    Malformed,
    Position,
    interpret,
    is_object,
    read_message,
    read_sender,
)

OPENING = b"#!NGINXNMS!#"
CLOSING = b"#!NGINXNME!#"

SPOILT_MAX = 1_000
"""Messages of one frame that may be unreadable before the frame as a whole is."""

_TO_CLOSING = re.compile(
    # Everything up to the first closing mark outside a JSON string, without backtracking.
    # It stops at a backslash outside a string, which is no JSON: otherwise every message
    # of a garbled frame could be scanned to the frame's end.
    rb'(?>[^"#\\]++|"(?>[^"\\]++|\\.)*+"|\#(?!!NGINXNME!\#))*+#!NGINXNME!#',
    re.DOTALL,
)
_BOUNDARY = re.compile(CLOSING + rb"\s*(?=" + OPENING + rb")")
_HEAD = re.compile(rb'\{"id":\d+,"mid":"(\d{26})"')
"""How the server begins an envelope; legible also where a body that is no JSON spoilt the rest."""
_BETWEEN = re.compile(rb',(?=\{"id":\d+,"mid":"\d{26}")')


def read(frame: bytes) -> Iterator[Incoming]:
    """Read a frame or poll body of delimited JSON, each message when it is asked for.

    Raises:
        MalformedFrame: The bytes hold no delimited message at all.
    """
    if not frame:
        return
    if OPENING not in frame:
        raise MalformedFrame(f"a frame of {len(frame)} bytes holds no delimited message")
    yield from _read_envelopes(_envelopes(frame))


def read_json(frame: bytes) -> Iterator[Incoming]:
    """Read a frame or poll body of ``format=json``: an array of the same objects.

    Raises:
        MalformedFrame: The bytes are no JSON array of messages.
    """
    if not frame:
        return
    if is_dense(frame, FRAME_GROWTH) and (head := _HEAD.match(frame, 1)):
        # Where one message ends and the next begins could only be told by reading it all.
        yield Malformed(head[1].decode(), TOO_DENSE)
        return
    refuse_dense(frame)
    try:
        items: object = parser_for(frame)(frame)
    except ValueError:
        yield from _read_envelopes(_pieces(frame))
        return
    if not isinstance(items, list):
        raise MalformedFrame(f"a frame of {len(frame)} bytes is no JSON array")
    envelopes = cast("list[object]", items)
    # The share of the frame is close enough for what a message weighs in the inbox.
    size = len(frame) // max(len(envelopes), 1)
    yield from _read_envelopes((item, size) for item in envelopes)


def _envelopes(frame: bytes) -> Iterator[tuple[object, int] | Malformed]:
    """Yield each message's parsed envelope with its size, or what is wrong with it."""
    parse = parser_for(frame)
    start = frame.find(OPENING)
    while start >= 0:
        start += len(OPENING)
        end = frame.find(CLOSING, start)
        if end < 0:
            end = len(frame)
        try:
            # No proper prefix of a JSON object is JSON, so if this parses, `end` is right.
            envelope = _parse(frame[start:end], parse)
        except ValueError:
            # The mark stood inside a string, or the message is spoilt.
            match = _TO_CLOSING.match(frame, start)
            try:
                if match is None:
                    raise
                end = match.end() - len(CLOSING)
                envelope = _parse(frame[start:end], parse)
            except ValueError:
                yield _spoilt(frame, start)
                start = _next_message(frame, start)
                continue
        yield envelope, end - start
        start = frame.find(OPENING, end)


def _parse(piece: bytes, parse: Parse) -> object:
    if len(piece) > LIGHT_BYTES and is_dense(piece):
        raise ValueError(TOO_DENSE)
    return parse(piece)


def _next_message(frame: bytes, start: int) -> int:
    """Return the offset of the opening mark behind a spoilt message, or -1."""
    boundary = _BOUNDARY.search(frame, start)
    return boundary.end() if boundary is not None else -1


def _pieces(frame: bytes) -> Iterator[tuple[object, int] | Malformed]:
    """Yield the same for an array that a body has spoilt, as the server pastes bodies unread.

    Raises:
        MalformedFrame: This is no array of messages.
    """
    if not (frame.startswith(b"[") and frame.endswith(b"]") and _HEAD.match(frame, 1)):
        # The parser's own error holds the frame.
        raise MalformedFrame(f"a frame of {len(frame)} bytes is no JSON") from None
    parse = parser_for(frame)
    for piece in _BETWEEN.split(frame[1:-1]):
        try:
            yield _parse(piece, parse), len(piece)
        except ValueError:
            yield _spoilt(piece, 0)


def _spoilt(frame: bytes, start: int) -> Malformed:
    head = _HEAD.match(frame, start)
    return Malformed(head[1].decode() if head else "", "a message of a text frame is no JSON")


def _read_envelopes(items: Iterable[tuple[object, int] | Malformed]) -> Iterator[Incoming]:
    spoilt = 0
    for item in items:
        message = _read_envelope(item)
        yield message
        if isinstance(message, PullEvent) and message.mid:
            continue
        spoilt += isinstance(message, Malformed)
        if spoilt > SPOILT_MAX:
            raise MalformedFrame("most of a text frame is no message")
        if not isinstance(item, Malformed) and (position := _position(item[0])) is not None:
            yield position


def _position(envelope: object) -> Position | None:
    """Return where a server stands that writes no mids (version 2 and older)."""
    if not is_object(envelope) or "mid" in envelope:
        return None
    tag, time = envelope.get("tag"), envelope.get("time")
    return Position(str(tag), str(time)) if tag is not None and time is not None else None


def _read_envelope(item: tuple[object, int] | Malformed) -> Incoming:
    if isinstance(item, Malformed):
        return item
    envelope, size = item
    if not is_object(envelope):
        return Malformed("", "a message of a text frame is no JSON object")
    mid = envelope.get("mid")
    mid = mid if isinstance(mid, str) else ""
    content = envelope.get("text")
    extra = envelope.get("extra")
    sender = read_sender(extra.get("sender")) if is_object(extra) else UNKNOWN_SENDER
    if isinstance(content, str):
        body = content.encode(errors="replace")
        return read_message(mid, body, sender, parse=parser_for(body))
    return interpret(mid, content, sender, size)
