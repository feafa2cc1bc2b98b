"""Notices about the connection, for everybody who listens to them."""

from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Final, Generic, TypeVar

from bitrix_pull.events import Continuity, Gap, InboxFull, Notice, State, StateChanged
from bitrix_pull.flag import Flag
from bitrix_pull.redaction import get_logger
from bitrix_pull.telemetry import log_fields

logger: Final = get_logger("client")

N = TypeVar("N")

_BACKLOG_MAX = 1_000
"""Notices kept for a listener that does not read; the oldest are dropped."""


class Listeners(Generic[N]):
    """Hands each notice to every open iterator, and never waits for one."""

    def __init__(self) -> None:
        """Begin with nobody who listens."""
        self._listeners: list[_Listener[N]] = []

    def tell(self, notice: N) -> None:
        """Give a notice to whoever listens now."""
        for listener in self._listeners:
            listener.backlog.append(notice)
            listener.arrived.set()

    def end(self) -> None:
        """End the iterators that are open, once they have yielded what was told."""
        for listener in self._listeners:
            listener.ended = True
            listener.arrived.set()

    async def listen(self) -> AsyncGenerator[N]:
        """Yield the notices told from the first request on, until ``end``."""
        listener = _Listener[N]()
        self._listeners.append(listener)
        try:
            while not listener.ended:
                await listener.arrived.wait()
                listener.arrived.clear()
                while listener.backlog:
                    yield listener.backlog.popleft()
        finally:
            self._listeners.remove(listener)


class NoticeBoard:
    """Tells what happens to one client. Posting never waits."""

    def __init__(self, portal: str = "", hear: Callable[[Notice], None] | None = None) -> None:
        """Create a board that nobody listens to.

        Args:
            portal: What the client's portal is called.
            hear: Called with each notice at once.
        """
        self._portal = portal
        self.taps: list[Callable[[Notice], None]] = [] if hear is None else [hear]
        """Called with each notice at once."""
        self._listeners = Listeners[Notice]()
        self._counts: Counter[type[Notice]] = Counter()

    def post(self, notice: Notice) -> None:
        """Give a notice to whoever listens now, and write down what nobody should miss."""
        _log(notice)
        self._counts[type(notice)] += 1
        notice = replace(notice, portal=self._portal)
        for tap in self.taps:
            tap(notice)
        self._listeners.tell(notice)

    def count(self, kind: type[Notice]) -> int:
        """Return how many notices of a kind were posted since ``begin``."""
        return self._counts[kind]

    def begin(self) -> None:
        """Count anew."""
        self._counts.clear()

    def end(self) -> None:
        """End the iterators that are open, once they have yielded what was posted."""
        self._listeners.end()

    def listen(self) -> AsyncGenerator[Notice]:
        """Yield the notices posted from the first request on, until ``end``."""
        return self._listeners.listen()


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


class _Listener(Generic[N]):
    def __init__(self) -> None:
        self.backlog: deque[N] = deque(maxlen=_BACKLOG_MAX)
        self.arrived = Flag()
        self.ended = False
