"""Spreads what many clients begin at the same time."""

import asyncio
import math

_LATE_S = 0.1
"""Whoever is so late for a turn, because others held up the event loop, does not put off those behind."""

_BEHIND_S = 0.1
"""An event loop that takes so long for one round has too much to do."""


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


async def caught_up(within_s: float) -> None:
    """Wait until the event loop is not behind with what it has to do, but not for longer than some seconds.

    Whoever begins one thing after the other on a loop that is behind holds up what must be done
    in time: leases end, servers take their clients for dead, and all of it is begun once more.
    """
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + within_s
    while True:
        began = loop.time()
        await asyncio.sleep(0)
        now = loop.time()
        if now - began <= _BEHIND_S or now >= ends_at:
            return
        await asyncio.sleep(min(now - began, ends_at - now))
