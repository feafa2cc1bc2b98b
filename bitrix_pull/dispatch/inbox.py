"""What was taken from the stream and is not handled yet: bounded in events and bytes."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from operator import attrgetter
from typing import Final, Generic, TypeVar

from bitrix_pull.dispatch.storage import Storage
from bitrix_pull.events import Event
from bitrix_pull.flag import Flag
from bitrix_pull.options import Overflow
from bitrix_pull.redaction import get_logger
from bitrix_pull.telemetry import log_fields

logger: Final = get_logger("dispatch")

E = TypeVar("E", bound=Event)

_size = attrgetter("size")


class Inbox(Generic[E]):
    """Counts the events that are with handlers; the reader waits here while it is full.

    An event is settled when everybody who got it has finished with it. That is counted for
    many events at a time, when the event loop next runs or somebody asks before.
    """

    def __init__(
        self,
        *,
        max_events: int,
        max_bytes: int,
        overflow: Overflow = "pause",
        settled: Callable[[Sequence[E]], None] | None = None,
        failed: Callable[[Sequence[E]], None] | None = None,
        storage: Storage | None = None,
    ) -> None:
        """Create an empty inbox.

        Args:
            max_events: Events from which on it is full. With "pause" it may be overfilled
                by what is read at a time.
            max_bytes: Bytes of bodies from which on it is full. With "pause" the same holds;
                else one event may overfill it.
            overflow: Whether the reader waits while it is full, or what is dropped then.
            settled: Called with events that are settled, once with each.
            failed: Called instead with those on which a handler has failed for good. Where
                it is None, they count as settled as the others do.
            storage: Room that it shares with others; None: it has its own limits only.
        """
        self.overflow = overflow
        self.dropped: int = 0
        """Events that were dropped because it was full."""
        self._max_events = max_events
        self._max_bytes = max_bytes
        self.settled = settled
        """Called with events that are settled, once with each."""
        self.failed = failed
        """Called instead with those on which a handler has failed for good."""
        # Each event with the number of those who have not finished with it, and when it was taken.
        self._unsettled: dict[E, tuple[int, float]] = {}
        self._bytes = 0
        self._storage = storage
        # The same, but for the time between an end and the next beginning.
        self._shares = storage
        # What was finished with and is not counted yet; several times if several had it.
        self._finished: list[E] = []
        self._changed = Flag()
        self._awaited = False
        self._overflowing = False
        self._abandoned: set[E] = set()
        # Those of the unsettled on which one of their receivers has failed.
        self._failures: set[E] = set()

    def __len__(self) -> int:
        """The number of events that are not settled."""
        self._count()
        return len(self._unsettled)

    @property
    def size(self) -> int:
        """Bytes of the bodies of those events."""
        self._count()
        return self._bytes

    @property
    def unsettled(self) -> set[E]:
        """Those events, and those that were abandoned."""
        self._count()
        return {*self._unsettled, *self._abandoned}

    @property
    def full(self) -> bool:
        """True if nothing more should be read."""
        self._count()
        if len(self._unsettled) >= self._max_events or self._bytes >= self._max_bytes:
            return True
        # It holds something then, so it hears of it when it holds less.
        return self._shares is not None and self._bytes > 0 and self._shares.refuses(self._bytes)

    def oldest(self) -> tuple[E, float] | None:
        """Return what has waited longest to be settled, and when it was taken; None if nothing waits."""
        self._count()
        for event, (_, taken_at) in self._unsettled.items():
            return event, taken_at
        return None

    def take(self, events: Sequence[E], receivers: int, taken_at: float = 0.0) -> None:
        """Enter events that were given to this many receivers; to none, they are settled.

        Args:
            events: What has come.
            receivers: How many got them.
            taken_at: When that was, by the event loop's clock.
        """
        if receivers:
            unsettled, entry = self._unsettled, (receivers, taken_at)
            for event in events:
                unsettled[event] = entry
            self._hold(sum(map(_size, events)))
        elif self.settled is not None:
            self._count()
            self.settled(events)

    def _hold(self, more: int) -> None:
        self._bytes += more
        if self._shares is not None:
            self._shares.used += more

    def settle(self, event: E) -> None:
        """Take note that one receiver has finished with an event."""
        if not self._finished:
            asyncio.get_running_loop().call_soon(self._count)
        self._finished.append(event)

    def fail(self, event: E) -> None:
        """Take note that one receiver has finished with an event, in vain."""
        if self.failed is not None and event in self._unsettled:
            self._failures.add(event)
        self.settle(event)

    def _count(self) -> None:
        """Count what was finished with."""
        if not self._finished:
            return
        finished, self._finished = self._finished, []
        unsettled = self._unsettled
        settled: list[E] = []
        for event in finished:
            entry = unsettled.get(event)
            if entry is None:
                continue  # The inbox was cleared in the meantime.
            left, taken_at = entry
            if left == 1:
                del unsettled[event]
                settled.append(event)
            else:
                unsettled[event] = left - 1, taken_at
        self._hold(-sum(map(_size, settled)))
        if self._awaited:
            self._wake()
        if self._overflowing:
            self._relax()
        if self._abandoned:
            settled = [event for event in settled if event not in self._abandoned]
        self._tell(settled)

    def _tell(self, settled: list[E]) -> None:
        if self._failures and self.failed is not None:
            failed = [event for event in settled if event in self._failures]
            settled = [event for event in settled if event not in self._failures]
            if failed:
                self._failures.difference_update(failed)
                self.failed(failed)
        if settled and self.settled is not None:
            self.settled(settled)

    def abandon(self, event: E) -> None:
        """Take note that one receiver will not finish with an event, and keep no place for it.

        The event does not count as settled before it is released.
        """
        self._count()
        if event in self._unsettled:
            self._abandoned.add(event)
            self._finished.append(event)
            self._count()

    def release(self, event: E) -> None:
        """Let an abandoned event count as settled, if all others have finished with it."""
        self._count()
        if event in self._abandoned:
            self._abandoned.remove(event)
            if event not in self._unsettled:
                self._tell([event])

    def first(self, events: Collection[E]) -> E:
        """Return which of these unsettled events was taken first."""
        return next(event for event in self._unsettled if event in events)

    def count_drop(self) -> bool:
        """Count an event that is dropped, and return True if it is the first for some time."""
        self.dropped += 1
        begins = not self._overflowing
        self._overflowing = True
        return begins

    def end(self) -> None:
        """Leave its room to the others that share the storage; what is not settled is still known."""
        if self._shares is not None:
            self._shares.used -= self._bytes
            self._shares = None

    def begin(self) -> None:
        """Forget every event, settled or not, and take part in the storage again."""
        self._unsettled.clear()
        self._finished.clear()
        self._abandoned.clear()
        self._failures.clear()
        self._hold(-self._bytes)
        self._shares = self._storage
        self._overflowing = False
        self._wake()

    async def room(self) -> None:
        """Wait until the inbox is not full, or makes room by dropping."""
        while self.full and self.overflow == "pause":
            await self._change()

    async def empty(self) -> None:
        """Wait until every event is settled."""
        while len(self):
            await self._change()

    async def _change(self) -> None:
        self._awaited = True
        self._changed.clear()
        await self._changed.wait()

    def _wake(self) -> None:
        self._awaited = False
        self._changed.set()

    def _relax(self) -> None:
        # Half empty, not just below the limit: at the limit every second event would
        # begin an overflow of its own.
        if len(self._unsettled) * 2 <= self._max_events and self._bytes * 2 <= self._max_bytes:
            self._overflowing = False
            logger.info(
                "handlers have caught up; %d events were dropped so far",
                self.dropped,
                extra=log_fields(count=self.dropped),
            )
