"""Values to the bytes that the push server sends, in each of its formats (protocol §4)."""

from collections.abc import Callable, Iterable, Sequence
from email.utils import formatdate
from typing import Any

import orjson
from websockets.frames import Frame, Opcode

from bitrix_pull.emulator.history import Message
from bitrix_pull.events import SenderType
from bitrix_pull.wire import push_pb2
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.text import CLOSING, OPENING

_SENDER_TYPES = {
    SenderType.UNKNOWN: push_pb2.UNKNOWN,
    SenderType.CLIENT: push_pb2.CLIENT,
    SenderType.BACKEND: push_pb2.BACKEND,
}

KEEP_ALIVE = (
    Frame(Opcode.PING, b"").serialize(mask=False),
    Frame(Opcode.TEXT, b'""').serialize(mask=False),
    Frame(Opcode.TEXT, b"").serialize(mask=False),
)
"""What version 2 sends from time to time: a ping, and frames with nothing in them (protocol §4.1)."""


class Outgoing:
    """Messages on their way to any number of subscribers: one response of the protocol.

    Each format is written once, however many subscribers want it, and not at all if none does.

    Args:
        messages: In the order of their mids.
        sent_at: Unix time.
        with_mids: False for version 2, which has none.
    """

    def __init__(self, messages: Sequence[Message], sent_at: float, *, with_mids: bool = True) -> None:
        self._messages = messages
        self._sent_at = sent_at
        self._with_mids = with_mids
        self._chunks: dict[WireFormat, bytes] = {}
        self._websocket_frames: dict[WireFormat, bytes] = {}

    def chunk(self, wire_format: WireFormat) -> bytes:
        """Return what ``join`` makes a frame or a poll body of."""
        chunk = self._chunks.get(wire_format)
        if chunk is None:
            write = _WRITERS[wire_format] if self._with_mids else _write_without_mids
            chunk = self._chunks[wire_format] = write(self._messages, self._sent_at)
        return chunk

    def websocket_frame(self, wire_format: WireFormat) -> bytes:
        """Return the bytes on the wire of a WebSocket frame that holds this alone."""
        frame = self._websocket_frames.get(wire_format)
        if frame is None:
            frame = websocket_frame(wire_format, [self.chunk(wire_format)])
            self._websocket_frames[wire_format] = frame
        return frame


def join(wire_format: WireFormat, chunks: Sequence[bytes]) -> bytes:
    """Gather several responses into one payload."""
    if wire_format is WireFormat.JSON:
        return b"[" + b",".join(chunks) + b"]"
    if wire_format is WireFormat.JSONRPC:
        return chunks[0] if len(chunks) == 1 else b"[" + b",".join(map(_without_brackets, chunks)) + b"]"
    # Protobuf messages merge by concatenation, and so does delimited text.
    return b"".join(chunks)


def websocket_frame(wire_format: WireFormat, chunks: Sequence[bytes]) -> bytes:
    """Return the bytes on the wire of one WebSocket frame (a server's: not masked)."""
    opcode = Opcode.BINARY if wire_format is WireFormat.PROTOBUF else Opcode.TEXT
    return Frame(opcode, join(wire_format, chunks)).serialize(mask=False)


def text_frame(text: bytes) -> bytes:
    """Return the bytes on the wire of one text frame."""
    return Frame(Opcode.TEXT, text).serialize(mask=False)


def channel_stats(channels: Iterable[tuple[bytes, bool, bool]]) -> bytes:
    """Write the answer to ``channelStats``: id, is it private, is it online, for each."""
    response = push_pb2.Response()
    response.channelStats.SetInParent()
    for channel_id, is_private, is_online in channels:
        response.channelStats.channels.add(id=channel_id, isPrivate=is_private, isOnline=is_online)
    return _batch(response)


def server_stats(json: bytes) -> bytes:
    """Write the answer to ``serverStats``."""
    return _batch(push_pb2.Response(serverStats=push_pb2.JsonResponse(json=json.decode())))


def _write_protobuf(messages: Sequence[Message], sent_at: float) -> bytes:
    response = push_pb2.Response()
    for message in messages:
        response.outgoingMessages.messages.add(
            id=bytes.fromhex(message.mid),
            body=message.body,
            expiry=message.expiry_s,
            created=int(message.created),
            sender=push_pb2.Sender(
                type=_SENDER_TYPES[message.sender.type], id=bytes.fromhex(message.sender.id)
            ),
        )
    return _batch(response)


def _batch(response: push_pb2.Response) -> bytes:
    return push_pb2.ResponseBatch(responses=[response]).SerializeToString()


def _write_text(messages: Sequence[Message], sent_at: float) -> bytes:
    return b"".join(OPENING + envelope + CLOSING for envelope in _envelopes(messages, sent_at))


def _write_json(messages: Sequence[Message], sent_at: float) -> bytes:
    return b",".join(_envelopes(messages, sent_at))


def _write_without_mids(messages: Sequence[Message], sent_at: float) -> bytes:
    # What stands in a tag is the server's business: here it is the mid, so a tag alone says
    # where to resume. The time goes with it as that of the message.
    return b"".join(
        OPENING + _envelope(message, "", message.mid, formatdate(message.created, usegmt=True)) + CLOSING
        for message in messages
    )


def _envelopes(messages: Sequence[Message], sent_at: float) -> Iterable[bytes]:
    # The real server, too, stamps the moment of sending here, and pastes the body as it
    # is: one that is no JSON spoils the envelope around it.
    tag = f"{int(sent_at * 1000) % 1000:03}"
    time = formatdate(sent_at, usegmt=True)
    for message in messages:
        yield _envelope(message, f'"mid":"{message.mid}",', tag, time)


def _envelope(message: Message, mid: str, tag: str, time: str) -> bytes:
    extra = ""
    if message.sender.type is SenderType.CLIENT:
        sender = {"type": int(message.sender.type), "id": message.sender.id}
        extra = f',"extra":{orjson.dumps({"sender": sender}).decode()}'
    head = f'{{"id":{int(message.mid[10:])},{mid}"channel":"-","tag":"{tag}","time":"{time}","text":'
    body = message.body.decode(errors="replace")
    return f"{head}{body}{extra}}}".encode()


def _write_requests(messages: Sequence[Message], sent_at: float) -> bytes:
    # Without ids: what acknowledges a message is `mack`, not a reply (protocol §4.3).
    requests = [
        orjson.dumps(
            {
                "jsonrpc": "2.0",
                "method": "incoming.message",
                "params": {
                    "mid": message.mid,
                    "body": _json(message.body),
                    "sender": {"type": int(message.sender.type), "id": message.sender.id},
                    **message.additions,
                },
            }
        )
        for message in messages
    ]
    return join(WireFormat.JSONRPC, requests)


def _json(body: bytes) -> Any:
    """Return a body for pasting into JSON; one that is no JSON as a string."""
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode(errors="replace")
    return orjson.Fragment(body)


def _without_brackets(chunk: bytes) -> bytes:
    return chunk[1:-1] if chunk.startswith(b"[") else chunk


_WRITERS: dict[WireFormat, Callable[[Sequence[Message], float], bytes]] = {
    WireFormat.TEXT: _write_text,
    WireFormat.JSON: _write_json,
    WireFormat.PROTOBUF: _write_protobuf,
    WireFormat.JSONRPC: _write_requests,
}
