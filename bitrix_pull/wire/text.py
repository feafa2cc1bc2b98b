"""The text formats: delimited JSON (version ≤ 3, or 4 without ``binaryMode``) and ``format=json``.

A delimited frame is any number of ``#!NGINXNMS!#`` + JSON + ``#!NGINXNME!#``; the JSON may
hold both marks inside its strings. ``format=json`` is an array of the same objects, which only
the cloud's servers know: those of a box answer delimited JSON to it. So what a frame is is told
by its first bytes (protocol §4.1).
"""

import re
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import repeat
from typing import Any

from bitrix_pull.errors import MalformedFrame
from bitrix_pull.events import UNKNOWN_SENDER, PullEvent
from bitrix_pull.wire.json_guard import FRAME_GROWTH, LIGHT_BYTES, TOO_DENSE, is_dense, refuse_dense
from bitrix_pull.wire.json_text import Parse, parser_for
from bitrix_pull.wire.messages import (
    Incoming,
    Malformed,
    Position,
    interpret,
    is_object,
    read_json_text,
    read_sender,
)

OPENING = b"#!NGINXNMS!#"
CLOSING = b"#!NGINXNME!#"

_BETWEEN_MARKS = CLOSING + OPENING

_KEEP_ALIVES = (b"", b'""')
"""Frames of a server of version 2 that say nothing but that it is there (protocol §4.1)."""

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
HEAD = re.compile(rb'\{"id":\d+,"mid":"(\d{26})"')
"""How the server begins an envelope; legible also where a body that is no JSON spoilt the rest."""
SECOND = b',{"id":'
"""How the second message of an array begins."""
BETWEEN = re.compile(rb',(?=\{"id":\d+,"mid":"\d{26}")')


def read(frame: bytes) -> Iterable[Incoming]:
    """Read a frame or poll body of either format, each message when it is asked for.

    Raises:
        MalformedFrame: The bytes are no JSON array and hold no delimited message.
    """
    if frame.startswith(b"["):
        return _read_array(frame)
    start = frame.find(OPENING)
    if start < 0 and frame not in _KEEP_ALIVES:
        raise MalformedFrame(f"a frame of {len(frame)} bytes holds no message in text")
    return _read_envelopes(_envelopes(frame, start))


def parse_array(frame: bytes) -> Iterable[Incoming]:
    """Read an array of messages none of which is spoilt.

    Raises:
        ValueError: The bytes are no JSON.
        MalformedFrame: They are far too dense.
    """
    if is_dense(frame, FRAME_GROWTH) and (head := HEAD.match(frame, 1)):
        # Where one message ends and the next begins could only be told by reading it all.
        return [Malformed(head[1].decode(), TOO_DENSE)]
    refuse_dense(frame)
    second = frame.find(SECOND)
    envelopes: list[object] = parser_for(frame, second if second > 0 else len(frame))(frame)
    # The share of the frame is close enough for what a message weighs in the inbox.
    size = len(frame) // max(len(envelopes), 1)
    return _read_envelopes(zip(envelopes, repeat(size)))


def _read_array(frame: bytes) -> Iterator[Incoming]:
    """Read an array of messages.

    Raises:
        MalformedFrame: The bytes are none.
    """
    try:
        messages = parse_array(frame)
    except ValueError:
        messages = _read_envelopes(_pieces(frame))
    yield from messages


def _envelopes(frame: bytes, start: int) -> Iterator[tuple[object, int]]:
    """Yield each message's parsed envelope, or a ``Malformed``, with its size; the first is at ``start``."""
    if start < 0:
        return
    parse: Parse | None = None
    if frame.endswith(CLOSING):
        pieces = frame[start + len(OPENING) : -len(CLOSING)].split(_BETWEEN_MARKS)
        parse = _parser(frame, len(pieces[0]))
        for piece in pieces:
            try:
                # No proper prefix of a JSON object is JSON, so if this parses, it is a whole message.
                envelope = parse(piece)
            except ValueError:
                break
            yield envelope, len(piece)
            start += len(piece) + len(_BETWEEN_MARKS)
        else:
            return
    yield from _doubtful_envelopes(frame, start, parse or _parser(frame, len(frame)))


