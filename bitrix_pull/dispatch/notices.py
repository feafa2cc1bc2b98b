"""Notices about the connection, for everybody who listens to them."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Final

from bitrix_pull.events import Continuity, Gap, InboxFull, Notice, State, StateChanged
from bitrix_pull.redaction import get_logger
from bitrix_pull.telemetry import log_fields

logger: Final = get_logger("client")

_BACKLOG_MAX = 1_000
"""Notices kept for a listener that does not read; the oldest are dropped."""


class NoticeBoard:
    """Hands each notice to every open iterator. Posting never waits."""

    def __init__(self, portal: str = "", also: Callable[[Notice], None] | None = None) -> None:
        """Create a board that nobody listens to.

        Args:
            portal: What the client's portal is called.
            also: Gets every notice too.
        """
        self._portal = portal
        self._also = also
        self._listeners: list[_Listener] = []
        self._counts: Counter[type[Notice]] = Counter()
        self.hear: Callable[[Notice], None] | None = None
        """Called with each notice at once."""

    def post(self, notice: Notice) -> None:
        """Give a notice to whoever listens now, and write down what nobody should miss."""
        _log(notice)
        self._counts[type(notice)] += 1
        notice = replace(notice, portal=self._portal)
        if self.hear is not None:
            self.hear(notice)
        for listener in self._listeners:
            listener.backlog.append(notice)
            listener.arrived.set()
        if self._also is not None:
            self._also(notice)

    def count(self, kind: type[Notice]) -> int:
        """Return how many notices of a kind were posted since ``begin``."""
        return self._counts[kind]

    def begin(self) -> None:
        """Count anew."""
        self._counts.clear()

    def end(self) -> None:
        """End the iterators that are open, once they have yielded what was posted."""
        for listener in self._listeners:
            listener.ended = True
            listener.arrived.set()

    async def listen(self) -> AsyncGenerator[Notice]:
        """Yield the notices posted from the first request on, until ``end``."""
        listener = _Listener()
        self._listeners.append(listener)
        try:
            while not listener.ended:
                await listener.arrived.wait()
                listener.arrived.clear()
                while listener.backlog:
                    yield listener.backlog.popleft()
        finally:
            self._listeners.remove(listener)


def _log(notice: Notice) -> None:
    """Log how the connection fares; other notices are logged where they arise, with more detail."""
    match notice:
        case StateChanged(state=State.FAILED, previous=previous, error=error):
            logger.error(
                "failed for good, and receives nothing any more: %s",
                error,
                extra=log_fields(state="failed", previous=previous, error=error),
            )
        case StateChanged(state=State.LIVE, previous=previous) if previous is not State.RENEWING:
            logger.info("live", extra=log_fields(state="live", previous=previous))
        case StateChanged(state=state, previous=previous):
            logger.debug("%s, was %s", state, previous, extra=log_fields(state=state, previous=previous))
        case Gap():
            logger.warning(
                "the push server's history is gone: events may be lost. Fetch the state anew over REST"
            )
        case InboxFull(event=event, handler=handler, waiting=waiting):
            logger.warning(
                "handlers are behind, and nothing more is read: %d events wait, %s longest, for %s",
                waiting,
                event,
                handler,
            )
        case Continuity(recovered="yes", replayed=replayed, duplicates=duplicates):
            logger.info(
                "recovered: messages missed %d, known already %d",
                replayed,
                duplicates,
                extra=log_fields(replayed=replayed, duplicates=duplicates),
            )
        case _:
            pass


class _Listener:
    def __init__(self) -> None:
        self.backlog: deque[Notice] = deque(maxlen=_BACKLOG_MAX)
        self.arrived = asyncio.Event()
        self.ended = False
