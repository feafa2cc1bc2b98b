"""Notices about the connection, for everybody who listens to them."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from bitrix_pull.events import Notice

_BACKLOG_MAX = 1_000
"""Notices kept for a listener that does not read; the oldest are dropped."""


class NoticeBoard:
    """Hands each notice to every open iterator. Posting never waits."""

    def __init__(self) -> None:
        """Create a board that nobody listens to."""
        self._listeners: list[_Listener] = []

    def post(self, notice: Notice) -> None:
        """Give a notice to whoever listens now."""
        for listener in self._listeners:
            listener.backlog.append(notice)
            listener.arrived.set()

    async def listen(self) -> AsyncIterator[Notice]:
        """Yield the notices posted from the first request on, until the iterator is closed."""
        listener = _Listener()
        self._listeners.append(listener)
        try:
            while True:
                await listener.arrived.wait()
                listener.arrived.clear()
                while listener.backlog:
                    yield listener.backlog.popleft()
        finally:
            self._listeners.remove(listener)


class _Listener:
    def __init__(self) -> None:
        self.backlog: deque[Notice] = deque(maxlen=_BACKLOG_MAX)
        self.arrived = asyncio.Event()
