"""Which messages were seen, and from where to resume. Pure: time is passed in."""

import math
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import repeat

from bitrix_pull.connection.known_mids import KnownMids, are_ascending, is_regular
from bitrix_pull.wire.messages import Position
from bitrix_pull.wire.urls import START_OF_HISTORY

_OVERLAP_MAX = 100_000
"""Messages within the overlap from which on it is shorter than its seconds: memory has an end."""

CLOCK_SLACK_S = 2.0
"""The server's creation times are whole seconds, and its clock may be a little off."""

EPOCH_SLACK_S = 30 * 86_400
"""How far ahead of the server's clock the epoch of a mid may be."""

MID_LENGTH_MAX = 64
"""Characters of a mid from which on it is none; a real one has 26."""


def latest_mid(server_unix: float | None) -> str:
    """Return the greatest mid that a server can have sent by now, given its clock.

    A mid begins with the unix time when the server was started. One from the future, if it
    moved the resume point, would keep everything away that comes after it.
    """
    if server_unix is None:
        return "9" * 26
    return f"{min(int(server_unix) + EPOCH_SLACK_S, 10**10 - 1):010}{'9' * 16}"


@dataclass(slots=True, frozen=True)
class Beginning:
    """When a client first connected: what is older is not for it.

    The push server and the portal may differ by hours, so each is compared with its own
    clock; None where that clock is not known, and then nothing is too old.
    """

    server_unix: float | None
    portal_unix: float | None

    def is_after(self, created_unix: float | None, sent_unix: float | None) -> bool:
        """Tell whether a message is surely older.

        Args:
            created_unix: When the push server took it, by its clock.
            sent_unix: When the portal sent it, by the portal's clock.
        """
        if created_unix is not None:
            return self.server_unix is not None and created_unix < self.server_unix - CLOCK_SLACK_S
        if sent_unix is not None:
            return self.portal_unix is not None and sent_unix < self.portal_unix - CLOCK_SLACK_S
        return False


@dataclass(slots=True, frozen=True)
class Kept:
    """A message that the push server has to keep: whether its history is whole is told by it.

    Attributes:
        mid: The message.
        stamp: What tells it from another one with the same mid; see ``ResumePoint.stamps``.
        until_unix: Until when it is kept, by the push server's clock.
    """

    mid: str
    stamp: float
    until_unix: float


@dataclass(slots=True, frozen=True)
class ResumePoint:
    """Up to where a client has come, as it is written down between two runs.

    Attributes:
        mid: Everything up to this message is settled. Resume after it.
        settled: Later messages that are settled too, so that they are not handled again.
        began: What is older than this is not wanted; None: everything is.
        server: ``HOST:PORT`` of the push server whose mids these are, as those of two servers
            do not compare; "" where nobody has written that down.
        stamps: For each of ``settled`` what tells it from another message with the same mid, as
            a server that has lost its counter hands mids out again; 0.0 where nothing does.
            Empty where nobody has written that down.
        kept: The newest message that the server had to keep, or None if there was none.
    """

    mid: str
    settled: tuple[str, ...] = ()
    began: Beginning | None = None
    server: str = ""
    stamps: tuple[float, ...] = ()
    kept: Kept | None = None


