"""Packs messages into requests that keep the push server's limits (protocol §7)."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from bitrix_pull.errors import PublishTooLarge
from bitrix_pull.publish.message import Message
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.protobuf import Publication, encode_receivers, request_size

EXPIRY_S = 86_400
"""How long the push server keeps a message for replay; what REST uses too (protocol §2)."""

REQUEST_MAX_BYTES = 1_048_576
"""Over this the endpoint answers 413, and a WebSocket is dropped without a close frame."""

MESSAGES_MAX = 100
"""Messages in one request; more are refused with 4016."""

RECEIVERS_MAX = 100
"""Receivers of one message; more are refused with 4018."""

_MESSAGES_MAX_BYTES = 2 * REQUEST_MAX_BYTES - request_size(REQUEST_MAX_BYTES)
"""What the messages of a request of that size take: the rest is written around them."""

NAMED_MAX = 3
"""Receivers that an error text names."""

Receiver = int | PublicChannel
"""Who gets a message: a user by the id, or whoever listens on a public channel."""


@dataclass(slots=True, frozen=True)
class Target:
    """One receiver of a message, and the channel to send it to where that is ours to find.

    Attributes:
        receiver: As the caller named it.
        channel: None where the server finds it: over REST, and users over JSON-RPC.
    """

    receiver: Receiver
    channel: PublicChannel | None = None

    @property
    def key(self) -> Hashable:
        """What two targets have in common that are the same receiver."""
        return self.receiver if self.channel is None else self.channel.id

    def __str__(self) -> str:
        return "a channel" if isinstance(self.receiver, PublicChannel) else f"user {self.receiver}"


@dataclass(slots=True)
class Part:
    """A message for some of its receivers, or all of them.

    Attributes:
        position: The message's place among those of the call.
        targets: Empty for the shared channel. Parts with the same ones may share the sequence.
        receivers: Their channels as ``encode_receivers`` writes them, where somebody has done that.
    """

    position: int
    message: Message
    targets: Sequence[Target] = field(repr=False)
    receivers: bytes | None = field(default=None, repr=False, compare=False)
    _publication: Publication | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def publication(self) -> Publication:
        """The part as it is encoded, made when it is first needed. Every target must have a channel."""
        if self._publication is None:
            receivers = self.receivers if self.receivers is not None else encoded(self.targets)
            self._publication = Publication(receivers, self.message.body, EXPIRY_S)
        return self._publication

    @property
    def fits(self) -> bool:
        """True if it need not be split."""
        return len(self.targets) <= RECEIVERS_MAX and self.publication.size <= _MESSAGES_MAX_BYTES

    def __str__(self) -> str:
        names = ", ".join(map(str, islice(self.targets, NAMED_MAX))) or "everybody"
        more = len(self.targets) - NAMED_MAX
        return f"{self.message.command:.60} to {names}" + (f" and {more} more" if more > 0 else "")


@dataclass(slots=True, frozen=True)
class Request:
    """What goes out at once, and is accepted or refused as a whole."""

    parts: Sequence[Part]

    @property
    def keys(self) -> set[Hashable]:
        """The receivers, as far as they matter to the order of requests."""
        # Most of them go to the same.
        several = {id(part.targets): part.targets for part in self.parts}.values()
        return {target.key for targets in several for target in targets}

    @property
    def users(self) -> set[int]:
        """The receivers that were named as users."""
        receivers = (target.receiver for part in self.parts for target in part.targets)
        return {receiver for receiver in receivers if isinstance(receiver, int)}

    def halves(self) -> "tuple[Request, Request] | None":
        """Return two requests that do the same together; None if there is one receiver only."""
        parts = self.parts
        if len(parts) == 1:
            (part,) = parts
            cut = len(part.targets) // 2
            if not cut:
                return None
            parts = [
                Part(part.position, part.message, part.targets[:cut]),
                Part(part.position, part.message, part.targets[cut:]),
            ]
        cut = len(parts) // 2
        return Request(parts[:cut]), Request(parts[cut:])

    def __str__(self) -> str:
        more = len(self.parts) - 1
        first = str(self.parts[0])
        return f"a request of {more + 1} messages, the first being {first}" if more else first


def encoded(targets: Iterable[Target]) -> bytes:
    """Return the channels of targets as they stand in a ``Publication``."""
    return encode_receivers(target.channel for target in targets if target.channel is not None)


def split(part: Part) -> list[Part]:
    """Split a message with more receivers than one may have.

    Raises:
        PublishTooLarge: It is over the limit of a request with any receiver.
    """
    return [fitting for chunk in chunks(part) for fitting in _fit(chunk)]


def chunks(part: Part) -> Iterator[Part]:
    """Yield a message as often as its number of receivers takes."""
    for start in range(0, len(part.targets), RECEIVERS_MAX):
        yield Part(part.position, part.message, part.targets[start : start + RECEIVERS_MAX])


def _fit(part: Part) -> Iterator[Part]:
    """Split a message further whose receivers take it over the limit of a request."""
    if part.publication.size <= _MESSAGES_MAX_BYTES:
        yield part
        return
    halves = Request([part]).halves()
    if halves is None:
        size = request_size(part.publication.size)
        raise PublishTooLarge(f"{part} takes {size} bytes; a request may hold {REQUEST_MAX_BYTES}")
    for half in halves:
        yield from _fit(half.parts[0])


def pack(parts: Iterable[Part]) -> Iterator[Request]:
    """Yield requests, in order and as few as that and the limits allow."""
    batch: list[Part] = []
    size = 0
    for part in parts:
        added = part.publication.size
        if batch and (len(batch) == MESSAGES_MAX or size + added > _MESSAGES_MAX_BYTES):
            yield Request(batch)
            batch, size = [], 0
        batch.append(part)
        size += added
    if batch:
        yield Request(batch)
