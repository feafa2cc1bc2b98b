"""Where a hub writes events down for other services. No engine is known here.

The log keeps the resume points too: that an event is in it and that it need not come again is
written in one step, so neither can be true without the other, whatever is killed or goes back.
"""

from typing import Any, Protocol, runtime_checkable

from bitrix_pull.connection.stores import ResumeStore
from bitrix_pull.events import PortalEvent, PullEvent
from bitrix_pull.hub.cluster import Lease


class LogWriter(Protocol):
    """Writes one portal's events, for as long as its lease lasts. One for each lease."""

    @property
    def resume(self) -> ResumeStore:
        """The portal's resume point, for its client.

        Its ``load`` raises the fence: from then on nothing is taken from the portal's owners before.
        """
        ...

    async def append(self, event: PullEvent[Any] | PortalEvent[Any]) -> None:
        """Write an event down; when it returns, the event is in the log, and is settled.

        Calls that have begun in some order are written in that order, so a portal's many may be
        under way at once. What is in the log already is not written again. It waits while the
        log cannot take anything, and is tried again for as long as the lease is valid.

        Raises:
            LeaseLost: The portal is another worker's, or the log has gone back behind what it
                had confirmed. The event is not settled: whoever has the portal next gets it again.
            InvalidArgument: The log will never take this one: it is too large.
        """
        ...


@runtime_checkable
class EventLog(Protocol):
    """A log of many portals' events. It may be opened by several tasks; it counts."""

    async def open(self) -> None:
        """Make ready.

        Raises:
            InvalidArgument: It cannot be used as it is.
            EngineUnavailable: It does not answer. Later it may.
        """
        ...

    def writer(self, lease: Lease) -> LogWriter:
        """Return what writes a portal's events under this lease. Nothing is sent by that."""
        ...

    async def close(self) -> None:
        """Let go of it. What is not written by then is not settled."""
        ...