class Cursor:
    """The point of the stream that this client has reached.

    A mid is an epoch of 10 digits and a counter of 16 that all channels of the server
    share, so mids order as text and holes in them prove nothing (protocol §6). With
    several server processes a later message can arrive before an earlier one; hence the
    resume point lies some seconds behind the newest message, and what the server then
    sends again is recognised and dropped.
    """

    def __init__(
        self, *, overlap_s: float = 5.0, known_mids: int = 10_000, resume: ResumePoint | None = None
    ) -> None:
        """Start where another run has come to, or with nothing seen.

        Args:
            overlap_s: How far behind the newest message to resume.
            known_mids: How many mids to remember at least.
            resume: What an earlier run has written down.
        """
        self._overlap_s = overlap_s
        self._known = KnownMids(known_mids, () if resume is None else resume.settled)
        self._newest = ""
        # The highest known mid that is not the newest: what is beyond both is surely new.
        self._known_up_to = ""
        # (time of receipt, newest mid then): the left one is the resume point, as the
        # next one is still within the overlap.
        self._marks: deque[tuple[float, str]] = deque()
        self._mark_at = -math.inf
        self._floor = START_OF_HISTORY
        self._holds: dict[str, str] = {}
        self._began: Beginning | None = None
        self._connected = False
        self._latest = latest_mid(None)
        if resume is not None:
            self._connected = True
            self._floor = self._newest = resume.mid
            self._known_up_to = max(resume.settled, default="")
            self._began = resume.began
        self.position: Position | None = None
        """Where a server without mids stands (version 2 or older)."""

    @property
    def newest(self) -> str:
        """The highest mid seen, or "" before the first message."""
        return self._newest

    def connected(self, beginning: Beginning) -> None:
        """Take note of a new connection; the first one says what is too old to deliver."""
        self._latest = latest_mid(beginning.server_unix or beginning.portal_unix)
        if not self._connected:
            self._connected = True
            self._began = beginning

    def knows(self, mid: str) -> bool:
        """Tell whether a message is remembered."""
        return mid in self._known

    def expects(self, server_unix: float) -> bool:
        """Tell whether a replay must hold a message that is known, if the history is whole."""
        point = self.resume_point
        return point is not None and self._known.keeps_beyond(point, server_unix + CLOCK_SLACK_S)

    def channels_changed(self) -> None:
        """Take note that what came so far may have come by channels that are gone now."""
        self._known.forget_how_long()

    def admit(self, mid: str, now: float, kept_until_unix: float = 0.0) -> bool:
        """Return True if the message is new, and remember it.

        Args:
            mid: The message's id; "" where it has none, which is always new.
            now: Monotonic time of receipt in seconds.
            kept_until_unix: Until when the server must keep it; 0 where nobody knows.
        """
        # The server silently ignores a resume point of another form: it would replay nothing.
        is_newest = self._newest < mid <= self._latest and is_regular(mid)
        if not is_newest or mid <= self._known_up_to:
            if not mid or len(mid) > MID_LENGTH_MAX:
                return True
            if mid in self._known:
                return False
            self._known_up_to = max(mid, self._known_up_to)
        if self._known.add(mid, kept_until_unix):
            self._turn_page()
        if is_newest:
            self._advance(mid, now)
        return True

    def admit_all(self, mids: Sequence[str], now: float, kept_until_unix: Sequence[float]) -> set[int]:
        """Remember messages that came together, and return the places of those that are not new.

        Args:
            mids: The messages' ids.
            now: Monotonic time of receipt in seconds.
            kept_until_unix: As for ``admit``, for each of them.
        """
        if (
            mids
            and self._newest < mids[0] > self._known_up_to
            and mids[-1] <= self._latest
            and are_ascending(mids)
        ):
            # The stream goes on where it was: so it nearly always is.
            if self._known.add_all(mids, kept_until_unix):
                self._turn_page()
            self._advance(mids[-1], now)
            return set()
        admitted = map(self.admit, mids, repeat(now), kept_until_unix)
        return {index for index, is_new in enumerate(admitted) if not is_new}

    def too_old(self, created_unix: float | None, sent_unix: float | None) -> bool:
        """Tell whether a replayed message is from before this client's first connection.

        A resume from the start of history brings such messages too.
        """
        return self._began is not None and self._began.is_after(created_unix, sent_unix)

    @property
    def resume_point(self) -> str | None:
        """The mid to resume after, or None before the first connection."""
        if not self._connected:
            return None
        point = self._marks[0][1] if self._marks else self._floor
        return min((point, *self._holds.values())) if self._holds else point

    def snapshot(self, unsettled: Collection[str]) -> ResumePoint:
        """Return what to write down, given the mids that handlers have not finished with."""
        point = self.resume_point or START_OF_HISTORY
        if unsettled:
            point = min(point, _just_before(min(unsettled)))
        settled = tuple(mid for mid in self._known.beyond(point) if mid not in unsettled)
        return ResumePoint(point, settled, self._began)

    def hold(self, reason: str) -> None:
        """Keep the resume point where it is until ``release`` is called for the same reason.

        What comes meanwhile must not move it past what is still missing: what waits in a
        new channel while the old one has ended, or what the server left out of a replay.
        """
        point = self.resume_point
        if point is not None:
            self._holds.setdefault(reason, point)

    def release(self, reason: str) -> None:
        """Let the resume point follow the stream again, as far as this reason goes."""
        self._holds.pop(reason, None)

    def _advance(self, newest: str, now: float) -> None:
        self._newest = newest
        if now >= self._mark_at:
            self._mark(now)

    def _turn_page(self) -> None:
        """Forget of the oldest mids what no resume can bring again."""
        known, marks = self._known, self._marks
        known.turn_page(self.resume_point or START_OF_HISTORY, self._latest)
        while known.packed > _OVERLAP_MAX and len(marks) > 1 and not self._holds:
            marks.popleft()
            known.forget(marks[0][1])

    def _mark(self, now: float) -> None:
        """Note the newest mid now and then, so that the left note stays just out of the overlap."""
        marks = self._marks
        if not marks:
            # Until the first overlap has passed, only where we began is safe.
            marks.append((now, self._floor))
        if now - marks[-1][0] >= self._overlap_s / 10:
            # Just before it: a replay then begins with a message that we know, or shows a gap.
            marks.append((now, _just_before(self._newest)))
        while len(marks) > 1 and marks[1][0] <= now - self._overlap_s:
            marks.popleft()
        self._mark_at = marks[-1][0] + self._overlap_s / 10
        if len(marks) > 1:
            self._mark_at = min(self._mark_at, marks[1][0] + self._overlap_s)


def _just_before(mid: str) -> str:
    """Return the greatest text that is less than a mid and has the form of one."""
    return f"{max(int(mid) - 1, 0):026}" if is_regular(mid) else START_OF_HISTORY
