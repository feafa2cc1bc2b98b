"""One portal on this worker: its client, from the lease to the release."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from bitrix_pull.client import PullClient, runs_of
from bitrix_pull.connection.pace import Pace
from bitrix_pull.connection.stores import ResumeStore
from bitrix_pull.dispatch.registry import CallNext, Context, Registry
from bitrix_pull.dispatch.router import registry_of
from bitrix_pull.errors import GrantRefused, LeaseLost, NotRunning, PortalDeleted
from bitrix_pull.events import Event, PortalEvent, PullEvent, State
from bitrix_pull.flag import Flag
from bitrix_pull.hub.cluster import Lease
from bitrix_pull.hub.fences import under_lease
from bitrix_pull.hub.health import PortalStatus
from bitrix_pull.hub.log import LogWriter, Requests, TakesRequests
from bitrix_pull.hub.notices import HubNotice, PortalFailed, PortalUninstalled
from bitrix_pull.hub.portals import Portal
from bitrix_pull.hub.unsaved_tokens import UnsavedTokens
from bitrix_pull.options import PullOptions
from bitrix_pull.publish.message import Message
from bitrix_pull.publish.publisher import Route
from bitrix_pull.publish.receipt import Receipt
from bitrix_pull.redaction import get_logger, naming
from bitrix_pull.shared import Shared

logger: Final = get_logger("hub")

GONE_AFTER: Final = 3
"""Attempts in a row in which a portal says that it is deleted, until that is believed."""

UNINSTALLED: Final = "ONAPPUNINSTALL"

_JITTER: Final = 0.5
"""Largest part of the delay of a retry that is added at random."""

_APPENDS_AT_ONCE: Final = 100
"""Events of a portal that may be on their way to the log."""


@dataclass(slots=True)
class Fittings:
    """What a hub gives to each of its portals' clients.

    Attributes:
        shared: What they have together.
        handlers: The hub's handlers.
        options: Options of portals that have none of their own.
        context: What handlers may ask for by name.
        resume: Where resume points are kept.
        pace: Spreads their starts.
        retry_failed_s: See ``Hub``.
        announce: Takes the hub's own notices.
        log_portal_events: See ``Hub``.
        fenced: True if other workers may have a portal.
        followers: Are told of each client when it begins to serve, and when it serves no more.
        unsaved: Takes over tokens that a client could not store.
    """

    shared: Shared
    handlers: Registry
    options: PullOptions
    context: dict[str, Any]
    resume: ResumeStore
    pace: Pace
    retry_failed_s: float
    announce: Callable[[HubNotice], None]
    log_portal_events: tuple[str, ...] = ()
    fenced: bool = False
    followers: list["Follower"] = field(default_factory=list["Follower"])
    unsaved: UnsavedTokens = field(default_factory=UnsavedTokens)


@dataclass(slots=True, frozen=True)
class Follower:
    """Who is told of each client of a hub.

    Attributes:
        begun: Called before it begins to serve.
        ended: Called once it serves no more.
    """

    begun: Callable[[PullClient], None]
    ended: Callable[[PullClient], None]


class PortalService:
    """Serves one portal for as long as this worker has its lease.

    A client that fails for good is started again slowly. Nothing that happens here reaches
    the other portals.

    Attributes:
        portal: What is served.
        lease: The right to.
        client: The portal's client.
    """

    def __init__(self, portal: Portal, lease: Lease, fittings: Fittings, writer: LogWriter | None) -> None:
        """Make the client; ``start`` begins.

        Args:
            portal: What is served.
            lease: The right to.
            fittings: What the hub gives to it.
            writer: Writes its events down; None: there is no log.

        Raises:
            InvalidArgument: The portal's credentials or options cannot work.
        """
        self.portal = portal
        self.lease = lease
        self._fittings = fittings
        self.client: PullClient = PullClient(
            portal.credentials,
            mode=portal.mode,
            resume=under_lease(lease, portal, fittings.resume, writer),
            options=portal.options or fittings.options,
            name=portal.key,
            context=fittings.context,
            shared=fittings.shared,
        )
        if fittings.fenced:
            self.client.middleware(self._fence)
            runs_of(self.client).reception.bar_iterators(self._has_lost)
        if writer is not None:
            self._log_by(writer)
        if any(UNINSTALLED in getattr(each.pattern, "events", ()) for each in fittings.handlers.handlers()):
            self.client.on_portal_event(UNINSTALLED)(self._uninstalled)
        self._requests: Requests | None = (
            writer.requests(self._publish) if isinstance(writer, TakesRequests) else None
        )
        self._publishing: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._attempts = 0
        self._error: Exception | None = None
        self._retry_at: float | None = None
        self._stopping = False
        self._again = Flag()

    # -- life -----------------------------------------------------------------

    def start(self) -> None:
        """Begin to serve."""
        self._fittings.shared.storage.inboxes += 2
        for follower in self._fittings.followers:
            follower.begun(self.client)
        registry_of(self.client).include(self._fittings.handlers)
        self._task = asyncio.create_task(self._run(), name="bitrix_pull hub portal")
        if self._requests is not None:
            self._publishing = asyncio.create_task(self._requests.run(), name="bitrix_pull hub requests")

    async def stop(self, drain_s: float) -> None:
        """Stop serving; may be called again, and whoever is in more of a hurry decides.

        Args:
            drain_s: Seconds for handlers to finish what was already received.
        """
        self._stopping = True
        task = self._task
        if task is None:
            return
        if self._requests is not None and self._publishing is not None:
            # While there is a client to publish with.
            loop = asyncio.get_running_loop()
            began = loop.time()
            self._requests.stop()
            await asyncio.wait({self._publishing}, timeout=drain_s)
            self._publishing.cancel()
            await asyncio.wait({self._publishing})
            drain_s = max(drain_s - (loop.time() - began), 0.0)
        await self.client.close(drain_s)
        task.cancel()
        await asyncio.wait({task})
        if self._task is task:
            self._task = None
            self._fittings.unsaved.take(self.portal)
            registry_of(self.client).exclude(self._fittings.handlers)
            self._fittings.shared.storage.inboxes -= 2
            for follower in self._fittings.followers:
                follower.ended(self.client)

    async def _run(self) -> None:
        while not self._stopping:
            try:
                await self.client.run()
            except Exception as error:
                self._error = error
            else:
                if self._stopping:
                    return
                self._error = NotRunning(
                    "the client was closed, and not by its hub", advice="Use hub.pause(key) to stop a portal."
                )
            # Once it was connected, this is a failure of its own.
            self._attempts = 1 if self.client.health().connects else self._attempts + 1
            await self._wait_for_retry(self._error)
            await self._fittings.pace.turn()

    async def _wait_for_retry(self, error: Exception) -> None:
        retry_in_s = self._fittings.retry_failed_s * random.uniform(1, 1 + _JITTER)
        loop = asyncio.get_running_loop()
        self._retry_at = loop.time() + retry_in_s
        with naming(self.portal.key):
            logger.warning("tried again in %.0f s (attempts in a row: %d)", retry_in_s, self._attempts)
        self._fittings.announce(PortalFailed(self.portal.key, error, self._attempts, retry_in_s))
        gone = isinstance(error, GrantRefused) or (
            isinstance(error, PortalDeleted) and self._attempts >= GONE_AFTER
        )
        if gone:
            self._fittings.announce(PortalUninstalled(self.portal.key, error))
        self._again.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(retry_in_s):
                await self._again.wait()
        self._retry_at = None

    def retry(self) -> None:
        """Try again now what has failed."""
        self._again.set()

    async def _uninstalled(self, event: PortalEvent[Any]) -> None:
        self._fittings.announce(PortalUninstalled(self.portal.key))

    # -- what others ask for --------------------------------------------------

    async def _publish(self, message: Message, route: Route, timeout_s: float) -> Receipt:
        return await self.client.publish_many([message], route=route, timeout=timeout_s)

    # -- what happens to events -----------------------------------------------

    async def _fence(self, event: Event, call_next: CallNext, context: Context) -> object:
        """Hand nothing on once another worker may have the portal; nor settle it."""
        if self._has_lost():
            await self._give_way()
        return await call_next(event)

    def _has_lost(self) -> bool:
        """Tell whether another worker may have the portal."""
        if self.lease.valid():
            return False
        self.lease.end()
        return True

    async def _give_way(self) -> None:
        """Wait to be stopped: the event that is in hand is then not settled."""
        self.lease.end("fenced")
        await asyncio.Event().wait()

    def _log_by(self, writer: LogWriter) -> None:
        async def log(event: PullEvent[Any] | PortalEvent[Any]) -> None:
            try:
                await writer.append(event)
            except LeaseLost:
                await self._give_way()

        self.client.on(concurrency=_APPENDS_AT_ONCE)(log)
        if names := self._fittings.log_portal_events:
            self.client.on_portal_event(*names, concurrency=_APPENDS_AT_ONCE)(log)

    # -- state ----------------------------------------------------------------

    def status(self) -> PortalStatus:
        """Return how it is doing."""
        key, epoch = self.portal.key, self.lease.epoch
        if self._stopping:
            return PortalStatus(key, "stopping", epoch)
        if self._retry_at is not None:
            retry_in_s = max(self._retry_at - asyncio.get_running_loop().time(), 0.0)
            return PortalStatus(key, "failed", epoch, str(self._error), self._attempts, retry_in_s)
        match self.client.state:
            case State.LIVE | State.PAUSED | State.RENEWING:
                return PortalStatus(key, "live", epoch)
            case State.BACKOFF:
                return PortalStatus(key, "disconnected", epoch, self.client.health().last_error)
            case _:
                return PortalStatus(key, "starting", epoch)
