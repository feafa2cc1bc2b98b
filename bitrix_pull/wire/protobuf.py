"""The binary format of push server version 4 (protocol §4.2)."""

from collections.abc import Collection, Iterable, Iterator, Set
from functools import lru_cache
from typing import Any

from google.protobuf.message import DecodeError

from bitrix_pull.errors import MalformedFrame
from bitrix_pull.events import BACKEND_SENDER, UNKNOWN_SENDER, PullEvent, Sender, SenderType
from bitrix_pull.wire import push_pb2
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.json_guard import LIGHT_BYTES, refuse_crowded
from bitrix_pull.wire.json_text import parser_for
from bitrix_pull.wire.messages import ChannelStatus, Control, Incoming, Malformed, Unread, read_message
from bitrix_pull.wire.skim import NO_TOPICS, Topic, skim


class Publication:
    """One message to publish (protocol §7), encoded as pieces that a request joins.

    The runtime would copy each body several times. So it encodes what is around the bodies
    only, most of which is the same in many messages.

    Attributes:
        size: The bytes that it takes in a request: those of the three below.
        head: What stands before the body.
        body: Its JSON text.
        tail: What stands behind it.
    """

    __slots__ = ("body", "head", "size", "tail")

    def __init__(self, receivers: Iterable[PublicChannel] | bytes, body: bytes, expiry_s: int) -> None:
        """Write a message.

        Args:
            receivers: The public channels that get it, or what ``encode_receivers`` has made of them:
                of the same ones again and again, once is enough.
            body: Its JSON text.
            expiry_s: How long the server keeps it for replay; 0: not at all.
        """
        if not isinstance(receivers, bytes):
            receivers = encode_receivers(receivers)
        before = receivers + _BODY + _varint(len(body))
        tail = _expiry(expiry_s)
        length = len(before) + len(body) + len(tail)
        head = _MESSAGE + _varint(length) + before
        self.head: bytes = head
        self.body: bytes = body
        self.tail: bytes = tail
        self.size: int = len(head) - len(before) + length


