"""Channel ids: how the push server signs and reads them, and the portal's book of them (protocol §3)."""

import hashlib
import hmac
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.close_codes import ServerClose

CHANNEL_LIFE_S = 43_205.0
REMOVED_AFTER_S = 13 * 3_600.0
"""Age at which the portal's hourly agent removes a channel that nobody has asked for since its end."""
MAX_CHANNELS = 100

Audience = Literal["application", "user"]
"""Whose channels: an application's own, or the portal-wide ones of user mode."""

Rotation = Literal["at_expiry", "on_request", "never"]
"""When a portal makes new channels.

Once the old ones have ended, as live portals do; also for who asks shortly before that; or
never, like one whose cache is stuck: it keeps telling channels that have ended.
"""

_CHANNEL = re.compile(r"([0-9a-f]{32})(?::([0-9a-f]{32}))?(?:\.([0-9a-f]+))?")


class Refused(Exception):  # noqa: N818 - what the server does, not what went wrong in it
    """The push server does not take a request; ``code`` says why."""

    def __init__(self, code: ServerClose) -> None:
        super().__init__(f"{int(code)}: {code.text}")
        self.code = code


def derive(key: str, *purpose: object) -> bytes:
    """Return 32 bytes that follow from the key and the purpose alone.

    Whatever clients hold on to is made this way: an emulator that is killed and started
    again with the same key still knows it.
    """
    return hmac.digest(key.encode(), "|".join(map(str, purpose)).encode(), hashlib.sha256)


@dataclass(slots=True, frozen=True)
class Subscription:
    """One channel that a connection listens on.

    Attributes:
        id: The 16 raw bytes of the private or shared channel.
        public_id: Those of its public part, which clients may publish to; or None.
    """

    id: bytes = field(repr=False)
    public_id: bytes | None = field(default=None, repr=False)

    @property
    def ids(self) -> tuple[bytes, ...]:
        """Every id under which messages for this channel are kept."""
        return (self.id,) if self.public_id is None else (self.id, self.public_id)


class Signer:
    """Signs channel ids with the push server's security key, and checks what clients present."""

    def __init__(self, security_key: str) -> None:
        self._key = security_key.encode()

    def sign(self, text: str) -> str:
        """Return a private or shared id with its signature; bare if there is no key."""
        return f"{text}.{self._signature(text).hex()}" if self._key else text

    def sign_public(self, public_id: str) -> PublicChannel:
        """Return a public id with its signature; without one if there is no key."""
        return PublicChannel(bytes.fromhex(public_id), self._public_signature(public_id))

    def read(self, text: str, *, trusted: bool = False) -> Subscription:
        """Read one channel of a ``CHANNEL_ID``.

        Args:
            text: ``PRIV:PUB.SIG``, ``ID.SIG``, or either of them without a signature.
            trusted: Take it with or without a signature, and do not check that.

        Raises:
            Refused: It is malformed or badly signed (4010).
        """
        match = _CHANNEL.fullmatch(text)
        if match is None:
            raise Refused(ServerClose.WRONG_CHANNEL)
        private, public, signature = match.groups()
        if self._key and not trusted:
            expected = self._signature(text.partition(".")[0]).hex()
            if not hmac.compare_digest(expected, signature or ""):
                raise Refused(ServerClose.WRONG_CHANNEL)
        return Subscription(bytes.fromhex(private), bytes.fromhex(public) if public else None)

    def read_all(self, channel_id: str, *, trusted: bool = False) -> tuple[Subscription, ...]:
        """Read a ``CHANNEL_ID``: ids joined by slashes.

        Raises:
            Refused: One of them is wrong or there is none (4010), or they are too many (4018).
        """
        texts = channel_id.split("/")
        if len(texts) > MAX_CHANNELS:
            raise Refused(ServerClose.TOO_MANY_CHANNELS)
        return tuple(self.read(text, trusted=trusted) for text in texts)

    def publisher(self, channel_id: str) -> bytes:
        """Return the public id of whoever publishes with this ``CHANNEL_ID``.

        Raises:
            Refused: None of the channels is well signed and has a public part (4012).
        """
        for text in channel_id.split("/"):
            try:
                subscription = self.read(text)
            except Refused:
                continue
            if subscription.public_id is not None:
                return subscription.public_id
        raise Refused(ServerClose.PUBLIC_CHANNEL_REQUIRED)

    def knows(self, public_id: bytes, signature: bytes) -> bool:
        """True if the signature of a public channel is right, or there is no key."""
        return hmac.compare_digest(self._public_signature(public_id.hex()), signature) if self._key else True

    def _signature(self, text: str) -> bytes:
        return hmac.digest(self._key, text.encode(), hashlib.sha1)

    def _public_signature(self, public_id: str) -> bytes:
        return self._signature(f"public:{public_id}") if self._key else b""


