"""Spreads what many clients begin at the same time."""

import asyncio
import math

_LATE_S = 0.1
"""Whoever is so late for a turn, because others held up the event loop, does not put off those behind."""


class Pace:
    """Lets one after the other through, in the order in which they come.

    Args:
        per_s: How many a second.
    """

    def __init__(self, per_s: float) -> None:
        self._every_s = 1 / per_s
        self._next_at = -math.inf

    async def turn(self) -> None:
        """Wait until it is the caller's turn."""
        now = asyncio.get_running_loop().time()
        at = self._next_at if now - self._next_at <= _LATE_S else now
        self._next_at = at + self._every_s
        if at > now:
            await asyncio.sleep(at - now)
