"""Which messages were seen, and from where to resume. Pure: time is passed in."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import astuple
from itertools import repeat
from typing import NamedTuple

from bitrix_pull.connection.known_mids import KnownMids, are_ascending, is_regular
from bitrix_pull.connection.resume_point import (
    CLOCK_SLACK_S,
    FOREIGN_CLOCK_SLACK_S,
    MID_LENGTH_MAX,
    Beginning,
    Kept,
    ResumePoint,
)
from bitrix_pull.connection.stamps import UNKNOWN, are_of_two
from bitrix_pull.wire.messages import Position
from bitrix_pull.wire.urls import START_OF_HISTORY

_OVERLAP_MAX = 100_000
"""Messages within the overlap from which on it is shorter than its seconds: memory has an end."""

_SETTLED_MAX = 250_000
"""How many messages are remembered, beside those, for the sake of one before them that is not settled."""

LATE_S = 10.0
"""How much later than all with greater mids a message must have been taken by the push server to say
that its counter has gone back: the clocks of its processes may differ, and show whole seconds."""

SENT_LATE_S = 120.0
"""The same by the portal's clock: it looks at it when an event happens, and sends that a while later."""

EPOCH_SLACK_S = 30 * 86_400
"""How far ahead of the server's clock the epoch of a mid may be."""


def latest_mid(server_unix: float | None) -> str:
    """Return the greatest mid that a server can have sent by now, given its clock.

    A mid begins with the unix time when the server was started. One from the future, if it
    moved the resume point, would keep everything away that comes after it.
    """
    if server_unix is None:
        return "9" * 26
    return f"{min(int(server_unix) + EPOCH_SLACK_S, 10**10 - 1):010}{'9' * 16}"


class _Point(NamedTuple):
    """A place in the stream: up to a mid, and the stamp of the message there."""

    mid: str
    stamp: float


class _Mark(NamedTuple):
    """Where the stream was at a moment of receipt."""

    at: float
    point: _Point


_BEGINNING = _Point(START_OF_HISTORY, UNKNOWN)