def _doubtful_envelopes(frame: bytes, start: int, parse: Parse) -> Iterator[tuple[object, int]]:
    """Yield the same of what has marks inside its strings, or is spoilt, or is not closed."""
    while start >= 0:
        start += len(OPENING)
        end = frame.find(CLOSING, start)
        if end < 0:
            end = len(frame)
        try:
            envelope = parse(frame[start:end])
        except ValueError:
            match = _TO_CLOSING.match(frame, start)
            try:
                if match is None:
                    raise
                end = match.end() - len(CLOSING)
                envelope = parse(frame[start:end])
            except ValueError:
                yield _spoilt(frame, start), 0
                start = _next_message(frame, start)
                continue
        yield envelope, end - start
        start = frame.find(OPENING, end)


def _parser(frame: bytes, message_bytes: int) -> Parse:
    """Return what parses the messages of a frame, each of them about so long, and none that is dense."""
    parse = parser_for(frame, message_bytes)
    return parse if len(frame) <= LIGHT_BYTES else partial(_parse_light, parse)


def _parse_light(parse: Parse, piece: bytes) -> object:
    if is_dense(piece):
        raise ValueError(TOO_DENSE)
    return parse(piece)


def _next_message(frame: bytes, start: int) -> int:
    """Return the offset of the opening mark behind a spoilt message, or -1."""
    boundary = _BOUNDARY.search(frame, start)
    return boundary.end() if boundary is not None else -1


def _pieces(frame: bytes) -> Iterator[tuple[object, int]]:
    """Yield the same for an array that a body has spoilt, as the server pastes bodies unread.

    Raises:
        MalformedFrame: This is no array of messages.
    """
    if not (frame.startswith(b"[") and frame.endswith(b"]") and HEAD.match(frame, 1)):
        # The parser's own error holds the frame.
        raise MalformedFrame(f"a frame of {len(frame)} bytes is no JSON") from None
    parse = _parser(frame, len(frame))
    for piece in BETWEEN.split(frame[1:-1]):
        try:
            yield parse(piece), len(piece)
        except ValueError:
            yield _spoilt(piece, 0), len(piece)


def _spoilt(frame: bytes, start: int) -> Malformed:
    head = HEAD.match(frame, start)
    return Malformed(head[1].decode() if head else "", "a message of a text frame is no JSON")


def _read_envelopes(envelopes: Iterable[tuple[Any, int]]) -> Iterator[Incoming]:
    spoilt = 0
    for envelope, size in envelopes:
        message = _read_envelope(envelope, size)
        yield message
        if type(message) is PullEvent and message.mid:
            continue
        spoilt += isinstance(message, Malformed)
        if spoilt > SPOILT_MAX:
            raise MalformedFrame("most of a text frame is no message")
        if (position := _position(envelope)) is not None:
            yield position


def _position(envelope: object) -> Position | None:
    """Return where a server stands that writes no mids (version 2 and older)."""
    if not is_object(envelope) or "mid" in envelope:
        return None
    tag, time = envelope.get("tag"), envelope.get("time")
    return Position(str(tag), str(time)) if tag is not None and time is not None else None


def _read_envelope(content: Any, size: int) -> Incoming:
    envelope: dict[str, Any] = content
    if type(envelope) is not dict:
        if type(content) is Malformed:
            return content
        return Malformed("", "a message of a text frame is no JSON object")
    mid, body = envelope.get("mid"), envelope.get("text")
    extra: dict[str, Any] | None = envelope.get("extra")
    if type(mid) is not str:
        mid = ""
    sender = read_sender(extra.get("sender")) if type(extra) is dict else UNKNOWN_SENDER
    if type(body) is str:
        return read_json_text(mid, body, sender)
    return interpret(mid, body, sender, size)
