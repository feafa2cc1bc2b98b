"""Whether a reconnect has brought everything back: never claimed unless it was seen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from bitrix_pull.connection.cursor import Cursor
from bitrix_pull.connection.resume_point import Beginning, Kept
from bitrix_pull.connection.stamps import are_of_two, sent_unix, stamp_of
from bitrix_pull.events import Continuity, Gap, PullEvent
from bitrix_pull.wire.messages import Control, Incoming, Malformed, Unread

Recovered = Literal["yes", "no", "unknown"]

KEPT_MAX_S = 86_400.0
"""No push server keeps a message for longer (protocol §6)."""

_TALLY_MAX_MESSAGES = 5_000
_TALLY_MAX_BYTES = 2 * 1024 * 1024
"""Of a replay, so much of what is new is looked at before the first of it is delivered."""


@dataclass(slots=True, frozen=True)
class Opening:
    """What was known when a connection was opened that has something to resume.

    Attributes:
        cursor: Takes what comes.
        left: The cursor of the stream before; another one where the push server has changed.
        kept: What the history must hold if it is whole; None if nothing is sure to be there.
        from_start: True if the start of history was asked for.
        moment: When it was opened: what is older is a replay.
        newest: The highest mid that was seen by then.
        numbering: Of the cursor, by then.
    """

    cursor: Cursor
    left: Cursor
    kept: Kept | None
    from_start: bool
    moment: Beginning
    newest: str
    numbering: int

    @property
    def moved(self) -> bool:
        """True if it is another push server than before."""
        return self.left is not self.cursor

    def was_left_out(self, mid: str) -> bool:
        """Tell whether a message of a replay was sent before others that came already."""
        return mid < self.newest and self.cursor.numbering == self.numbering


class Tally:
    """What one answer of the server brings, looked at part by part before any of it is taken."""

    def __init__(self, opening: Opening, *, from_start: bool) -> None:
        """Begin to look.

        Args:
            opening: What was known when the connection was opened.
            from_start: True if the start of history was asked for.
        """
        self._opening = opening
        self._from_start = from_start
        self._last_known = ""
        self._found_left = self._found_kept = self._passed_kept = False
        self._found_other = self._found_older = False
        self._wanted_count = self._wanted_bytes = 0
        self.seen: int = 0
        """Messages that were looked at."""
        self.known: int = 0
        """Messages that were known, each counted once."""

    @property
    def is_full(self) -> bool:
        """True if no more of it should be held back."""
        return self._wanted_count >= _TALLY_MAX_MESSAGES or self._wanted_bytes >= _TALLY_MAX_BYTES

    @property
    def is_decided(self) -> bool:
        """True if what is still to come will hardly change the verdict: what is known comes first."""
        opening = self._opening
        found = opening.moved or opening.kept is None or self._found_kept or self._passed_kept
        return self._found_other or (found and self._wanted_count > 0)

    @property
    def is_replay(self) -> bool:
        """True if it is none of what came after the connection was opened."""
        return self.known > 0 or self._found_left or self._found_kept or self._found_older

    def look(self, messages: Sequence[Incoming]) -> tuple[list[Incoming], list[Incoming]]:
        """Take note of a part, and return what of it is wanted, and what is known or too old."""
        wanted: list[Incoming] = []
        others: list[Incoming] = []
        for message in messages:
            if isinstance(message, PullEvent | Unread | Control | Malformed) and not self._is_wanted(message):
                others.append(message)
                continue
            wanted.append(message)
            self._wanted_count += 1
            if isinstance(message, PullEvent | Unread):
                self._wanted_bytes += message.size
        return wanted, others

    def _is_wanted(self, message: PullEvent | Unread | Control | Malformed) -> bool:
        opening, mid, stamp = self._opening, message.mid, stamp_of(message)
        self.seen += 1
        if (kept := opening.kept) is not None:
            self._found_kept |= mid == kept.mid and not are_of_two(stamp, kept.stamp)
            self._passed_kept |= mid > kept.mid
        self._found_other |= opening.cursor.is_other(mid, stamp)
        self._found_left |= opening.left.recognises(mid, stamp)
        if opening.cursor.knows(mid, stamp):
            # What is on two channels comes twice, one right after the other.
            self.known += mid != self._last_known
            self._last_known = mid
            return False
        if isinstance(message, Malformed):
            return True
        times = message.created_unix, sent_unix(message)
        self._found_older |= opening.moment.is_after(*times)
        return not (self._from_start and opening.cursor.too_old(mid, *times))

    def recovered(self, *, ended: bool) -> Recovered:
        """Return the verdict by what was seen; ``ended`` if that is all of the answer."""
        kept = self._opening.kept
        if self._found_other:
            return "no"
        if self._opening.moved:
            # The same server by another name shows by what it has sent already.
            return "yes" if self._found_left else "no"
        if kept is None:
            return "yes" if self.known else "unknown"
        if self._found_kept:
            return "yes"
        return "no" if ended or self._passed_kept else "unknown"


class Resumption:
    """The verdict on one reconnect, said once: by the first frame, or else by the audit.

    The resume point lies just before a message that is known. If the server's history is
    whole, a replay holds what is known and was to be kept, the newest of it too; if that is not
    there, the history is gone, or is another one.
    """

    def __init__(
        self,
        opening: Opening,
        announce: Callable[[Continuity], None],
        *,
        reconnect: bool,
        offline_s: float | None,
        in_reach: bool = True,
    ) -> None:
        """Begin to resume.

        Args:
            opening: What was known when it was opened.
            announce: Gets the verdict.
            reconnect: False if there was no time without a connection: then there is none to give.
            offline_s: Seconds without a connection, if known.
            in_reach: False if it was listened on a channel before that is not any more.
        """
        self.opening = opening
        self._announce = announce
        self._offline_s = offline_s
        # Whatever the server still holds, it is not all of it.
        self._is_partial = not in_reach or (offline_s or 0.0) > KEPT_MAX_S
        self.judged: bool = not reconnect
        """True once the verdict was given."""

    def judge(self, recovered: Recovered, *, replayed: int, duplicates: int, more: bool) -> None:
        """Give the verdict, once.

        Args:
            recovered: What it is.
            replayed: How many messages were missed.
            duplicates: How many were known.
            more: True if they are not all.
        """
        if not self.judged:
            self.judged = True
            if self._is_partial:
                recovered = "no"
            kind = Gap if recovered == "no" else Continuity
            self._announce(kind(recovered, replayed, duplicates, self._offline_s, more))
