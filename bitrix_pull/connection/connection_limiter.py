"""Spreads the reconnects of many clients in one process over time."""

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakSet, WeakValueDictionary

SHARE_PER_S: Final = 0.05
"""Which share of the clients of one push server may begin to reconnect within a second."""

SHARE_AT_ONCE: Final = 0.02
"""Which share of them may be at it at the same time: a busy server takes them as it can."""

LEAST: Final = 20
"""How many may in any case, of both."""


class ConnectionLimiter:
    """Lets reconnects to one push server through, one after the other.

    A server that restarts loses all its clients at the same moment; a process that holds
    thousands of them would knock it down again. One client, or a few, never wait here.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Create it without clients; use ``limiter_of`` instead."""
        self.loop: Final = loop
        self._clients: WeakSet[object] = WeakSet()
        self._queue = asyncio.Lock()
        self._next_at = -math.inf
        self._trying = 0
        self._done = asyncio.Event()

    def join(self, client: object) -> None:
        """Count a client among those of this server, as long as it lives."""
        self._clients.add(client)

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None, None]:
        """Wait until one more may try; the block is its attempt."""
        async with self._queue:
            # The clients are counted anew each time: while the first wait, others join.
            every_s = 1 / max(LEAST, SHARE_PER_S * len(self._clients))
            self._next_at = max(self._next_at, self.loop.time() - LEAST * every_s)
            if (wait_s := self._next_at - self.loop.time()) > 0:
                await asyncio.sleep(wait_s)
            self._next_at += every_s
            while self._trying >= max(LEAST, SHARE_AT_ONCE * len(self._clients)):
                self._done.clear()
                await self._done.wait()
            self._trying += 1
        try:
            yield
        finally:
            self._trying -= 1
            self._done.set()


# Whoever uses one keeps it alive.
_limiters: WeakValueDictionary[tuple[int, str], ConnectionLimiter] = WeakValueDictionary()


def limiter_of(server: str) -> ConnectionLimiter:
    """Return the one limiter for a push server, by its address, in the running event loop."""
    loop = asyncio.get_running_loop()
    limiter = _limiters.get((id(loop), server))
    if limiter is None or limiter.loop is not loop:
        limiter = _limiters[id(loop), server] = ConnectionLimiter(loop)
    return limiter
