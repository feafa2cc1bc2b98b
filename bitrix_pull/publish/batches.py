"""Packs messages into requests that keep the push server's limits (protocol §7)."""

from collections.abc import Iterable, Iterator, Sequence

from bitrix_pull.errors import PublishTooLarge
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.protobuf import Publication, encode_publications

REQUEST_MAX_BYTES = 1_048_576
"""Over this the endpoint answers 413, and a WebSocket is dropped without a close frame."""

MESSAGES_MAX = 100
"""Messages in one request; more are refused with 4016."""

RECEIVERS_MAX = 100
"""Receivers of one message; more are refused with 4018."""

_FIELD_OVERHEAD = 24
"""At least what a message or a receiver takes beside its own bytes: tags, lengths, expiry."""


def spread(body: bytes, expiry_s: int, receivers: Sequence[PublicChannel]) -> Iterator[Publication]:
    """Yield the message as often as its list of receivers has to be split."""
    for start in range(0, len(receivers), RECEIVERS_MAX):
        yield Publication(receivers[start : start + RECEIVERS_MAX], body, expiry_s)


def pack(publications: Iterable[Publication]) -> Iterator[tuple[bytes, int]]:
    """Yield encoded requests, in order and as few as the limits allow, with their message counts.

    Raises:
        PublishTooLarge: A single message is over the limit of a request.
    """
    batch: list[Publication] = []
    size = 0
    for publication in publications:
        weight = _weight(publication)
        if weight > REQUEST_MAX_BYTES:
            raise PublishTooLarge(f"the message takes {weight} bytes; a request may hold {REQUEST_MAX_BYTES}")
        if batch and (len(batch) == MESSAGES_MAX or size + weight > REQUEST_MAX_BYTES):
            yield encode_publications(batch), len(batch)
            batch, size = [], 0
        batch.append(publication)
        size += weight
    if batch:
        yield encode_publications(batch), len(batch)


def _weight(publication: Publication) -> int:
    """Return an upper bound of the bytes that a message takes in a request."""
    receivers = sum(len(item.id) + len(item.signature) + _FIELD_OVERHEAD for item in publication.receivers)
    return len(publication.body) + receivers + 2 * _FIELD_OVERHEAD
