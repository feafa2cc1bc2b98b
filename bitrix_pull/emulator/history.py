"""What the push server keeps: messages, their ids, and what a reconnecting client missed (protocol §6)."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from bitrix_pull.events import BACKEND_SENDER, Sender

MAX_EXPIRY_S = 86_400

Additions = Mapping[str, Mapping[str, Any]]
NO_ADDITIONS: Additions = {}


@dataclass(slots=True, frozen=True)
class Message:
    """One message as the push server took it.

    Attributes:
        mid: 26 digits: the server's epoch, and a counter shared by all channels.
        body: As it was published, whatever that is.
        created: Unix time.
        expiry_s: As it was published: seconds to keep it, 0 for not at all.
        additions: What version 5 sends beside the body, to be merged into its params:
            ``user_params`` and ``dictionary``.
    """

    mid: str
    body: bytes
    created: float
    expiry_s: int = 0
    sender: Sender = BACKEND_SENDER
    additions: Additions = field(default_factory=dict[str, Mapping[str, Any]])

    @property
    def kept_until(self) -> float:
        """Unix time until which it is replayed."""
        return self.created + min(self.expiry_s, MAX_EXPIRY_S)


_mid = attrgetter("mid")


class History:
    """The message store of one push server."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._epoch = int(clock()) - 1
        self._counter = 0
        self._channels: dict[bytes, list[Message]] = {}

    def begin_epoch(self, *, keep: bool) -> None:
        """Do what a start of the server does to its messages.

        The new epoch is greater than the last one, also within one second: a message
        must never get a smaller mid than one before it.

        Args:
            keep: Replay messages of earlier epochs too.
        """
        self._epoch = max(int(self._clock()), self._epoch + 1)
        self._counter = 0
        if not keep:
            self._channels.clear()

    def take(
        self,
        channels: Iterable[bytes],
        body: bytes,
        expiry_s: int,
        sender: Sender,
        additions: Additions = NO_ADDITIONS,
    ) -> Message:
        """Make a message, and keep it for the channels if it has an expiry."""
        self._counter += 1
        mid = f"{self._epoch:010}{self._counter:016}"
        message = Message(mid, body, self._clock(), expiry_s, sender, additions)
        if expiry_s > 0:
            for channel in channels:
                kept = self._channels.setdefault(channel, [])
                if kept and kept[0].kept_until <= message.created:
                    kept[:] = self._unexpired(kept)
                kept.append(message)
        return message

    def since(self, channels: Iterable[bytes], mid: str) -> list[Message]:
        """Return what the channels keep with a greater mid, in the order of the mids."""
        found: dict[str, Message] = {}
        for channel in channels:
            kept = self._channels.get(channel, [])
            newer = kept[bisect_right(kept, mid, key=_mid) :]
            found.update((message.mid, message) for message in self._unexpired(newer))
        return [found[mid] for mid in sorted(found)]

    def drop(self, until: str | None) -> None:
        """Forget the messages up to and with a mid; all of them if it is None."""
        for kept in self._channels.values():
            del kept[: len(kept) if until is None else bisect_right(kept, until, key=_mid)]

    def newest_mid(self, channels: Iterable[bytes]) -> str:
        """Return the greatest mid that the channels keep, or ""."""
        now = self._clock()
        newest = ""
        for channel in channels:
            for message in reversed(self._channels.get(channel, [])):
                if message.kept_until > now:
                    newest = max(newest, message.mid)
                    break
        return newest

    def _unexpired(self, messages: Iterable[Message]) -> list[Message]:
        now = self._clock()
        return [message for message in messages if message.kept_until > now]
