"""``Hub``: the same handlers for any number of portals."""

import asyncio
import contextlib
import os
import socket
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Final

from bitrix_pull.client import PullClient
from bitrix_pull.connection.pace import Pace
from bitrix_pull.connection.stores import MemoryStore, ResumeStore, as_store
from bitrix_pull.dispatch.binding import check
from bitrix_pull.dispatch.dependencies import Supply, checked_context
from bitrix_pull.dispatch.notices import Listeners
from bitrix_pull.dispatch.patterns import PortalPattern
from bitrix_pull.dispatch.router import Router
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.failures import one_failure
from bitrix_pull.hub.cluster import Cluster, Membership, SingleWorker
from bitrix_pull.hub.fences import FencedStore
from bitrix_pull.hub.health import HubHealth, PortalStatus
from bitrix_pull.hub.log import EventLog
from bitrix_pull.hub.notices import HubNotice
from bitrix_pull.hub.portals import (
    Portal,
    PortalBook,
    PortalList,
    PortalSource,
)
from bitrix_pull.hub.roster import Roster
from bitrix_pull.hub.service import Fittings, Follower
from bitrix_pull.hub.services import PortalServices
from bitrix_pull.hub.sqlite import SqlitePortals
from bitrix_pull.options import PullOptions, check_number
from bitrix_pull.portal.auth import AccessToken
from bitrix_pull.redaction import get_logger
from bitrix_pull.shared import Shared

logger: Final = get_logger("hub")

STARTS_PER_S: Final = 60.0
RETRY_FAILED_S: Final = 600.0
INBOX_MAX_BYTES: Final = 64 * 1024 * 1024
REPORT_EVERY_S: Final = 5.0
WANT_EVERY_S: Final = 0.05
"""How often the cluster is told of changed portals at most: it is told of all of them each time."""


