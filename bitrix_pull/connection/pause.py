"""While handlers are behind, nothing more is read: the reader waits here, and the client says so."""

import asyncio
from collections.abc import Callable

from bitrix_pull.connection.intake import Intake
from bitrix_pull.events import InboxFull, Notice

PAUSED_AFTER_S = 10.0
"""For how long handlers must hold up the reading until it is said: longer than a burst does, and
shorter than a dead link takes to be noticed by one that is read."""

OVER_AFTER_S = 2.0
"""For how long there must be room again: a slow handler makes some with each event that it settles."""


class Pause:
    """Where one reader waits for room in the inbox.

    Attributes:
        paused: True once that has held it up for ``PAUSED_AFTER_S``, with no more than
            ``OVER_AFTER_S`` of reading between one wait and the next.
    """

    def __init__(
        self, intake: Intake, announce: Callable[[Notice], None], changed: Callable[[], None]
    ) -> None:
        """Create one for a reader that feeds ``intake``.

        Args:
            intake: Has room or not.
            announce: Takes notices.
            changed: Called when ``paused`` has changed.
        """
        self.paused: bool = False
        self._intake = intake
        self._announce = announce
        self._changed = changed
        self._beginning: asyncio.TimerHandle | None = None
        self._ending: asyncio.TimerHandle | None = None

    async def room(self) -> None:
        """Wait until the inbox has room."""
        if not self._intake.full:
            return
        loop = asyncio.get_running_loop()
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        if self._beginning is None and not self.paused:
            self._beginning = loop.call_later(PAUSED_AFTER_S, self._begin)
        try:
            await self._intake.room()
        finally:
            self._ending = loop.call_later(OVER_AFTER_S, self._end)

    def stop(self) -> None:
        """Say nothing more: the reader has ended."""
        for timer in (self._beginning, self._ending):
            if timer is not None:
                timer.cancel()

    def _begin(self) -> None:
        self._beginning = None
        event, handler, waiting = self._intake.held_by()
        self._announce(InboxFull(event, handler, waiting))
        self.paused = True
        self._changed()

    def _end(self) -> None:
        self._ending = None
        if self._beginning is not None:
            self._beginning.cancel()
            self._beginning = None
        if self.paused:
            self.paused = False
            self._changed()
