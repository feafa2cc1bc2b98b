"""Which messages were seen, and from where to resume. Pure: time is passed in."""

import re
from collections import deque

from bitrix_pull.wire.messages import Position
from bitrix_pull.wire.urls import START_OF_HISTORY

CLOCK_SLACK_S = 2.0
"""The server's creation times are whole seconds, and its clock may be a little off."""

_MID = re.compile(r"[0-9]{26}")


class Cursor:
    """The point of the stream that this client has reached.

    A mid is an epoch of 10 digits and a counter of 16 that all channels of the server
    share, so mids order as text and holes in them prove nothing (protocol §6). With
    several server processes a later message can arrive before an earlier one; hence the
    resume point lies some seconds behind the newest message, and what the server then
    sends again is recognised and dropped.
    """

    def __init__(self, *, overlap_s: float = 5.0, known_mids: int = 10_000) -> None:
        """Start with nothing seen.

        Args:
            overlap_s: How far behind the newest message to resume.
            known_mids: How many mids to remember at least.
        """
        self._overlap_s = overlap_s
        self._known_max = known_mids
        self._known: dict[str, None] = {}
        self._forget_at = known_mids + known_mids // 4
        self._newest = ""
        # (time of receipt, newest mid then): the left one is the resume point, as the
        # next one is still within the overlap.
        self._checkpoints: deque[tuple[float, str]] = deque()
        self._pinned: str | None = None
        self._began: float | None = None
        self.position: Position | None = None
        """Where a server without mids stands (version 2 or older)."""

    @property
    def newest(self) -> str:
        """The highest mid seen, or "" before the first message."""
        return self._newest

    def connected(self, server_unix: float) -> None:
        """Take note of a new connection; the first one says what is too old to deliver."""
        if self._began is None:
            self._began = server_unix

    def admit(self, mid: str, now: float, created_unix: int | None = None) -> bool:
        """Return True if the message is new, and remember it.

        Args:
            mid: The message's id; "" where it has none, which is always new.
            now: Monotonic time of receipt in seconds.
            created_unix: When the server took it, where known.
        """
        if not mid:
            return True
        if mid in self._known:
            return False
        self._known[mid] = None
        if len(self._known) > self._forget_at:
            self._forget()
        # The server silently ignores a resume point of another form: it would replay nothing.
        if mid > self._newest and _MID.fullmatch(mid):
            self._newest = mid
            self._mark(now)
        # A resume from the start of history replays what came before us too.
        return created_unix is None or self._began is None or created_unix >= self._began - CLOCK_SLACK_S

    @property
    def resume_point(self) -> str | None:
        """The mid to resume after, or None before the first connection."""
        if self._began is None:
            return None
        if self._pinned is not None:
            return self._pinned
        return self._checkpoints[0][1] if self._checkpoints else START_OF_HISTORY

    def pin(self) -> None:
        """Keep the resume point where it is until ``release``.

        While one channel has ended and its successor is not subscribed to yet, what comes
        by the others must not move the resume point past what waits in the new one.
        """
        self._pinned = self.resume_point

    def release(self) -> None:
        """Let the resume point follow the stream again."""
        self._pinned = None

    def _mark(self, now: float) -> None:
        """Note the newest mid now and then, so that the left note stays just out of the overlap."""
        marks = self._checkpoints
        if not marks:
            # Until the first overlap has passed, only the start of history is safe.
            marks.append((now, START_OF_HISTORY))
        if now - marks[-1][0] >= self._overlap_s / 10:
            marks.append((now, self._newest))
        while len(marks) > 1 and marks[1][0] <= now - self._overlap_s:
            marks.popleft()

    def _forget(self) -> None:
        """Drop the oldest mids in bulk, but none that a resume could bring again."""
        point = self.resume_point or START_OF_HISTORY
        droppable = len(self._known) - self._known_max
        kept = [mid for index, mid in enumerate(self._known) if index >= droppable or mid > point]
        self._known = dict.fromkeys(kept)
        self._forget_at = max(len(kept), self._known_max) * 5 // 4
