"""What was taken from the stream and is not handled yet: bounded in events and bytes."""

import asyncio
from typing import Any

from bitrix_pull.events import PullEvent


class Inbox:
    """Counts the events that are with handlers; the reader waits here while it is full.

    An event is settled when everybody who got it has finished with it.
    """

    def __init__(self, *, max_events: int, max_bytes: int) -> None:
        """Create an empty inbox. One frame may overfill it, as a frame is read as a whole."""
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._unsettled: dict[PullEvent[Any], int] = {}
        self._bytes = 0
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """The number of events that are not settled."""
        return len(self._unsettled)

    @property
    def size(self) -> int:
        """Bytes of the bodies of those events."""
        return self._bytes

    @property
    def full(self) -> bool:
        """True if no further frame should be read."""
        return len(self._unsettled) >= self._max_events or self._bytes >= self._max_bytes

    def take(self, event: PullEvent[Any], receivers: int) -> None:
        """Enter an event that was given to this many receivers, at least one."""
        self._unsettled[event] = receivers
        self._bytes += event.size

    def settle(self, event: PullEvent[Any]) -> None:
        """Take note that one receiver has finished with an event."""
        left = self._unsettled.get(event, 0) - 1
        if left < 0:
            return  # The inbox was cleared in the meantime.
        if left:
            self._unsettled[event] = left
            return
        del self._unsettled[event]
        self._bytes -= event.size
        self._changed.set()

    def clear(self) -> None:
        """Forget every event, settled or not."""
        self._unsettled.clear()
        self._bytes = 0
        self._changed.set()

    async def room(self) -> None:
        """Wait until the inbox is not full."""
        while self.full:
            self._changed.clear()
            await self._changed.wait()

    async def empty(self) -> None:
        """Wait until every event is settled."""
        while self._unsettled:
            self._changed.clear()
            await self._changed.wait()
