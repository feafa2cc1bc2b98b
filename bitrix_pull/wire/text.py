"""The text formats: delimited JSON (version ≤ 3, or 4 without ``binaryMode``) and ``format=json``.

A delimited frame is any number of ``#!NGINXNMS!#`` + JSON + ``#!NGINXNME!#``; the JSON may
hold both marks inside its strings (protocol §4.1).
"""

import re
from collections.abc import Iterator
from typing import cast

import orjson

from bitrix_pull.errors import MalformedFrame
from bitrix_pull.events import BACKEND_SENDER, UNKNOWN_SENDER, Sender, SenderType
from bitrix_pull.wire.messages import Incoming, Malformed, interpret, is_object, read_message

OPENING = b"#!NGINXNMS!#"
CLOSING = b"#!NGINXNME!#"
_TO_CLOSING = re.compile(
    # Everything up to the first closing mark outside a JSON string, without backtracking.
    rb'(?>[^"#]++|"(?>[^"\\]++|\\.)*+"|\#(?!!NGINXNME!\#))*+#!NGINXNME!#',
    re.DOTALL,
)


def decode(frame: bytes) -> list[Incoming]:
    """Read a frame or poll body of delimited JSON.

    Raises:
        MalformedFrame: The bytes hold no delimited message at all.
    """
    if not frame:
        return []
    if OPENING not in frame:
        raise MalformedFrame(f"a frame of {len(frame)} bytes holds no delimited message")
    return [_read_envelope(item) for item in _envelopes(frame)]


def decode_json(frame: bytes) -> list[Incoming]:
    """Read a frame or poll body of ``format=json``: an array of the same objects.

    Raises:
        MalformedFrame: The bytes are no JSON array.
    """
    if not frame:
        return []
    try:
        items: object = orjson.loads(frame)
    except orjson.JSONDecodeError:
        raise MalformedFrame(f"a frame of {len(frame)} bytes is no JSON") from None
    if not isinstance(items, list):
        raise MalformedFrame(f"a frame of {len(frame)} bytes is no JSON array")
    envelopes = cast("list[object]", items)
    # The share of the frame is close enough for what a message weighs in the inbox.
    size = len(frame) // max(len(envelopes), 1)
    return [_read_envelope((item, size)) for item in envelopes]


def _envelopes(frame: bytes) -> Iterator[tuple[object, int] | Malformed]:
    """Yield each message's parsed envelope with its size, or what is wrong with it."""
    view = memoryview(frame)
    start = frame.find(OPENING)
    while start >= 0:
        start += len(OPENING)
        end = frame.find(CLOSING, start)
        if end < 0:
            end = len(frame)
        try:
            # No proper prefix of a JSON object is JSON, so if this parses, `end` is right.
            envelope: object = orjson.loads(view[start:end])
        except orjson.JSONDecodeError:
            # The mark stood inside a string, or the message is spoilt.
            match = _TO_CLOSING.match(frame, start)
            try:
                if match is None:
                    raise
                end = match.end() - len(CLOSING)
                envelope = orjson.loads(view[start:end])
            except orjson.JSONDecodeError:
                yield Malformed("", "a delimited message is no JSON")
                start = _next_message(frame, start)
                continue
        yield envelope, end - start
        start = frame.find(OPENING, end)


def _next_message(frame: bytes, start: int) -> int:
    """Return the offset of the opening mark behind a spoilt message, or -1."""
    boundary = frame.find(CLOSING + OPENING, start)
    return boundary + len(CLOSING) if boundary >= 0 else -1


def _read_envelope(item: tuple[object, int] | Malformed) -> Incoming:
    if isinstance(item, Malformed):
        return item
    envelope, size = item
    if not is_object(envelope):
        return Malformed("", "a delimited message is no JSON object")
    mid = envelope.get("mid")
    mid = mid if isinstance(mid, str) else ""
    content = envelope.get("text")
    extra = envelope.get("extra")
    sender = _sender(extra.get("sender")) if is_object(extra) else UNKNOWN_SENDER
    if isinstance(content, str):
        return read_message(mid, content, sender)
    return interpret(mid, content, sender, size)


def _sender(sender: object) -> Sender:
    if not is_object(sender):
        return UNKNOWN_SENDER
    if sender.get("type") == SenderType.CLIENT:
        return Sender(SenderType.CLIENT, str(sender.get("id", "")))
    if sender.get("type") == SenderType.BACKEND:
        return BACKEND_SENDER
    return UNKNOWN_SENDER