def read(frame: bytes, unwanted: Set[Topic] = NO_TOPICS) -> Iterator[Incoming]:
    """Read a ``ResponseBatch``, each message when it is asked for.

    Args:
        frame: The bytes.
        unwanted: What nobody wants. A message about it comes as an ``Unread`` where that can be
            told without parsing its body, which then may be spoilt.

    Raises:
        MalformedFrame: The bytes are no such message. A single bad body inside a sound
            frame is a ``Malformed`` in the result instead.
    """
    if len(frame) > LIGHT_BYTES:
        refuse_crowded(frame)
    try:
        response = push_pb2.Received.FromString(frame).responses
    except DecodeError:
        raise MalformedFrame(f"a frame of {len(frame)} bytes is no protobuf ResponseBatch") from None
    if response.HasField("channelStats"):
        for channel in response.channelStats.channels:
            yield ChannelStatus(channel.id.hex(), channel.isOnline)
    # A list of the runtime's own ends by an exception, which costs as much as a message.
    messages = response.outgoingMessages.messages[:]
    if unwanted:
        bodies = [message.body for message in messages]
        if (told := skim(frame, bodies, unwanted)) is not None:
            for message, about in zip(messages, told, strict=True):
                if about is None:
                    yield _read_alone(message)
                else:
                    mid, created_unix = message.id.hex(), message.created or None
                    yield Unread(mid, about[0], about[1], created_unix, message, _read_alone)
            return
    parse = parser_for(frame, len(frame) // max(len(messages), 1), mids=False)
    for message in messages:
        sender = message.sender
        yield read_message(
            message.id.hex(),
            message.body,
            _SENDERS.get(sender) or _sender(sender),
            message.created or None,
            message.expiry,
            parse,
        )


def _read_alone(message: push_pb2.ReceivedMessage) -> PullEvent[Any] | Control | Malformed:
    body, sender = message.body, message.sender
    return read_message(
        message.id.hex(),
        body,
        _SENDERS.get(sender) or _sender(sender),
        message.created or None,
        message.expiry,
        parser_for(body, len(body), mids=False),
    )


def wrapped(fields: memoryview, depth: int) -> bytes:
    """Return a ``ResponseBatch`` of what stands so deep in one: 1 in a response, 2 among its messages."""
    head, size = b"", len(fields)
    for _ in range(depth):
        head = b"".join([_LAYER, _varint(size + len(head)), head])
    return b"".join([head, fields])


MID_BYTES = 13
"""A message's id."""

_LAYER = b"\x0a"
"""The tag of ``ResponseBatch.responses``, and of ``Response.outgoingMessages``."""

_SENDERS = {push_pb2.Sender(type=push_pb2.BACKEND).SerializeToString(): BACKEND_SENDER, b"": UNKNOWN_SENDER}
"""Senders that can be told by their bytes: nearly all of them."""


def _sender(written: bytes) -> Sender:
    try:
        sender = push_pb2.Sender.FromString(written)
    except DecodeError:
        return UNKNOWN_SENDER
    match sender.type:
        case push_pb2.CLIENT:
            return Sender(SenderType.CLIENT, sender.id.hex())
        case push_pb2.BACKEND:
            return Sender(SenderType.BACKEND, sender.id.hex())
        case _:
            return UNKNOWN_SENDER


def encode_receivers(channels: Iterable[PublicChannel]) -> bytes:
    """Write the receivers of a ``Publication``."""
    return b"".join(map(_receiver, channels))


def encode_publications(publications: Collection[Publication]) -> bytes:
    """Write a ``RequestBatch`` of one request that publishes all of them (protocol §7)."""
    pieces = [_request_header(sum([each.size for each in publications]))]
    for each in publications:
        pieces += each.head, each.body, each.tail
    return b"".join(pieces)


def request_size(publications_size: int) -> int:
    """Return the bytes of a whole request whose messages take so many together."""
    return len(_request_header(publications_size)) + publications_size


_REQUEST = b"\x0a"
"""The tag of ``RequestBatch.requests``: the number of the field, and that a length follows."""

_INCOMING_MESSAGES = b"\x0a"
"""The tag of ``Request.incomingMessages``."""

_MESSAGE = b"\x0a"
"""The tag of ``IncomingMessagesRequest.messages``."""

_BODY = b"\x1a"
"""The tag of ``IncomingMessage.body``."""


def _request_header(publications_size: int) -> bytes:
    """Return what stands before the messages of a request. It is there even if they are none."""
    inner = _INCOMING_MESSAGES + _varint(publications_size)
    return _REQUEST + _varint(len(inner) + publications_size) + inner


@lru_cache(maxsize=4_096)
def _receiver(channel: PublicChannel) -> bytes:
    """Return a receiver as it stands in an ``IncomingMessage``."""
    receiver = push_pb2.Receiver(id=channel.id, signature=channel.signature)
    return push_pb2.IncomingMessage(receivers=[receiver]).SerializeToString()


@lru_cache(maxsize=16)
def _expiry(expiry_s: int) -> bytes:
    """Return an expiry as it stands in an ``IncomingMessage``."""
    return push_pb2.IncomingMessage(expiry=expiry_s).SerializeToString()


@lru_cache(maxsize=4_096)
def _varint(number: int) -> bytes:
    """Return a number as protobuf writes it: seven bits a byte, the lowest first."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def encode_status_request(channels: Iterable[PublicChannel]) -> bytes:
    """Write a ``RequestBatch`` that asks which public channels are online."""
    request = push_pb2.Request()
    request.channelStats.SetInParent()
    for channel in channels:
        request.channelStats.channels.add(id=channel.id, signature=channel.signature)
    return push_pb2.RequestBatch(requests=[request]).SerializeToString()
