"""Spreads the reconnects of many clients in one process over time."""

import asyncio
import math
from typing import Final
from weakref import WeakSet, WeakValueDictionary

SHARE_PER_S: Final = 0.08
"""Which share of the clients of one push server may try to reconnect within a second."""

LEAST_PER_S: Final = 20.0
"""How many may in any case, and how many at once after a time of peace."""


class Turnstile:
    """Lets reconnects to one push server through, one after the other.

    A server that restarts loses all its clients at the same moment; a process that holds
    thousands of them would knock it down again. One client, or a few, never wait here.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Create it without clients; use ``turnstile_of`` instead."""
        self.loop: Final = loop
        self._clients: WeakSet[object] = WeakSet()
        self._queue = asyncio.Lock()
        self._next_at = -math.inf

    def join(self, client: object) -> None:
        """Count a client among those of this server, as long as it lives."""
        self._clients.add(client)

    async def turn(self) -> None:
        """Wait until one more may try."""
        async with self._queue:
            # The clients are counted anew each time: while the first wait, others join.
            every_s = 1 / max(LEAST_PER_S, SHARE_PER_S * len(self._clients))
            self._next_at = max(self._next_at, self.loop.time() - LEAST_PER_S * every_s)
            if (wait_s := self._next_at - self.loop.time()) > 0:
                await asyncio.sleep(wait_s)
            self._next_at += every_s


# Whoever uses one keeps it alive.
_turnstiles: WeakValueDictionary[tuple[int, str], Turnstile] = WeakValueDictionary()


def turnstile_of(server: str) -> Turnstile:
    """Return the one turnstile for a push server, by its address, in the running event loop."""
    loop = asyncio.get_running_loop()
    turnstile = _turnstiles.get((id(loop), server))
    if turnstile is None or turnstile.loop is not loop:
        turnstile = _turnstiles[id(loop), server] = Turnstile(loop)
    return turnstile
