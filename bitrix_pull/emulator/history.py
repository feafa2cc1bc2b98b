"""What the push server keeps: messages, their ids, and what a reconnecting client missed (protocol §6)."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
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


@dataclass(slots=True, frozen=True)
class Snapshot:
    """What a Redis had written to its disk at a moment."""

    epoch: int | None
    counter: int
    channels: Mapping[bytes, Sequence[Message]] = field(repr=False)


class History:
    """The message store of one push server, as it has it in its Redis.

    The epoch is set there when the first message of an empty Redis is written, and each
    process of the server reads it once (protocol §6).

    Args:
        clock: Unix time.
        epoch: The first one; None: the second of the first message.
    """

    def __init__(self, clock: Callable[[], float], epoch: int | None = None) -> None:
        self._clock = clock
        self._epoch = epoch
        self._epoch_of_process: int | None = None
        self._newest_epoch = 0
        self._counter = 0
        self._channels: dict[bytes, list[Message]] = {}

    @property
    def epoch(self) -> int:
        """The epoch of the next message."""
        if self._epoch is None:
            # Greater than any before it, also where a clock stands still.
            self._epoch = max(int(self._clock()), self._newest_epoch + 1)
        self._newest_epoch = max(self._epoch, self._newest_epoch)
        if self._epoch_of_process is None:
            self._epoch_of_process = self._epoch
        return self._epoch_of_process

    def begin_process(self) -> None:
        """Do what a start of the server does: read the epoch anew."""
        self._epoch_of_process = None

    def flush(self) -> None:
        """Lose everything, the counter too, as an emptied Redis does. The process keeps its epoch."""
        self.restore(Snapshot(None, 0, {}))

    def snapshot(self) -> Snapshot:
        """Return what is stored now."""
        channels = {channel: list(kept) for channel, kept in self._channels.items()}
        return Snapshot(self._epoch, self._counter, channels)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to what was stored then. The process keeps its epoch."""
        self._epoch = snapshot.epoch
        self._counter = snapshot.counter
        self._channels = {channel: list(kept) for channel, kept in snapshot.channels.items()}

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
        mid = f"{self.epoch:010}{self._counter:016}"
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
