"""Packing into requests within the push server's limits (protocol §7)."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitrix_pull import Message, PublicChannel
from bitrix_pull.errors import PublishTooLarge
from bitrix_pull.publish.packing import (
    MESSAGES_MAX,
    RECEIVERS_MAX,
    REQUEST_MAX_BYTES,
    Part,
    Request,
    Target,
    pack,
    split,
)
from bitrix_pull.wire import push_pb2
from bitrix_pull.wire.protobuf import Publication, encode_publications, request_size
from tests.laws import examples


def targets(count: int, *, signature_bytes: int = 20) -> list[Target]:
    channels = [PublicChannel(number.to_bytes(16, "big"), bytes(signature_bytes)) for number in range(count)]
    return [Target(channel, channel) for channel in channels]


def part(text_bytes: int, receivers: Sequence[Target], position: int = 0) -> Part:
    return Part(position, Message("x", {"t": "." * text_bytes, "n": position}), receivers)


def encoded(request: Request) -> bytes:
    return encode_publications([part.publication for part in request.parts])


def messages_of(request: Request) -> list[push_pb2.IncomingMessage]:
    (read,) = push_pb2.RequestBatch.FromString(encoded(request)).requests
    return list(read.incomingMessages.messages)


SIZES = st.sampled_from([0, 1, 100, 10_000, 262_144, 524_288, 1_000_000])


@settings(max_examples=examples(25))
@given(sizes=st.lists(SIZES, max_size=12), repeat=st.sampled_from([1, 1, 1, 150]))
def test_requests_keep_order_and_limits_and_are_few(sizes: list[int], repeat: int) -> None:
    sizes = [size for size in sizes if size <= 100 or repeat == 1] * repeat
    sent = [part(size, targets(1), position) for position, size in enumerate(sizes)]
    packed = list(pack(sent))
    assert [part for request in packed for part in request.parts] == sent
    bodies = [message.body for request in packed for message in messages_of(request)]
    assert bodies == [part.message.body for part in sent]
    for request in packed:
        assert len(request.parts) <= MESSAGES_MAX
        assert len(encoded(request)) <= REQUEST_MAX_BYTES
    for request, following in pairwise(packed):
        fuller = Request([*request.parts, following.parts[0]])
        assert len(request.parts) == MESSAGES_MAX or len(encoded(fuller)) > REQUEST_MAX_BYTES


@given(
    bodies=st.lists(st.sampled_from([0, 1, 127, 128, 16_383, 16_384, 100_000]), max_size=5),
    receivers=st.integers(0, 3),
    signature_bytes=st.sampled_from([0, 20, 64, 128]),
    expiry_s=st.sampled_from([0, 1, 127, 128, 86_400]),
)
@settings(max_examples=examples(25))
def test_the_size_is_known_to_the_byte(
    bodies: list[int], receivers: int, signature_bytes: int, expiry_s: int
) -> None:
    channels = [PublicChannel(bytes(16), bytes(signature_bytes))] * receivers
    publications = [Publication(channels, b"." * size, expiry_s) for size in bodies]
    size = sum(publication.size for publication in publications)
    assert request_size(size) == len(encode_publications(publications))


@given(receivers=st.integers(0, 350))
@settings(max_examples=examples(20))
def test_a_long_list_of_receivers_is_split(receivers: int) -> None:
    wanted = targets(receivers)
    parts = split(part(1, wanted))
    assert [target for part in parts for target in part.targets] == wanted
    assert all(0 < len(part.targets) <= RECEIVERS_MAX for part in parts)
    assert len(parts) == -(-receivers // RECEIVERS_MAX)


def text_that_fills(receivers: int) -> int:
    """Return how long a text makes a request of exactly the size that is allowed."""
    guess = REQUEST_MAX_BYTES - 100
    return (
        guess
        + REQUEST_MAX_BYTES
        - len(encoded(Request([part(guess - 50 * receivers, targets(receivers))])))
        - 50 * receivers
    )


@pytest.mark.parametrize("receivers", [1, 100])
def test_the_largest_message_is_taken_to_the_byte(receivers: int) -> None:
    fits = text_that_fills(receivers)
    (whole,) = split(part(fits, targets(receivers)))
    assert len(encoded(Request([whole]))) == REQUEST_MAX_BYTES


def test_a_message_that_its_receivers_make_too_large_is_split_further() -> None:
    parts = split(part(text_that_fills(100) + 1, targets(100)))
    assert [len(part.targets) for part in parts] == [50, 50]
    assert all(len(encoded(Request([part]))) <= REQUEST_MAX_BYTES for part in parts)


def test_what_no_receiver_can_get_is_too_large() -> None:
    with pytest.raises(PublishTooLarge, match=f"{REQUEST_MAX_BYTES + 1} bytes") as caught:
        split(part(text_that_fills(1) + 1, targets(1)))
    assert not caught.value.retryable
    assert "..." not in str(caught.value)


def test_nothing_makes_no_request() -> None:
    assert list(pack([])) == []


def test_a_long_signature_counts() -> None:
    # The server's algorithm is configurable (protocol §3), so signatures can be longer.
    receivers = targets(RECEIVERS_MAX, signature_bytes=64)
    packed = list(pack([part(10_000, receivers, position) for position in range(100)]))
    assert all(len(encoded(request)) <= REQUEST_MAX_BYTES for request in packed)
    assert sum(len(request.parts) for request in packed) == 100
    assert len(packed) > 1


@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_halving_finds_every_receiver_of_every_message(counts: list[int]) -> None:
    request = Request([part(1, targets(count), position) for position, count in enumerate(counts)])
    leaves: list[tuple[int, Target]] = []

    def halve(request: Request) -> None:
        halves = request.halves()
        if halves is None:
            (only,) = request.parts
            leaves.append((only.position, only.targets[0]))
        else:
            halve(halves[0])
            halve(halves[1])

    halve(request)
    assert leaves == [(part.position, target) for part in request.parts for target in part.targets]
