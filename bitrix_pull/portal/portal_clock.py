"""The portal's clock: by it ends whatever the portal has given, however this machine has slept.

A channel, a token or a watch ends at a moment of the portal's day (protocol §3). The event
loop's clock stands still while a machine is suspended, and the wall clock may be set; so
neither alone says how much time has passed, and now and then both are compared.
"""

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache, partial
from typing import Final
from weakref import WeakValueDictionary

COMPARE_EVERY_S = 2.0
"""How often this machine's clocks are compared, while somebody waits for the portal's."""

APART_S = 2.0
"""By how much they must have come apart to say that one of them jumped."""

HELD_UP_S = 30.0
"""How late the comparison must be to say that this process was stopped, not only busy."""

BACK_S = 60.0
"""For how long after it came back an absence is told."""

WHOLE_SECOND_S = 1.5
"""An HTTP ``Date`` is cut to whole seconds, and it took a moment to come here."""


def date_of(headers: Mapping[str, str]) -> float | None:
    """Return the ``Date`` of an HTTP answer as unix time, or None if it has none."""
    try:
        return _unix_of(headers["Date"])
    except LookupError:
        return None


@lru_cache(maxsize=64)
def _unix_of(date: str) -> float | None:
    """Return what an HTTP date says: that of many answers is of the same second."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


@dataclass(slots=True, frozen=True)
class Moment:
    """A moment by both of this machine's clocks."""

    wall: float
    loop: float

    @classmethod
    def now(cls) -> "Moment":
        """Return the present one. Needs a running event loop; those of all threads agree."""
        return cls(time.time(), asyncio.get_running_loop().time())

    @property
    def elapsed_s(self) -> float:
        """Seconds since then, also those in which one of the clocks stood still or was set back."""
        now = Moment.now()
        return max(now.wall - self.wall, now.loop - self.loop, 0.0)


class PortalClock:
    """Shows the portal's time, and wakes who waits for it.

    It goes by what the portal told last. To be early costs a question too many, and the
    answer puts it right; to be late would be deafness. So of two clocks that disagree the
    faster one counts.
    """

    def __init__(self) -> None:
        """Begin with this machine's own time, until the portal tells its."""
        self._told: float | None = None
        self._told_at: Moment | None = None
        self._heard: dict[str, tuple[float, Moment]] = {}
        self._waiting: set[asyncio.Future[bool]] = set()
        self._comparison: _Comparison | None = None
        self._away = (0.0, -math.inf)

    def now(self) -> float:
        """Return the portal's present time (unix); this machine's where it has told none."""
        if self._told is None or self._told_at is None:
            return time.time()
        return self._told + self._told_at.elapsed_s

    def learn(self, unix: float) -> None:
        """Take over the portal's time, as an answer of its told it just now."""
        if not math.isfinite(unix):
            return
        off_s = unix - self.now()
        known = self._told is not None
        if known and float(unix).is_integer() and abs(off_s) <= WHOLE_SECOND_S:
            return  # What is known is at least as exact.
        self._told, self._told_at = unix, Moment.now()
        if abs(off_s) > APART_S:
            self._wake(jumped=False)

    def hear(self, server: str, unix: float) -> None:
        """Take note of another server's time, whose clock may be hours off, but runs as fast.

        Where more time has passed by it than by ours, both of ours stood still.

        Args:
            server: Tells it from others.
            unix: What it told just now.
        """
        heard = self._heard.get(server)
        self._heard[server] = unix, Moment.now()
        if heard is None:
            return
        slept_s = unix - heard[0] - heard[1].elapsed_s
        if slept_s > APART_S:
            self._told, self._told_at = self.now() + slept_s, Moment.now()
            self._away = slept_s, self._told_at.loop
            self._wake(jumped=True)

    async def until(self, unix: float, bell: asyncio.Future[None] | None = None) -> bool:
        """Wait until it shows a time.

        Args:
            unix: That time.
            bell: Ends the wait when it is done.

        Returns:
            True, and maybe earlier, if this machine has slept meanwhile, this process was
            stopped, or a clock was set.
        """
        loop = asyncio.get_running_loop()
        comparison = self._comparison = _comparison_in(loop)
        while (left_s := unix - self.now()) > 0:
            woken: asyncio.Future[bool] = loop.create_future()
            wake = partial(_wake, woken)
            timer = None if math.isinf(left_s) else loop.call_later(left_s, wake)
            if bell is not None:
                bell.add_done_callback(wake)
            self._waiting.add(woken)
            comparison.add(woken)
            try:
                if await woken:
                    return True
                if bell is not None and bell.done():
                    return False
            finally:
                self._waiting.discard(woken)
                comparison.discard(woken)
                if timer is not None:
                    timer.cancel()
                if bell is not None:
                    bell.remove_done_callback(wake)
        return False

    def away_s(self) -> float:
        """Return how long this machine slept, or this process was stopped, until just now; 0 if neither."""
        told = [self._away]
        if self._comparison is not None:
            told.append(self._comparison.away())
        now = asyncio.get_running_loop().time()
        return max(away_s if now - back_at <= BACK_S else 0.0 for away_s, back_at in told)

    async def sleep(self, seconds: float) -> None:
        """Wait so long; time in which this machine slept counts."""
        end = self.now() + seconds
        while self.now() < end:
            await self.until(end)

    def _wake(self, *, jumped: bool) -> None:
        for woken in self._waiting:
            _wake(woken, jumped=jumped)


def _wake(woken: asyncio.Future[bool], _: object = None, *, jumped: bool = False) -> None:
    if not woken.done():
        woken.set_result(jumped)


class _Comparison:
    """Compares the clocks for all who wait in one event loop: one timer, while there are any."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: Final = loop
        self._waiting: set[asyncio.Future[bool]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._last = Moment.now()
        # For how long we were away last, and when we came back.
        self._away = (0.0, -math.inf)

    def add(self, woken: asyncio.Future[bool]) -> None:
        """Let the result be True when the clocks have come apart."""
        self._waiting.add(woken)
        if self._timer is None:
            self._last = Moment.now()
            self._timer = self.loop.call_later(COMPARE_EVERY_S, self._look)

    def discard(self, woken: asyncio.Future[bool]) -> None:
        """Leave it alone."""
        self._waiting.discard(woken)
        if not self._waiting and self._timer is not None:
            self._compare()
            self._timer.cancel()
            self._timer = None

    def away(self) -> tuple[float, float]:
        """Return for how many seconds we were away last, and when we came back by the loop's clock."""
        if self._timer is not None:
            self._compare()
        return self._away

    def _look(self) -> None:
        self._compare()
        self._timer = self.loop.call_later(COMPARE_EVERY_S, self._look)

    def _compare(self) -> None:
        last, now = self._last, Moment.now()
        self._last = now
        by_wall_s, by_loop_s = now.wall - last.wall, now.loop - last.loop
        if abs(by_wall_s - by_loop_s) <= APART_S and by_loop_s <= COMPARE_EVERY_S + HELD_UP_S:
            return
        away_s = max(by_wall_s, by_loop_s) - COMPARE_EVERY_S
        if away_s > 0:
            self._away = away_s, now.loop
        for woken in self._waiting:
            _wake(woken, jumped=True)


# Whoever waits keeps it alive.
_comparisons: WeakValueDictionary[int, _Comparison] = WeakValueDictionary()


def _comparison_in(loop: asyncio.AbstractEventLoop) -> _Comparison:
    comparison = _comparisons.get(id(loop))
    if comparison is None or comparison.loop is not loop:
        comparison = _comparisons[id(loop)] = _Comparison(loop)
    return comparison
