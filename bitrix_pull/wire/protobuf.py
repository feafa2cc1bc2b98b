"""The binary format of push server version 4 (protocol §4.2)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from bitrix_pull.errors import MalformedFrame
from bitrix_pull.events import BACKEND_SENDER, UNKNOWN_SENDER, Sender, SenderType
from bitrix_pull.wire import push_pb2
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.density import refuse_crowded
from bitrix_pull.wire.json_text import parser_for
from bitrix_pull.wire.messages import ChannelStatus, Incoming, read_message


@dataclass(slots=True, frozen=True)
class Publication:
    """One message to publish: its JSON body, and the public channels that get it.

    Attributes:
        expiry_s: How long the server keeps it for replay; 0: not at all.
    """

    receivers: Sequence[PublicChannel]
    body: bytes
    expiry_s: int


def read(frame: bytes) -> Iterator[Incoming]:
    """Read a ``ResponseBatch``, each message when it is asked for.

    Raises:
        MalformedFrame: The bytes are no such message. A single bad body inside a sound
            frame is a ``Malformed`` in the result instead.
    """
    refuse_crowded(frame)
    received = push_pb2.Received()
    try:
        received.ParseFromString(frame)
    except DecodeError:
        raise MalformedFrame(f"a frame of {len(frame)} bytes is no protobuf ResponseBatch") from None
    response, parse = received.responses, parser_for(frame)
    if response.HasField("channelStats"):
        for channel in response.channelStats.channels:
            yield ChannelStatus(channel.id.hex(), channel.isOnline)
    for message in response.outgoingMessages.messages:
        sender = message.sender
        yield read_message(
            message.id.hex(),
            message.body,
            _SENDERS.get(sender) or _sender(sender),
            message.created or None,
            message.expiry,
            parse,
        )


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


def encode_publications(publications: Iterable[Publication]) -> bytes:
    """Write a ``RequestBatch`` of one request that publishes all of them (protocol §7)."""
    request = push_pb2.Request()
    # Also an empty request must say which command it is.
    request.incomingMessages.SetInParent()
    request.incomingMessages.messages.extend(map(_message, publications))
    return push_pb2.RequestBatch(requests=[request]).SerializeToString()


def publication_size(publication: Publication) -> int:
    """Return the bytes that a message takes in what ``encode_publications`` writes."""
    return _field(_message(publication).ByteSize())


def request_size(publications_size: int) -> int:
    """Return the bytes of a whole request whose messages take so many together."""
    return _field(_field(publications_size))


def _message(publication: Publication) -> push_pb2.IncomingMessage:
    message = push_pb2.IncomingMessage(body=publication.body, expiry=publication.expiry_s)
    for channel in publication.receivers:
        message.receivers.add(id=channel.id, signature=channel.signature)
    return message


def _field(length: int) -> int:
    """Return what a field takes whose content has this length: tag (of 15 at most), length, content."""
    return 1 + (max(length, 1).bit_length() + 6) // 7 + length


def encode_status_request(channels: Iterable[PublicChannel]) -> bytes:
    """Write a ``RequestBatch`` that asks which public channels are online."""
    request = push_pb2.Request()
    request.channelStats.SetInParent()
    for channel in channels:
        request.channelStats.channels.add(id=channel.id, signature=channel.signature)
    return push_pb2.RequestBatch(requests=[request]).SerializeToString()
