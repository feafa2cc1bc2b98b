"""Watches over a link: pings it where it is quiet, and tells when it gives no sign of life."""

import asyncio
import math
from collections.abc import Callable

_LATE_S = 1.0
"""A timer that is later than this was held up by the program, and so was the reading."""

_ANSWER_S = 5.0
"""How long to wait for an answer at least, however late the ping went out."""

_TICK_S = 0.125
"""All links of an event loop are looked at in the same moments, so far apart: of thousands of
links many then are pinged, and answer, in one turn of the loop. It is the last such moment before
a silence is as long as it may be, or one of many more where it may be short."""


class Heartbeat:
    """One timer for the whole life of a link; what is heard only moves a number.

    Attributes:
        heard_at: When something was heard last, by the loop's clock; to be set by whoever hears.
    """

    def __init__(
        self, ping: Callable[[], None], dead: Callable[[], None], *, interval_s: float, timeout_s: float
    ) -> None:
        """Begin to watch.

        Args:
            ping: Called when nothing was heard for ``interval_s``.
            dead: Called once when nothing was heard for ``timeout_s`` after that.
            interval_s: Longest silence without a ping.
            timeout_s: Longest silence after a ping.
        """
        self._ping = ping
        self._dead = dead
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._tick_s = min(_TICK_S, interval_s / 40, timeout_s / 40)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._pinged_at: float | None = None
        self._is_paused = False
        self.heard_at: float = self._loop.time()
        self._look_again_at(self.heard_at + self._interval_s)

    def pause(self) -> None:
        """Expect no sign of life until ``resume``: nobody reads. The pings go on.

        To a link that was cut the system then refuses to write, which ends it as well.
        """
        self._is_paused = True

    def resume(self) -> None:
        """Watch as from the start: while nobody listened, nothing can have been heard."""
        self._is_paused = False
        self._pinged_at = None
        self.heard_at = self._loop.time()

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_again_at(self, when: float) -> None:
        when = math.floor(when / self._tick_s) * self._tick_s
        self._timer = self._loop.call_at(when, self._look, when)

    def _look(self, due: float) -> None:
        now = self._loop.time()
        if self._is_paused:
            self._look_again_at(now + self._interval_s)
            self._ping()
            return
        if self._pinged_at is not None and self.heard_at < self._pinged_at:
            if now - due <= _LATE_S:
                self._timer = None
                self._dead()
            else:
                # What has come meanwhile is still to be read.
                self._look_again_at(now + self._timeout_s)
            return
        self._pinged_at = None
        if now + self._tick_s <= self.heard_at + self._interval_s:
            self._look_again_at(self.heard_at + self._interval_s)
            return
        self._pinged_at = now
        # Where the answer may be long in coming, it is what was heard last that counts.
        silent_until = self.heard_at + self._interval_s + self._timeout_s
        self._look_again_at(max(silent_until, now + min(self._timeout_s, _ANSWER_S)))
        self._ping()
