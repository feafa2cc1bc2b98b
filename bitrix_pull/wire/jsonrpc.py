"""JSON-RPC 2.0 over WebSocket text frames, version 5 and up (protocol §4.3)."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import orjson

from bitrix_pull.errors import MalformedFrame
from bitrix_pull.events import PullEvent
from bitrix_pull.wire.json_guard import BODY_GROWTH, FRAME_GROWTH, LIGHT_BYTES, TOO_DENSE, is_dense
from bitrix_pull.wire.json_text import encode_json, has_too_long, parse_leniently, parser_for
from bitrix_pull.wire.messages import (
    Control,
    Incoming,
    Malformed,
    Ping,
    Reply,
    UnknownRequest,
    interpret,
    is_nothing,
    is_object,
    read_json_text,
    read_sender,
)

PING = b"ping"
PONG = b"pong"
_BARE: Mapping[bytes, Sequence[Incoming]] = {PING: (Ping(),), PONG: (), b"": ()}
"""Frames that are no JSON, and what they hold."""

METHOD_NOT_FOUND = -32601

REQUESTS_MAX = 100
"""Requests in one frame that this client does not know and yet answers."""

HEAD = re.compile(
    rb'\[?\{"jsonrpc":\s*"2\.0",\s*"method":\s*"incoming\.message",\s*"params":\s*\{"mid":\s*"(\d{26})"'
)
"""How the server begins a message."""

_NUMBER = re.compile(r"[0-9]{1,18}")

SECOND = b',{"jsonrpc":'
"""How the second message of an array begins."""
BETWEEN = re.compile(re.escape(SECOND))


def read(frame: bytes) -> Iterator[Incoming]:
    """Read a frame: the bare text ``ping``, or requests and replies, singly or in an array.

    A bare ``pong`` and an empty frame say nothing but that the server is there.

    Raises:
        MalformedFrame: The bytes are none of these.
    """
    if len(frame) <= len(PING) and frame in _BARE:
        yield from _BARE[frame]
        return
    try:
        messages = parse(frame)
    except ValueError:
        # The parser's own error holds the frame.
        raise MalformedFrame(f"a frame of {len(frame)} bytes is no usable JSON") from None
    yield from messages


def parse(frame: bytes) -> Iterable[Incoming]:
    """Read requests and replies, singly or in an array.

    Raises:
        ValueError: The bytes are no JSON.
        MalformedFrame: They are far too dense.
    """
    is_array = frame.startswith(b"[")
    if len(frame) > LIGHT_BYTES and is_dense(frame, FRAME_GROWTH if is_array else BODY_GROWTH):
        # Where one message ends and the next begins could only be told by reading it all.
        head = HEAD.match(frame)
        if head is None:
            raise MalformedFrame(f"a frame of {len(frame)} bytes is far too dense")
        return [Malformed(head[1].decode(), TOO_DENSE)]
    second = frame.find(SECOND) if is_array else -1
    parse = parser_for(frame, second if second > 0 else len(frame))
    content: Any = orjson.loads(frame) if parse is orjson.loads else _parse_leniently(frame)
    items: list[dict[str, Any]] = content
    if type(content) is not list:
        items = [content]
    return _read_items(items, len(frame) // max(len(items), 1))


def _read_items(items: list[dict[str, Any]], size: int) -> Iterator[Incoming]:
    unknown = 0
    for item in items:
        params: dict[str, Any] | None = item.get("params") if type(item) is dict else None
        if type(params) is dict and item.get("method") == "incoming.message":
            yield _read_message(params, size)
            continue
        message = _read_other(item)
        if type(message) is UnknownRequest:
            unknown += 1
            if unknown > REQUESTS_MAX:
                raise MalformedFrame(f"a frame holds over {REQUESTS_MAX} requests that want an answer")
        yield message


def _parse_leniently(frame: bytes) -> object:
    """Parse a frame so that one integer that cannot be read does not take the other messages along."""
    content = parse_leniently(frame)
    items = cast("list[object]", content) if isinstance(content, list) else [content]
    return [_unreadable(item) if has_too_long(item) else item for item in items]


def acknowledgement(mid: str) -> bytes:
    """Return the bare text that tells the server that a message is safe with us."""
    return b"mack:" + mid.encode()


def encode_call(call_id: int, method: str, params: Mapping[str, Any]) -> bytes:
    """Write one of our own calls."""
    return encode_json({"jsonrpc": "2.0", "method": method, "params": params, "id": call_id})


def encode_unknown(request_id: int | str | None) -> bytes:
    """Write the answer to a request that this client does not know."""
    error = {"code": METHOD_NOT_FOUND, "message": "Method not found"}
    return encode_json({"jsonrpc": "2.0", "error": error, "id": request_id})


def _read_other(item: object) -> Incoming:
    if not is_object(item):
        return item if isinstance(item, Malformed) else Malformed("", "a JSON-RPC message is no object")
    identity = item.get("id")
    if "method" in item:
        return UnknownRequest(identity if isinstance(identity, int | str) else None)
    if "result" not in item and "error" not in item:
        return Malformed("", "a JSON-RPC message is neither request nor reply")
    # Some write numbers as text; to a request that it could not read a server replies to nobody.
    call_id = int(identity) if isinstance(identity, str) and _NUMBER.fullmatch(identity) else identity
    if not isinstance(call_id, int):
        call_id = None
    error: object = item.get("error")
    if "result" in item and is_nothing(error):
        return Reply(call_id, item["result"])
    if not is_object(error):
        return Reply(call_id, None, 0, "" if is_nothing(error) else str(error))
    code = error.get("code")
    return Reply(call_id, None, code if isinstance(code, int) else 0, str(error.get("message", "")))


def _unreadable(item: object) -> Malformed:
    params = item.get("params") if is_object(item) else None
    mid = params.get("mid") if is_object(params) else None
    return Malformed(mid if isinstance(mid, str) else "", "an integer in it has too many digits")


def _read_message(params: dict[str, Any], size: int) -> PullEvent[Any] | Control | Malformed:
    mid, body = params.get("mid"), params.get("body")
    if type(mid) is not str:
        mid = ""
    if "user_params" in params or "dictionary" in params:
        _merge(body, params)
    sender = read_sender(params.get("sender"))
    if type(body) is str:
        return read_json_text(mid, body, sender)
    return interpret(mid, body, sender, size)


def _merge(body: object, params: dict[str, Any]) -> None:
    """Put what comes beside a body into its params."""
    additions = [item for name in ("user_params", "dictionary") if is_object(item := params.get(name))]
    if not additions or not is_object(body):
        return
    inner = body.get("params")
    if is_object(inner) or not inner:
        merged = dict(inner) if is_object(inner) else {}
        for addition in additions:
            merged.update(addition)
        body["params"] = merged
