"""Channel ids as text and as bytes (protocol §3)."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from bitrix_pull.errors import InvalidArgument

_PUBLIC = re.compile(r"([0-9a-f]{32})(?:\.((?:[0-9a-f]{2})+))?")


@dataclass(slots=True, frozen=True)
class PublicChannel:
    """A channel that others may publish to.

    Attributes:
        id: The 16 raw bytes of the channel.
        signature: The raw bytes of the server's signature; empty on a server without a key.
    """

    id: bytes
    signature: bytes = b""

    @classmethod
    def parse(cls, text: str) -> "PublicChannel":
        """Read ``PUB.SIG``, or ``PUB`` alone, in hex.

        Raises:
            InvalidArgument: The text has another form.
        """
        match = _PUBLIC.fullmatch(text.lower())
        if match is None:
            raise InvalidArgument("a public channel is 32 hex digits, a dot and a signature in hex")
        return cls(bytes.fromhex(match[1]), bytes.fromhex(match[2] or ""))

    @property
    def text(self) -> str:
        """The channel as ``PUB.SIG``, or ``PUB`` alone where there is no signature. A secret."""
        return f"{self.id.hex()}.{self.signature.hex()}" if self.signature else self.id.hex()

    def __repr__(self) -> str:
        return "PublicChannel(…)"


def channel_key(channel_id: str) -> str:
    """Return the part before the first dot or colon, by which a channel is recognised.

    A ``channel_expire`` names its channel without the public part and the signature.
    """
    return re.split(r"[.:]", channel_id, maxsplit=1)[0]


def digests_of(channel_ids: Iterable[str]) -> str:
    """Return a word for each channel that tells it from others, and does not betray it: ids are random."""
    keys = sorted(map(channel_key, channel_ids))
    return " ".join(hashlib.sha256(key.encode()).hexdigest()[:12] for key in keys)