class Cursor:
    """The point of one push server's stream that this client has reached.

    A mid is an epoch of 10 digits and a counter of 16 that all channels of the server
    share, so mids order as text and holes in them prove nothing (protocol §6). With
    several server processes a later message can arrive before an earlier one; hence the
    resume point lies some seconds behind the newest message, and what the server then
    sends again is recognised and dropped.

    A server that loses its counter hands the same mids out again. That shows where a known mid
    comes with another stamp, or an unknown one too late for its place; then the cursor begins
    anew, and what it knew serves to recognise what a replay of the history brings again.
    """

    def __init__(
        self,
        *,
        overlap_s: float = 5.0,
        known_mids: int = 10_000,
        resume: ResumePoint | None = None,
        server: str = "",
        left: "Cursor | None" = None,
        unsettled: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """Start where another run has come to, or with nothing seen.

        Args:
            overlap_s: How far behind the newest message to resume.
            known_mids: How many mids to remember at least.
            resume: What an earlier run has written down.
            server: The push server that it is about; "" where it is not known yet.
            left: The one of another server that the client has come from.
            unsettled: Gives the mids that handlers have not finished with: what is settled after
                them is remembered, as a restart resumes before them.
        """
        self._unsettled = unsettled
        self._overlap_s = overlap_s
        self._known_mids = known_mids
        self.server: str = server
        """``HOST:PORT`` of the push server that it is about; "" where that is not known yet."""
        self.numbering: int = 0
        """How often it has begun anew, as the server's counter had gone back."""
        self.position: Position | None = None
        """Where a server without mids stands (version 2 or older)."""
        self._began: Beginning | None = None
        self._connected = self._connected_here = False
        self._latest = latest_mid(None)
        # What the server's clock shows at a moment of the portal's, to tell one time by the other.
        self._clocks = Beginning(None, None)
        self._before: KnownMids | None = None
        self._holds: dict[str, _Point] = {}
        # The newest message that the server has to keep: mid, stamp, until when, by which channels.
        self._kept: tuple[str, float, float, str] | None = None
        self._channels = ""
        self._start()
        if resume is not None:
            self._connected = True
            self.server = resume.server
            self._floor = _Point(resume.mid, resume.stamp)
            self._newest = resume.mid
            if resume.mid > START_OF_HISTORY:
                self._first_wanted = resume.mid
            self._began = resume.began
            stamps = resume.stamps or (UNKNOWN,) * len(resume.settled)
            self._known = KnownMids(known_mids, zip(resume.settled, stamps, strict=True))
            self._known_up_to = max(resume.settled, default="")
            if resume.kept is not None:
                self._kept = astuple(resume.kept)
                stamps += (resume.kept.stamp,)
            self._ascended = max(stamps, default=UNKNOWN, key=abs)
        elif left is not None:
            # What came in this process must not come again; what came in one before it may have
            # been another server's.
            began = left.reached() if left._connected_here else left._began
            self._began = Beginning(None, began.portal_unix) if began is not None else None
            self._connected = True
            self._before = left._known.upon(left._before)
            self._known_up_to = _BEYOND_ALL

    def _start(self) -> None:
        """Have seen nothing, with these mids."""
        self._known = KnownMids(self._known_mids)
        self._forgotten_up_to = ""
        self.forgotten: int = 0
        """How many messages that are settled will be handled again after a restart: more than are
        remembered were settled after one that is not."""
        self._newest = ""
        self._newest_stamp = UNKNOWN
        # The highest known mid that is not the newest: what is beyond both is surely new.
        self._known_up_to = "" if self._before is None else _BEYOND_ALL
        # The left one is the resume point, as the next one is still within the overlap.
        self._marks: list[_Mark] = []
        self._mark_at = -math.inf
        self._floor = _BEGINNING
        # The latest stamps of those that came in order, of this page of known mids and the one before.
        self._ascended = self._ascended_before = UNKNOWN
        self._kept = None
        # The least mid that is surely no older than the beginning.
        self._first_wanted = _BEYOND_ALL

    @property
    def newest(self) -> str:
        """The highest mid seen, or "" before the first message."""
        return self._newest

    @property
    def connected_before(self) -> bool:
        """True once there was a connection: there is something to resume."""
        return self._connected

    def connected(self, moment: Beginning) -> None:
        """Take note of a new connection; the first one says what is too old to deliver."""
        self._latest = latest_mid(moment.server_unix or moment.portal_unix)
        self._clocks = moment
        self._connected_here = True
        if not self._connected:
            self._connected = True
            self._began = moment

    def stamp(self, mid: str) -> float | None:
        """Return the stamp with which a mid is known, or None if it is not."""
        return self._known.stamp(mid)

    def knows(self, mid: str, stamp: float = UNKNOWN) -> bool:
        """Tell whether a message is known, by its mid and whatever its stamp can tell."""
        known = self._known.stamp(mid)
        if known is not None:
            return not are_of_two(known, stamp)
        return self._was_known(mid, stamp)

    def _was_known(self, mid: str, stamp: float) -> bool:
        """Tell whether a message was known for sure when its mid was handed out before."""
        return self._before is not None and stamp != UNKNOWN and self._before.stamp(mid) == stamp

    def recognises(self, mid: str, stamp: float) -> bool:
        """Tell whether this very message is known, beyond doubt."""
        return stamp != UNKNOWN and self._known.stamp(mid) == stamp

    def is_other(self, mid: str, stamp: float) -> bool:
        """Tell whether a mid is known as that of another message."""
        known = self._known.stamp(mid)
        return known is not None and are_of_two(known, stamp)

    def keep(self, mid: str, stamp: float, until_unix: float) -> None:
        """Take note of until when the server has to keep a message that was admitted."""
        if mid <= self._newest and (self._kept is None or mid >= self._kept[0]):
            self._kept = mid, stamp, until_unix, self._channels

    def kept(self, server_unix: float) -> Kept | None:
        """Return what a replay must hold if the history is whole, or None if nothing is sure to be there."""
        point, kept = self.resume_point, self._kept
        if point is None or kept is None or kept[0] <= point or kept[2] <= server_unix + CLOCK_SLACK_S:
            return None
        # By other channels comes another history.
        came_by, listened = kept[3].split(), self._channels.split()
        return Kept(*kept) if came_by and set(came_by) <= set(listened) else None

    def listens_on(self, channels: str) -> None:
        """Take note of the channels by which all comes from now on.

        Args:
            channels: A digest of each; see ``Kept``.
        """
        self._channels = channels

    def admit(self, mid: str, now: float, stamp: float = UNKNOWN) -> bool:
        """Return True if the message is new, and remember it.

        Args:
            mid: The message's id; "" where it has none, which is always new.
            now: Monotonic time of receipt in seconds.
            stamp: What tells it from another one with the same mid.
        """
        # The server silently ignores a resume point of another form: it would replay nothing.
        is_newest = self._newest < mid <= self._latest and is_regular(mid)
        if not is_newest or mid <= self._known_up_to:
            if not mid or len(mid) > MID_LENGTH_MAX:
                return True
            known = self._known.stamp(mid)
            if known is not None:
                if not are_of_two(known, stamp):
                    return False
            elif self._was_known(mid, stamp):
                return False
            if known is not None or (not is_newest and self._comes_late(mid, stamp)):
                self.begin_anew()
                is_newest = mid <= self._latest and is_regular(mid)
            self._known_up_to = max(mid, self._known_up_to)
        if self._known.add(mid, stamp):
            self._turn_page()
        if is_newest:
            self._advance(mid, stamp, now)
        return True

    def admit_all(self, mids: Sequence[str], now: float, stamps: Sequence[float]) -> set[int]:
        """Remember messages that came together, and return the places of those that are not new.

        Args:
            mids: The messages' ids.
            now: Monotonic time of receipt in seconds.
            stamps: As for ``admit``, for each of them.
        """
        if (
            mids
            and self._newest < mids[0] > self._known_up_to
            and mids[-1] <= self._latest
            and are_ascending(mids)
        ):
            # The stream goes on where it was: so it nearly always is.
            if self._known.add_all(mids, stamps):
                self._turn_page()
            self._advance(mids[-1], stamps[-1], now)
            return set()
        admitted = map(self.admit, mids, repeat(now), stamps)
        return {index for index, is_new in enumerate(admitted) if not is_new}

    def _comes_late(self, mid: str, stamp: float) -> bool:
        """Tell whether a message was made long after all that have greater mids, and so cannot be theirs.

        What is overtaken, or left out at first, was made before them.
        """
        latest = max(self._newest_stamp, self._ascended, self._ascended_before, key=abs)
        # Both by the same clock, and neither a digest.
        if mid > self._newest or not is_regular(mid) or latest * stamp <= 1:
            return False
        # Nothing is overtaken by as much as what lies behind the resume point.
        slack_s = LATE_S if stamp > 0 or mid <= self._unheld.mid else SENT_LATE_S
        return abs(stamp) > abs(latest) + slack_s

    def begin_anew(self) -> None:
        """Take note that mids are handed out a second time, or that the history they rest on is gone.

        From here on the resume point is the start of history, and what is older than the one so
        far, or known, is not wanted of it.
        """
        self._began = self.reached()
        self._before = self._known.upon(self._before)
        self._start()
        self._holds = dict.fromkeys(self._holds, _BEGINNING)
        self.numbering += 1

    def reached(self) -> Beginning | None:
        """Return when the message at the resume point was made: all before have come, or are lost."""
        return self._made_at(self._point.stamp)

    def _made_at(self, stamp: float) -> Beginning | None:
        """Return when a message was made, or when this began if its stamp does not tell."""
        if stamp <= -1:
            return Beginning(None, -stamp)
        if stamp < 1:
            return self._began
        for moment in (self._clocks, self._began):
            if moment is not None and moment.server_unix is not None and moment.portal_unix is not None:
                return Beginning(stamp, moment.portal_unix + stamp - moment.server_unix)
        return Beginning(stamp, stamp - FOREIGN_CLOCK_SLACK_S)

    def too_old(self, mid: str, created_unix: float | None, sent_unix: float | None) -> bool:
        """Tell whether a replayed message is from before this client's first connection.

        A resume from the start of history brings such messages too.
        """
        if self._began is None or mid >= self._first_wanted:
            return False
        if self._began.is_after(created_unix, sent_unix):
            return True
        if created_unix is not None or sent_unix is not None:
            self.is_wanted(mid)
        return False

    def is_wanted(self, mid: str) -> None:
        """Take note that a message, and so all after it, is no older than the first connection."""
        if is_regular(mid):
            self._first_wanted = min(mid, self._first_wanted)

    @property
    def resume_point(self) -> str | None:
        """The mid to resume after, or None before the first connection."""
        return self._point.mid if self._connected else None

    @property
    def _point(self) -> _Point:
        point = self._unheld
        return min((point, *self._holds.values())) if self._holds else point

    @property
    def _unheld(self) -> _Point:
        return self._marks[0].point if self._marks else self._floor

    def snapshot(self, unsettled: Collection[str], of_before: Collection[str] = ()) -> ResumePoint:
        """Return what to write down, given the mids that handlers have not finished with.

        What is settled beyond it is left out: see ``settled_beyond``.

        Args:
            unsettled: Those of this stream.
            of_before: Those that may have come before it began anew.
        """
        point = self._point
        # Of those that came before it was known that the counter had gone back, some came after it had.
        epoch = point.mid[:10]
        first = min((*unsettled, *(mid for mid in of_before if mid[:10] == epoch)), default=_BEYOND_ALL)
        if first <= point.mid:
            point = _Point(_just_before(first), self._known.stamp(first) or UNKNOWN)
        if self._forgotten_up_to <= point.mid:
            self.forgotten = 0
        kept = None if self._kept is None else Kept(*self._kept)
        return ResumePoint(point.mid, (), self._wanted_since(of_before), self.server, (), kept, point.stamp)

    def _wanted_since(self, of_before: Collection[str]) -> Beginning | None:
        """Return what is not too old after a restart, which brings again what is not settled of before."""
        if self._before is None or self._began is None:
            return self._began
        stamps = filter(None, map(self._before.stamp, of_before))
        made = [at for stamp in stamps if (at := self._made_at(stamp)) is not None]
        return min((self._began, *made), key=_in_time)

    def settled_beyond(self, mid: str, unsettled: Collection[str]) -> dict[str, float]:
        """Return the known mids beyond another one but those unsettled, with their stamps."""
        return {known: stamp for known, stamp in self._known.beyond(mid) if known not in unsettled}

    def hold(self, reason: str) -> None:
        """Let the resume point not pass where it is until ``release`` is called for the same reason.

        What comes meanwhile must not move it past what is still missing: what waits in a
        new channel while the old one has ended, or what the server left out of a replay.
        """
        if self._connected:
            self._holds.setdefault(reason, self._unheld)

    @property
    def held(self) -> Collection[str]:
        """The reasons for which the resume point is held."""
        return tuple(self._holds)

    def release(self, reason: str) -> None:
        """Let the resume point follow the stream again, as far as this reason goes."""
        self._holds.pop(reason, None)

    def _advance(self, newest: str, stamp: float, now: float) -> None:
        self._newest = newest
        self._newest_stamp = stamp
        if now >= self._mark_at:
            self._mark(now)

    def _turn_page(self) -> None:
        """Forget of the oldest mids what no resume can bring again."""
        known, marks = self._known, self._marks
        point = self.resume_point or START_OF_HISTORY
        in_hand = {mid for mid in self._unsettled() if is_regular(mid) and self.stamp(mid) is not None}
        # A restart resumes before what is not settled then.
        floor = _just_before(min(in_hand)) if in_hand else _BEYOND_ALL
        known.turn_page(min(floor, point), self._latest)
        if self._ascended:
            self._ascended_before, self._ascended = self._ascended, UNKNOWN
        while known.packed(point) > _OVERLAP_MAX and len(marks) > 1 and not self._holds:
            del marks[0]
            point = marks[0].point.mid
            known.forget(min(floor, point))
        while known.packed(min(floor, point)) > _OVERLAP_MAX + _SETTLED_MAX:
            newest, count = known.forget_oldest(in_hand)
            if not count:
                break
            self._forgotten_up_to = max(self._forgotten_up_to, newest)
            self.forgotten += count

    def _mark(self, now: float) -> None:
        """Note the newest mid now and then, so that the left note stays just out of the overlap."""
        marks = self._marks
        if not marks:
            # Until the first overlap has passed, only where we began is safe.
            marks.append(_Mark(now, self._floor))
        if now - marks[-1].at >= self._overlap_s / 10:
            # Just before it: a replay then begins with a message that we know, or shows a gap.
            marks.append(_Mark(now, _Point(_just_before(self._newest), self._newest_stamp)))
        while len(marks) > 1 and marks[1].at <= now - self._overlap_s:
            del marks[0]
        self._mark_at = marks[-1].at + self._overlap_s / 10
        if len(marks) > 1:
            self._mark_at = min(self._mark_at, marks[1].at + self._overlap_s)
        self._ascended = max(self._ascended, self._newest_stamp, key=abs)
        if self._known_up_to == _BEYOND_ALL and self._point.mid > START_OF_HISTORY:
            # No resume brings again what was known before it began anew.
            self._known_up_to = self._newest


_BEYOND_ALL = "~"
"""A text that is greater than any mid."""


def _in_time(moment: Beginning) -> float:
    """Return what moments are ordered by: one clock is known of all of them, mostly the portal's."""
    return next((unix for unix in (moment.portal_unix, moment.server_unix) if unix is not None), -math.inf)


def _just_before(mid: str) -> str:
    """Return the greatest text that is less than a mid and has the form of one."""
    return f"{max(int(mid) - 1, 0):026}" if is_regular(mid) else START_OF_HISTORY
