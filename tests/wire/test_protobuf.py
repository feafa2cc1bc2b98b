"""Protobuf: what only this format has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitrix_pull.events import BACKEND_SENDER, UNKNOWN_SENDER, PullEvent, Sender, SenderType
from bitrix_pull.wire import protobuf, push_pb2
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.messages import ChannelStatus, Malformed
from bitrix_pull.wire.protobuf import Publication, encode_publications, encode_status_request

BODY = b'{"module_id":"application","command":"x","params":{}}'
PUBLIC_ID = bytes(range(16))
SIGNATURE = bytes(20)


def frame(*messages: push_pb2.OutgoingMessage) -> bytes:
    responses = [
        push_pb2.Response(outgoingMessages=push_pb2.OutgoingMessagesResponse(messages=[item]))
        for item in messages
    ]
    return push_pb2.ResponseBatch(responses=responses).SerializeToString()


@pytest.mark.parametrize(
    ("written", "sender"),
    [
        (push_pb2.Sender(type=push_pb2.CLIENT, id=PUBLIC_ID), Sender(SenderType.CLIENT, PUBLIC_ID.hex())),
        (push_pb2.Sender(type=push_pb2.BACKEND), BACKEND_SENDER),
        (push_pb2.Sender(type=push_pb2.BACKEND, id=b"\x01"), Sender(SenderType.BACKEND, "01")),
        (push_pb2.Sender(type=push_pb2.UNKNOWN, id=b"\x01"), UNKNOWN_SENDER),
        (None, UNKNOWN_SENDER),
    ],
)
def test_senders(written: push_pb2.Sender | None, sender: Sender) -> None:
    (event,) = list(protobuf.read(frame(push_pb2.OutgoingMessage(id=b"\x01", body=BODY, sender=written))))
    assert isinstance(event, PullEvent)
    assert event.sender == sender


def test_a_sender_type_that_is_new_to_us_is_unknown() -> None:
    sender = push_pb2.Sender.FromString(b"\x08\x07")
    (event,) = list(protobuf.read(frame(push_pb2.OutgoingMessage(id=b"\x01", body=BODY, sender=sender))))
    assert isinstance(event, PullEvent)
    assert event.sender == UNKNOWN_SENDER


def test_creation_and_expiry() -> None:
    known, unknown = list(
        protobuf.read(
            frame(
                push_pb2.OutgoingMessage(id=b"\x01", body=BODY, created=1795313792, expiry=60),
                push_pb2.OutgoingMessage(id=b"\x02", body=BODY),
            )
        )
    )
    assert isinstance(known, PullEvent)
    assert isinstance(unknown, PullEvent)
    assert known.created is not None
    assert known.created.isoformat() == "2026-11-22T02:16:32+00:00"
    assert known.expiry == 60
    assert (unknown.created, unknown.expiry) == (None, 0)


def test_a_body_that_is_no_utf_8_spoils_itself_only() -> None:
    received = list(
        protobuf.read(
            frame(
                push_pb2.OutgoingMessage(id=b"\x01", body=b'{"module_id":"\xff"}'),
                push_pb2.OutgoingMessage(id=b"\x02", body=BODY),
            )
        )
    )
    assert [type(item) for item in received] == [Malformed, PullEvent]


def test_messages_and_statuses_may_share_a_frame() -> None:
    status = push_pb2.ChannelStats(id=PUBLIC_ID, isOnline=True)
    stats = push_pb2.Response(channelStats=push_pb2.ChannelStatsResponse(channels=[status]))
    message = push_pb2.Response(
        outgoingMessages=push_pb2.OutgoingMessagesResponse(
            messages=[push_pb2.OutgoingMessage(id=b"\x01", body=BODY)]
        )
    )
    received = list(protobuf.read(push_pb2.ResponseBatch(responses=[stats, message]).SerializeToString()))
    assert received[0] == ChannelStatus(PUBLIC_ID.hex(), online=True)
    assert isinstance(received[1], PullEvent)


@pytest.mark.parametrize("response", [push_pb2.Response(json=b"{}"), push_pb2.Response()])
def test_responses_without_messages_hold_nothing(response: push_pb2.Response) -> None:
    assert list(protobuf.read(push_pb2.ResponseBatch(responses=[response]).SerializeToString())) == []


def test_fields_that_are_new_to_us_pass() -> None:
    unknown_field = b"\xfa\x01\x03new"
    received = list(protobuf.read(frame(push_pb2.OutgoingMessage(id=b"\x01", body=BODY)) + unknown_field))
    assert [type(item) for item in received] == [PullEvent]


def test_publications_are_one_request_of_incoming_messages() -> None:
    channel = PublicChannel(PUBLIC_ID, SIGNATURE)
    batch = push_pb2.RequestBatch.FromString(
        encode_publications([Publication([channel], BODY, 60), Publication([channel, channel], b"{}", 0)])
    )
    (request,) = batch.requests
    first, second = request.incomingMessages.messages
    assert (first.body, first.expiry, len(first.receivers)) == (BODY, 60, 1)
    assert (second.body, second.expiry, len(second.receivers)) == (b"{}", 0, 2)
    assert (first.receivers[0].id, first.receivers[0].signature) == (PUBLIC_ID, SIGNATURE)
    assert not first.receivers[0].isPrivate


PUBLICATIONS = st.lists(
    st.tuples(
        st.lists(
            st.builds(PublicChannel, st.binary(min_size=16, max_size=16), st.binary(max_size=200)),
            max_size=3,
        ),
        st.binary(min_size=1, max_size=300) | st.integers(1, 40_000).map(bytes),
        st.integers(0, 2**32 - 1),
    ),
    max_size=5,
)


@given(written=PUBLICATIONS)
def test_publications_are_written_as_the_runtime_writes_them(
    written: list[tuple[list[PublicChannel], bytes, int]],
) -> None:
    request = push_pb2.Request()
    request.incomingMessages.SetInParent()
    for channels, body, expiry_s in written:
        message = request.incomingMessages.messages.add(body=body, expiry=expiry_s)
        for channel in channels:
            message.receivers.add(id=channel.id, signature=channel.signature)
    encoded = encode_publications([Publication(*publication) for publication in written])
    assert encoded == push_pb2.RequestBatch(requests=[request]).SerializeToString()


@pytest.mark.parametrize(
    ("encoded", "command"),
    [(encode_publications([]), "incomingMessages"), (encode_status_request([]), "channelStats")],
)
def test_an_empty_request_still_says_what_it_is(encoded: bytes, command: str) -> None:
    (request,) = push_pb2.RequestBatch.FromString(encoded).requests
    assert request.WhichOneof("command") == command
