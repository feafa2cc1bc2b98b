"""What clients and the portal ask of the push server in a ``RequestBatch`` (protocol §4.2, §7 and §9)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from bitrix_pull.emulator.channels import Refused, Signer
from bitrix_pull.events import BACKEND_SENDER, Sender, SenderType
from bitrix_pull.wire import push_pb2
from bitrix_pull.wire.close_codes import ServerClose


@dataclass(slots=True)
class Limits:
    """What the server takes at once; real ones are set to this.

    Attributes:
        messages: In one request.
        receivers: Of one message.
        request_bytes: Of one request.
    """

    messages: int = 100
    receivers: int = 100
    request_bytes: int = 1_048_576


@dataclass(slots=True, frozen=True)
class Publish:
    """Messages to send out."""

    messages: Sequence["Publication"]


@dataclass(slots=True, frozen=True)
class Publication:
    """One of them, and the raw ids of the channels that get it."""

    channels: Sequence[bytes] = field(repr=False)
    body: bytes
    expiry_s: int
    sender: Sender


@dataclass(slots=True, frozen=True)
class ChannelStats:
    """Which of these channels is anybody connected to? Raw id, and is it private."""

    channels: Sequence[tuple[bytes, bool]] = field(repr=False)


@dataclass(slots=True, frozen=True)
class ServerStats:
    """How is the server doing?"""


Request = Publish | ChannelStats | ServerStats


def read_trusted(body: bytes, limits: Limits) -> Request:
    """Read a request of the portal, which may address private channels and needs no signatures.

    Raises:
        Refused: The server does not take it.
    """
    request = _first_request(body)
    match request.WhichOneof("command"):
        case "incomingMessages":
            return _publish(request.incomingMessages, limits, None, None)
        case "channelStats":
            return _channel_stats(request.channelStats, limits, None)
        case "serverStats":
            return ServerStats()
        case _:
            raise Refused(ServerClose.WRONG_COMMAND)


def read_untrusted(body: bytes, limits: Limits, publisher: bytes, signer: Signer) -> Publish | ChannelStats:
    """Read a request of a client, which needs the signature of each channel that it names.

    Args:
        body: A ``RequestBatch``, of which only the first request is read.
        limits: What is too much.
        publisher: Raw id of the client's own public channel: it becomes the sender.
        signer: Knows which signatures are right.

    Raises:
        Refused: The server does not take it.
    """
    request = _first_request(body)
    match request.WhichOneof("command"):
        case "incomingMessages":
            client = Sender(SenderType.CLIENT, publisher.hex())
            return _publish(request.incomingMessages, limits, signer, client)
        case "channelStats":
            return _channel_stats(request.channelStats, limits, signer)
        case "serverStats":
            raise Refused(ServerClose.COMMAND_NOT_ALLOWED)
        case _:
            raise Refused(ServerClose.WRONG_COMMAND)


def _first_request(body: bytes) -> push_pb2.Request:
    batch = push_pb2.RequestBatch()
    try:
        batch.ParseFromString(body)
    except DecodeError:
        raise Refused(ServerClose.WRONG_REQUEST) from None
    if not batch.requests:
        raise Refused(ServerClose.WRONG_REQUEST)
    return batch.requests[0]


def _publish(
    request: push_pb2.IncomingMessagesRequest,
    limits: Limits,
    signer: Signer | None,
    client: Sender | None,
) -> Publish:
    if len(request.messages) > limits.messages:
        raise Refused(ServerClose.TOO_MANY_MESSAGES)
    publications: list[Publication] = []
    for message in request.messages:
        _check(message.receivers, limits, signer)
        sender = client or _trusted_sender(message.sender)
        channels = [channel.id for channel in message.receivers]
        publications.append(Publication(channels, message.body, message.expiry, sender))
    return Publish(publications)


def _trusted_sender(sender: push_pb2.Sender) -> Sender:
    if sender.type == push_pb2.CLIENT:
        return Sender(SenderType.CLIENT, sender.id.hex())
    return BACKEND_SENDER


def _channel_stats(
    request: push_pb2.ChannelStatsRequest, limits: Limits, signer: Signer | None
) -> ChannelStats:
    _check(request.channels, limits, signer)
    return ChannelStats([(channel.id, channel.isPrivate) for channel in request.channels])


def _check(
    channels: Sequence[push_pb2.Receiver] | Sequence[push_pb2.ChannelId],
    limits: Limits,
    signer: Signer | None,
) -> None:
    """Refuse what is wrong with the channels of one message; without a signer they are trusted."""
    if not channels:
        raise Refused(ServerClose.NO_RECEIVERS)
    if len(channels) > limits.receivers:
        raise Refused(ServerClose.TOO_MANY_CHANNELS)
    for channel in channels:
        if len(channel.id) != 16:
            raise Refused(ServerClose.INVALID_CHANNEL)
        if signer is None:
            continue
        if channel.isPrivate:
            raise Refused(ServerClose.PRIVATE_RECEIVER)
        if not signer.knows(channel.id, channel.signature):
            raise Refused(ServerClose.INVALID_SIGNATURE)