class Hub(Router):
    """Serves many portals in one process; with a cluster, in any number of processes, on any machines.

    It is a router, as a client is: register handlers with ``on`` and ``on_portal_event``, take
    in routers with ``include``. Each portal has a client of its own, which is ``event.client``,
    and ``event.portal`` is the portal's key; all share one HTTP session and the handlers.
    What ``on`` says of a handler's order and concurrency holds for each portal.

    No portal can hold up the others: each has its own inbox and its own turns on the event
    loop; what all of them hold is bounded, and when that is full, only those wait that hold
    more than their share. A portal that fails for good is reported, and tried again slowly.

    Example:
        hub = Hub(SqlitePortals("portals.db"))

        @hub.on_portal_event("ONCRMDEALUPDATE")
        async def deal(event: PortalEvent) -> None:
            print(event.portal, await event.client.call("crm.deal.get", {"id": event.id}))

        bitrix_pull.run(hub)
    """

    def __init__(
        self,
        portals: PortalSource | Iterable[Portal] = (),
        *,
        cluster: Cluster | None = None,
        stream: EventLog | None = None,
        log_portal_events: Iterable[str] = (),
        resume: str | os.PathLike[str] | ResumeStore | None = None,
        options: PullOptions | None = None,
        context: Mapping[str, Any] | None = None,
        worker: str | None = None,
        starts_per_s: float = STARTS_PER_S,
        retry_failed_s: float = RETRY_FAILED_S,
        inbox_max_bytes: int = INBOX_MAX_BYTES,
    ) -> None:
        """Create a hub; nothing is sent yet.

        Args:
            portals: ``SqlitePortals("portals.db")``, another source, or the portals themselves.
            cluster: Shares the portals out among several workers; None: this one has all.
            stream: A log that every event of the stream is written to, beside handlers. It keeps
                the resume points then.
            log_portal_events: The names of the portals' own events that go to the log as well.
            resume: Where resume points are kept; None: in the log if there is one, or where the
                source keeps them, or else in memory. With a cluster and no log it should be one that
                the workers share and that knows of leases, as ``ValkeyResumeStore`` does.
            options: For portals that have none of their own.
            context: What handlers may ask for by the names of their arguments.
            worker: A name that stays the same from one start to the next; None: host and process.
            starts_per_s: How many portals are started in a second, and how many of them connect to
                one push server.
            retry_failed_s: Seconds until a portal is tried again that failed for good; up to half
                of it is added at random.
            inbox_max_bytes: What the events of all portals may take that are not handled yet.
                Twice of it, at worst.

        Raises:
            InvalidArgument: An argument cannot work; the text says why.
        """
        super().__init__()
        if isinstance(portals, Portal):
            raise InvalidArgument("a hub takes several portals: Hub([portal]) for one")
        if options is not None and not isinstance(options, PullOptions):
            raise InvalidArgument(f"options must be PullOptions, not {type(options).__name__}")
        if isinstance(cluster, str) or not isinstance(cluster, Cluster | None):
            raise InvalidArgument(
                f"cluster must be a ValkeyCluster or the like, not {type(cluster).__name__}"
            )
        if not isinstance(stream, EventLog | None):
            raise InvalidArgument(f"stream must be such as ValkeyStream, not {type(stream).__name__}")
        if stream is not None and resume is not None:
            raise InvalidArgument("resume= does not go with stream=: the log keeps the resume points")
        names = tuple(log_portal_events)
        if names and stream is None:
            raise InvalidArgument("log_portal_events takes a log to write them to: stream=")
        check_number("starts_per_s", starts_per_s)
        check_number("retry_failed_s", retry_failed_s)
        check_number("inbox_max_bytes", inbox_max_bytes, whole=True)
        self.source: PortalSource = portals if isinstance(portals, PortalSource) else PortalList(portals)
        """Where it is told of its portals."""
        self.context: dict[str, Any] = checked_context(context)
        """What handlers may ask for by name. What stands here when a portal starts counts."""
        self.worker: str = worker or f"{socket.gethostname()}:{os.getpid()}"
        """What this worker is called."""
        self._cluster = cluster
        self._log = stream
        self._options = options or PullOptions()
        self._notices = Listeners[HubNotice]()
        kept = getattr(self.source, "resume", None)
        self._fittings = Fittings(
            shared=Shared(
                inbox_max_bytes=inbox_max_bytes, starts_per_s=starts_per_s, announce=self._notices.tell
            ),
            handlers=self._registry,
            options=self._options,
            context=self.context,
            resume=as_store(resume) if resume is not None else (kept or MemoryStore()),
            pace=Pace(starts_per_s),
            retry_failed_s=retry_failed_s,
            announce=self._notices.tell,
            log_portal_events=tuple(sorted(PortalPattern.of(names).events)) if names else (),
            fenced=cluster is not None,
        )
        self._roster = Roster(self.source)
        self._services = PortalServices(self._roster, self._fittings, stream)
        self._membership: Membership | None = None
        self._serving: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()

    # -- life -----------------------------------------------------------------

    async def run(self) -> None:
        """Serve until cancelled or closed, through every outage.

        Raises:
            PullError: The portals cannot be read at the start, or the cluster or log not be used;
                or a handler asks for what nothing provides, as with a client's start.
            RuntimeError: The hub is running already.
        """
        serving = self._start()
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            if not serving.cancelled():
                await self.close(drain=0)
                raise

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncGenerator["Hub"]:
        """Serve in the background of a block, and close at its end. For the life of a web service.

        It does not wait for any portal.

        Raises:
            PullError: Before the block: as ``run`` does.
            RuntimeError: The hub is running already.
        """
        serving = self._start()
        opened = asyncio.ensure_future(self._opened.wait())
        try:
            await asyncio.wait({serving, opened}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
            yield self
        finally:
            opened.cancel()
            await self.close()

    async def close(self, drain: float | None = None) -> None:
        """Stop serving all portals. May be called at any time, and again.

        With a cluster each portal is handed over when it is drained. Not for handlers, as it
        waits for them: they may create a task of it.

        Args:
            drain: Seconds for handlers to finish what was already received; None:
                ``options.close_drain_s``.
        """
        self._services.drain_s = self._options.close_drain_s if drain is None else drain
        serving = self._serving
        if serving is not None and not serving.done():
            if self._membership is not None:
                self._membership.leave()
                if drain is not None:
                    await self._services.stop_all(drain)
            else:
                serving.cancel()
            await asyncio.wait({serving})
        self._notices.end()

    async def wait_closed(self) -> None:
        """Wait until it serves no more: it was closed, or drained by order of somebody who runs the cluster.

        Raises:
            PullError: It has failed for good.
        """
        serving = self._serving
        if serving is not None:
            await asyncio.wait({serving})
            if not serving.cancelled():
                serving.result()

    def _start(self) -> "asyncio.Task[None]":
        if self._serving is not None and not self._serving.done():
            raise RuntimeError("this hub is running already")
        self._check_handlers()
        self._opened.clear()
        self._services.drain_s = self._options.close_drain_s
        self._serving = asyncio.create_task(self._serve(), name="bitrix_pull hub")
        # Whoever waits gets the error; without anybody it is in the log.
        self._serving.add_done_callback(_tell_failure)
        return self._serving

    def _check_handlers(self) -> None:
        """Find at once what each portal's client would find by itself, and again with each retry.

        Raises:
            InvalidArgument: A handler asks for what nothing provides.
        """
        # It stands for the clients to come, and is never started.
        any_client = PullClient(AccessToken("portal.invalid", "none"))
        check(self._registry, Supply(checked_context(self.context), {PullClient: any_client}))

    async def _serve(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            # Also where this worker has no portal yet.
            self._registry.watch(self._check_handlers)
            stack.callback(self._registry.unwatch, self._check_handlers)
            stack.push_async_callback(self._fittings.shared.close)
            await self.source.open()
            stack.push_async_callback(self.source.close)
            if self._log is not None:
                await self._log.open()
                stack.push_async_callback(self._log.close)
            else:
                if self._cluster is not None and not isinstance(self._fittings.resume, FencedStore):
                    logger.warning(
                        "resume points are kept in a %s, which knows of no leases: a worker that takes a "
                        "portal over may not know how far the one before was (pass ValkeyResumeStore)",
                        type(self._fittings.resume).__name__,
                    )
                # It stays open from one portal's client to the next one's.
                await self._fittings.resume.open()
                stack.push_async_callback(self._fittings.resume.close)
            await self._roster.read()
            cluster = self._cluster or SingleWorker()
            membership = await stack.enter_async_context(cluster.join(self.worker))
            stack.callback(self._forget_membership)
            self._membership = membership
            self._opened.set()
            await self._until_left(membership)

    async def _until_left(self, membership: Membership) -> None:
        try:
            with one_failure():
                async with asyncio.TaskGroup() as tasks:
                    helpers = [
                        tasks.create_task(
                            self._roster.follow(self._services.renew), name="bitrix_pull hub portals"
                        ),
                        tasks.create_task(self._want(membership), name="bitrix_pull hub wants"),
                        tasks.create_task(self._report(membership), name="bitrix_pull hub report"),
                        tasks.create_task(self._fittings.unsaved.run(), name="bitrix_pull hub tokens"),
                    ]
                    await self._services.follow(membership, tasks)
                    for helper in helpers:
                        helper.cancel()
        finally:
            await self._services.give_up()

    async def _want(self, membership: Membership) -> None:
        """Say which portals there are, and again when that has changed: once for a burst of changes."""
        changed = self._roster.changed
        while True:
            changed.clear()
            membership.want(self._roster.wanted)
            await asyncio.sleep(WANT_EVERY_S)
            await changed.wait()

    def _forget_membership(self) -> None:
        self._membership = None

    # -- what users do with it ----------------------------------------------------

    async def add(self, portal: Portal) -> None:
        """Serve one more portal, or one with other credentials or options; also while it runs.

        What this and its like change is done a moment later. The source keeps the portal, and
        its OAuth tokens where it keeps tokens.

        Raises:
            InvalidArgument: The source cannot keep it.
        """
        if not isinstance(portal, Portal):
            raise InvalidArgument(f"a hub takes Portal(key, credentials), not {type(portal).__name__}")
        await self._book.put(portal)

    async def remove(self, key: str) -> None:
        """Serve a portal no more, and forget it and its tokens.

        Raises:
            InvalidArgument: There is none of this key, or the source cannot be written.
        """
        await self._book.remove(key)

    async def pause(self, key: str) -> None:
        """Stop serving a portal until ``resume``. Its events wait at the server, for a day.

        Raises:
            InvalidArgument: See ``remove``.
        """
        await self._book.pause(key, True)

    async def resume(self, key: str) -> None:
        """Serve a portal again that was paused; try one again now that has failed.

        Raises:
            InvalidArgument: See ``remove``.
        """
        await self._book.pause(key, False)
        self._services.retry(key)

    @property
    def _book(self) -> PortalBook:
        if not isinstance(self.source, PortalBook):
            raise InvalidArgument(
                f"a {type(self.source).__name__} only tells of portals",
                advice="Change them where it has them from, or give it put, remove and pause.",
            )
        return self.source

    def client(self, key: str) -> PullClient:
        """Return the client of a portal that this worker serves: to publish, to call, to iterate.

        Its iterators hand nothing on once another worker may have the portal, and then end.

        Raises:
            InvalidArgument: There is no portal of this key.
            NotRunning: This worker does not serve it.
        """
        return self._services.client(key)

    def list(self) -> tuple[PortalStatus, ...]:
        """Return how each portal is doing."""
        return self._services.statuses()

    def health(self) -> HubHealth:
        """Return how the hub is doing."""
        services, statuses = self._services, self._services.statuses()
        states = Counter[str](status.state for status in statuses)
        return HubHealth(
            worker=self.worker,
            portals=len(statuses),
            served=len(services.clients),
            live=states["live"],
            states=dict(states),
            failed={status.key: status.last_error for status in statuses if status.state == "failed"},
            waiting_bytes=self._fittings.shared.storage.used,
            alive=self._serving is not None and not self._serving.done(),
            workers=None if self._membership is None else self._membership.workers,
            leases=services.leases,
            gained=services.gained,
            ended=dict(services.ended),
        )

    def notices(self) -> AsyncIterator[HubNotice]:
        """Return an iterator over what happens to all portals: their clients' notices, and the hub's own.

        It ends when the hub is closed. A consumer that falls 1,000 notices behind loses the oldest.
        """
        return self._notices.listen()

    async def _report(self, membership: Membership) -> None:
        """Tell others how this worker is doing, now and then."""
        book = self.source if isinstance(self.source, SqlitePortals) else None
        streams = list(getattr(self._log, "streams", ()))
        process = {"host": socket.gethostname(), "pid": os.getpid(), "streams": streams}
        try:
            while True:
                health = {**process, **self.health().as_json()}
                membership.report(health)
                if book is not None:
                    with contextlib.suppress(InvalidArgument):
                        await book.report(self.worker, health)
                await asyncio.sleep(REPORT_EVERY_S)
        finally:
            if book is not None:
                with contextlib.suppress(InvalidArgument):
                    await book.withdraw(self.worker)

    def __repr__(self) -> str:
        portals, served = len(self._roster.portals), len(self._services.clients)
        return f"Hub({self.worker}, portals={portals}, served={served})"


def follow_clients(
    hub: Hub, begun: Callable[[PullClient], None], ended: Callable[[PullClient], None]
) -> None:
    """Be told of each client of a hub, of those that serve already too.

    Args:
        hub: The hub.
        begun: Called before it begins to serve.
        ended: Called once it serves no more.
    """
    # It is this module's own.
    hub._fittings.followers.append(Follower(begun, ended))  # pyright: ignore[reportPrivateUsage]
    for client in hub._services.clients:  # pyright: ignore[reportPrivateUsage]
        begun(client)


def loop_of_hub(hub: Hub) -> asyncio.AbstractEventLoop | None:
    """Return the event loop that a hub runs in, or None."""
    serving = hub._serving  # pyright: ignore[reportPrivateUsage]  # It is this module's own.
    return None if serving is None or serving.done() else serving.get_loop()


def _tell_failure(serving: "asyncio.Task[None]") -> None:
    if not serving.cancelled() and (error := serving.exception()) is not None:
        logger.error("the hub has ended: %s", error)
