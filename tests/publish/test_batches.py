"""Packing into requests within the push server's limits (protocol §7)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitrix_pull.errors import PublishTooLarge
from bitrix_pull.publish.batches import MESSAGES_MAX, RECEIVERS_MAX, REQUEST_MAX_BYTES, pack, spread
from bitrix_pull.wire import push_pb2
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.protobuf import Publication, encode_publications

SLACK = 64 + 24
"""What the estimate of a message's size may be above the truth, with one receiver."""


def channels(count: int) -> list[PublicChannel]:
    return [PublicChannel(number.to_bytes(16, "big"), bytes(20)) for number in range(count)]


def messages_of(request: bytes) -> list[push_pb2.IncomingMessage]:
    (read,) = push_pb2.RequestBatch.FromString(request).requests
    return list(read.incomingMessages.messages)


SIZES = st.sampled_from([0, 1, 100, 10_000, 262_144, 524_288, 1_000_000])


@settings(max_examples=50)
@given(sizes=st.lists(SIZES, max_size=12), repeat=st.sampled_from([1, 1, 1, 150]))
def test_requests_keep_order_and_limits_and_are_few(sizes: list[int], repeat: int) -> None:
    sizes = [size for size in sizes if size <= 100 or repeat == 1] * repeat
    sent = [
        Publication(channels(1), str(number).encode().ljust(size, b"."), 60)
        for number, size in enumerate(sizes)
    ]
    packed = list(pack(sent))
    received = [messages_of(request) for request, _ in packed]
    assert [item.body for request in received for item in request] == [item.body for item in sent]
    for (request, count), messages in zip(packed, received, strict=True):
        assert count == len(messages) <= MESSAGES_MAX
        assert len(request) <= REQUEST_MAX_BYTES
    for index in range(len(packed) - 1):
        following = encode_publications([sent[sum(count for _, count in packed[: index + 1])]])
        full = packed[index][1] == MESSAGES_MAX
        slack = SLACK * (packed[index][1] + 1)
        assert full or len(packed[index][0]) + len(following) > REQUEST_MAX_BYTES - slack


@given(receivers=st.integers(0, 350), expiry_s=st.sampled_from([0, 60, 86_400]))
@settings(max_examples=30)
def test_a_long_list_of_receivers_is_split(receivers: int, expiry_s: int) -> None:
    wanted = channels(receivers)
    parts = list(spread(b"{}", expiry_s, wanted))
    assert [channel for part in parts for channel in part.receivers] == wanted
    assert all(0 < len(part.receivers) <= RECEIVERS_MAX for part in parts)
    assert len(parts) == -(-receivers // RECEIVERS_MAX)
    assert {(part.body, part.expiry_s) for part in parts} <= {(b"{}", expiry_s)}


@pytest.mark.parametrize("receivers", [1, 100])
def test_the_largest_message_is_taken_and_a_larger_one_refused(receivers: int) -> None:
    empty = encode_publications([Publication(channels(receivers), b"", 86_400)])
    margin = 64 * (receivers + 1)
    fits = REQUEST_MAX_BYTES - len(empty) - margin
    ((request, count),) = pack([Publication(channels(receivers), b"." * fits, 86_400)])
    assert count == 1
    assert len(request) <= REQUEST_MAX_BYTES
    with pytest.raises(PublishTooLarge):
        list(pack([Publication(channels(receivers), b"." * (REQUEST_MAX_BYTES - len(empty) + 1), 86_400)]))


def test_what_is_too_large_is_not_retryable_and_is_not_shown() -> None:
    with pytest.raises(PublishTooLarge) as caught:
        list(pack([Publication(channels(1), b"s3cret" * 200_000, 60)]))
    assert not caught.value.retryable
    assert "s3cret" not in str(caught.value)


def test_nothing_makes_no_request() -> None:
    assert list(pack([])) == []


def test_a_long_signature_counts() -> None:
    # The server's algorithm is configurable (protocol §3), so signatures can be longer.
    receivers = [PublicChannel(bytes(16), bytes(64))] * RECEIVERS_MAX
    packed = list(pack([Publication(receivers, b"." * 10_000, 60)] * 100))
    assert all(len(request) <= REQUEST_MAX_BYTES for request, _ in packed)
    assert sum(count for _, count in packed) == 100
    assert len(packed) > 1
