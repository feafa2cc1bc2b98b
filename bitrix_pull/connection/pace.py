"""Spreads what many clients begin at the same time."""

import asyncio
import math


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
        at = max(now, self._next_at)
        self._next_at = at + self._every_s
        if at > now:
            await asyncio.sleep(at - now)
