"""Where a hub writes events down for other services. No engine is known here.

The log keeps the resume points too: that an event is in it and that it need not come again is
written in one step, so neither can be true without the other, whatever is killed or goes back.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, runtime_checkable

from bitrix_pull.connection.stores import ResumeStore
from bitrix_pull.events import PortalEvent, PullEvent
from bitrix_pull.hub.cluster import Lease
from bitrix_pull.publish.message import Message
from bitrix_pull.publish.publisher import Route
from bitrix_pull.publish.receipt import Receipt

Publish = Callable[[Message, Route, float], Awaitable[Receipt]]
"""Publishes a message at one portal, by a route, within some seconds; see ``PullClient.publish_many``."""


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


class Requests(Protocol):
    """Publishes what other services ask to be published at one portal, under its lease."""

    async def run(self) -> None:
        """Take one request after the other, publish and answer it, until stopped or the lease has ended.

        To be cancelled in mid-work leaves what becomes of that one unknown.
        """
        ...

    def stop(self) -> None:
        """Take nothing more: ``run`` ends when what is begun is answered."""
        ...


@runtime_checkable
class TakesRequests(Protocol):
    """A ``LogWriter`` by which other services can ask to publish, too."""

    def requests(self, publish: Publish) -> Requests:
        """Return what does so. One at a time for each lease; nothing is sent by that."""
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