@dataclass(slots=True, frozen=True)
class Owner:
    """Whose channel it is: of one user, or shared by all where ``user_id`` is None."""

    audience: Audience
    user_id: int | None = None


@dataclass(slots=True, frozen=True)
class PortalChannel:
    """A channel as the portal keeps it: bare ids, and its life in unix time."""

    owner: Owner
    id: str = field(repr=False)
    public_id: str | None = field(repr=False)
    start: float
    end: int

    @property
    def subscribed(self) -> str:
        """The text that the signature of a subscription covers."""
        return self.id if self.public_id is None else f"{self.id}:{self.public_id}"


def channel_ids(security_key: str, owner: Owner, generation: int = 1) -> tuple[str, str]:
    """Return an owner's ids, private (or shared) and public, as they follow from the key."""
    purpose = (owner.audience, owner.user_id or "shared", generation)
    private, public = (derive(security_key, name, *purpose)[:16] for name in ("channel", "public channel"))
    return private.hex(), public.hex()


class ChannelBook:
    """The portal's channels: one for each owner until it expires, then the next generation.

    Attributes:
        life_s: Life of the channels that are made from now on. They end with a whole
            second, as the portal writes their ends.
        rotation: When new channels are made. The push server takes the old ones still.
        rotation_lead_s: How shortly before the end a request brings new ones, with
            "on_request"; never more than half of their life.
    """

    def __init__(
        self,
        security_key: str,
        clock: Callable[[], float],
        on_replaced: Callable[[PortalChannel, PortalChannel], None],
        *,
        life_s: float,
        version: int = 4,
    ) -> None:
        self.life_s = life_s
        self.rotation: Rotation = "at_expiry"
        self.rotation_lead_s: float = 3_600.0
        self._key = security_key
        self._clock = clock
        self._on_replaced = on_replaced
        self._version = version
        self._channels: dict[Owner, PortalChannel] = {}
        self._generations: dict[Owner, int] = {}

    @property
    def owners(self) -> list[Owner]:
        """Everyone who has ever had a channel."""
        return list(self._channels)

    def current(self, owner: Owner) -> PortalChannel:
        """Return the owner's channel; the first call after its end makes a new one."""
        known = self._channels.get(owner)
        if known is not None and (self.rotation == "never" or self._clock() < known.end):
            return known
        return self._renew(owner)

    def requested(self, owner: Owner) -> PortalChannel:
        """Return the owner's channel to who asks for the configuration: maybe one ahead of time."""
        channel = self.current(owner)
        lead_s = min(self.rotation_lead_s, (channel.end - channel.start) / 2)
        is_due = self.rotation == "on_request" and self._clock() >= channel.end - lead_s
        return self._renew(owner) if is_due else channel

    def expire(self, owner: Owner) -> None:
        """End the life of the owner's channel, and let the next one follow, at once."""
        if owner in self._channels:
            self._renew(owner)

    def lapse(self, owner: Owner) -> None:
        """End the life of the owner's channel now, as if its end had come: nobody is told yet."""
        if owner in self._channels:
            self._channels[owner] = replace(self._channels[owner], end=math.floor(self._clock()))

    def remove(self, *owners: Owner) -> list[PortalChannel]:
        """Forget the owners' channels and return them; the next request makes new ones."""
        return [self._channels.pop(owner) for owner in owners if owner in self._channels]

    def outlived(self) -> list[Owner]:
        """Return whose channels are so old that the portal's agent removes them."""
        now = self._clock()
        return [owner for owner, channel in self._channels.items() if now - channel.start >= REMOVED_AFTER_S]

    def _renew(self, owner: Owner) -> PortalChannel:
        known = self._channels.get(owner)
        channel = self._channels[owner] = self._make(owner)
        if known is not None and known.id != channel.id:
            self._on_replaced(known, channel)
        return channel

    def _make(self, owner: Owner) -> PortalChannel:
        is_users = owner.user_id is not None
        generation = self._generations[owner] = self._generations.get(owner, 0) + 1
        # Version 5 knows users by their ids: their channels stay the same.
        private, public = channel_ids(self._key, owner, 1 if is_users and self._version >= 5 else generation)
        now = self._clock()
        return PortalChannel(
            owner,
            private,
            # Public channels came with version 4.
            public if is_users and self._version >= 4 else None,
            now,
            # At least until the next whole second.
            max(math.floor(now + self.life_s), math.floor(now) + 1),
        )
