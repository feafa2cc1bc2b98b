"""A run: all that one use of a client is made of, from its first call or start to its close."""

import asyncio
import contextlib
import contextvars
import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from bitrix_pull.connection.channels import ChannelManager
from bitrix_pull.connection.checkpointer import Checkpointer, Start
from bitrix_pull.connection.intake import Intake
from bitrix_pull.connection.module_filter import VERSION_BY_USER, ModuleFilter
from bitrix_pull.connection.states import Lifecycle
from bitrix_pull.connection.stores import ResumeStore
from bitrix_pull.connection.supervisor import Supervisor
from bitrix_pull.connection.transports import Transports
from bitrix_pull.dispatch.tasks import TaskSet
from bitrix_pull.errors import NotRunning, PullError, StartTimeout
from bitrix_pull.events import Gap, HandlerFailed, State
from bitrix_pull.flag import Flag
from bitrix_pull.health import Health
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.auth import Mode
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.portal.public_channels import PublicChannels
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.portal_events.service import PortalEventService
from bitrix_pull.presence.lookup import PresenceLookup
from bitrix_pull.publish.publisher import Publisher, Publishing
from bitrix_pull.reception import Reception
from bitrix_pull.redaction import PORTAL
from bitrix_pull.shared import Shared

_AWAITED = {
    State.CONFIGURING: "the portal has not answered",
    State.CONNECTING: "the push server has not answered",
    State.PAUSED: "handlers are behind, and nothing is read",
}
_LIVE_STATES = {State.LIVE, State.RENEWING}
_DEAD_STATES = {State.IDLE, State.FAILED, State.CLOSING, State.CLOSED}


class Run:
    """One use of a client, in one event loop. It is started once at most, and closed once.

    Publishing and asking work without a start, so a run may pass without one.
    """

    def __init__(
        self,
        *,
        portal: str,
        rest: RestClient,
        mode: Mode,
        store: ResumeStore,
        keys: Callable[[PullConfig], Awaitable[Sequence[str]]],
        start: Start,
        options: PullOptions,
        lifecycle: Lifecycle,
        reception: Reception,
        shared: Shared | None = None,
    ) -> None:
        """Put the parts together; nothing is sent, and no event loop is needed yet.

        Args:
            portal: What the portal is called in log records.
            rest: Calls the portal. It outlives the run, which only closes its connections.
            mode: Whose channels.
            store: Where the resume point is written down.
            keys: Under which key, and after it those under which it may have been before.
            start: Where to begin.
            options: Timeouts, limits and policies.
            lifecycle: The client's state.
            reception: Takes events, and what happens.
            shared: What is shared with other clients.
        """
        self._portal = portal
        self._rest = rest
        self._options = options
        self._lifecycle = lifecycle
        self._reception = reception
        notices, inbox = reception.notices, reception.inbox
        self._portal_events = PortalEventService(
            reception.portal_feed,
            rest,
            mode,
            options,
            reception.stream,
            notices,
            lambda: lifecycle.state in _LIVE_STATES,
        )
        self._fetcher = fetcher = self._portal_events.fetcher
        self._channels = ChannelManager(
            fetcher, rest.http.clock, notices.post, configs=getattr(store, "configs", None)
        )
        self._checkpointer = Checkpointer(
            store,
            start,
            keys=keys,
            known_mids=options.known_mids,
            unsettled=lambda: {event.mid for event in inbox.unsettled},
            acknowledge=self._acknowledge,
        )
        inbox.settled = self._checkpointer.handled
        self._modules = ModuleFilter(
            reception.stream,
            options.ignore_modules,
            settled=self._checkpointer.handled,
            sent_by_user=lambda: mode == "application" and fetcher.version >= VERSION_BY_USER,
        )
        unwanted = reception.stream.unwanted
        self._intake = Intake(self._modules, notices.post, self._checkpointer.settled, unwanted)
        self._transports = Transports(rest.http, options, unwanted)
        self._supervisor = Supervisor(
            channels=self._channels,
            transports=self._transports,
            intake=self._intake,
            checkpointer=self._checkpointer,
            lifecycle=lifecycle,
            options=options,
            announce=notices.post,
            first_turn=None if shared is None else shared.first_turn,
        )
        public_channels = PublicChannels(rest, mode, config=self._channels.current, now=rest.http.clock.now)
        self.presence: PresenceLookup = PresenceLookup(
            self._supervisor, config=self._channels.current, public_channels=public_channels, rest=rest
        )
        self.publisher: Publishing = Publisher(
            rest=rest,
            mode=mode,
            config=self._channels.current,
            refuse_config=self._channels.refuse,
            public_channels=public_channels,
            require_connection=self._supervisor.require_connection,
            send=self._supervisor.send,
            call=self._supervisor.call,
            options=options,
        )
        self.companions: TaskSet = TaskSet()
        """Tasks of the user's contexts, such as a watch, which end with the run."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving: asyncio.Task[None] | None = None
        # None until the end has begun.
        self._drain_s: float | None = None
        self._draining: asyncio.Timeout | None = None
        self._closed = False
        self._opened = Flag()

    # -- life -----------------------------------------------------------------

    @property
    def over(self) -> bool:
        """True if it is of no use any more: closed, or its event loop is."""
        return self._closed or (self._loop is not None and self._loop.is_closed())

    @property
    def started(self) -> bool:
        """True once it was started."""
        return self._serving is not None

    @property
    def serving(self) -> bool:
        """True while it follows the stream."""
        return self._serving is not None and not self._serving.done()

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that it is used in; None before its first call, and once it is over."""
        return None if self.over else self._loop

    def join_loop(self) -> None:
        """Stay in the event loop of the first call.

        Raises:
            RuntimeError: This is another one.
        """
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise RuntimeError(
                "this client is in use in another event loop: close() it there, or create another one"
            )
        self._loop = loop

    def start(self) -> "asyncio.Task[None]":
        """Begin to follow the stream; the task ends with the error, if only a person can help."""
        self.join_loop()
        context = contextvars.copy_context()
        context.run(PORTAL.set, self._portal)
        self._reception.notices.begin()
        context.run(self._lifecycle.move, State.CONFIGURING)
        self._serving = asyncio.create_task(self._serve(), name="bitrix_pull client", context=context)
        # Whoever waits gets the error; without anybody it stands in health() and the log.
        self._serving.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._serving

    async def close(self, drain_s: float) -> None:
        """End everything; see ``PullClient.close``."""
        serving = self._serving
        if serving is not None and not serving.done():
            if self._reception.runs_current_task():
                drain_s = 0.0
            if self._drain_s is None:
                self._drain_s = drain_s
                serving.cancel()
            else:
                # Whoever is in more of a hurry decides.
                self._drain_s = min(self._drain_s, drain_s)
                if self._draining is not None and not self._draining.expired():
                    ends_at = asyncio.get_running_loop().time() + drain_s
                    self._draining.reschedule(min(ends_at, self._draining.when() or ends_at))
            await asyncio.wait({serving})
            if not self._opened.is_set():
                self._end()  # It was cancelled before its first step.
        await self.companions.close()
        await self._rest.close()
        self._closed = True

    async def _serve(self) -> None:
        """Everything between start and close."""
        try:
            await self._open()
            await self._follow()
        finally:
            self._end()

    async def _open(self) -> None:
        try:
            await self._checkpointer.open()
        except PullError as error:
            self._lifecycle.move(State.FAILED, error=error)
            raise
        self._opened.set()

    async def _follow(self) -> None:
        """Follow the stream, and then finish what was begun."""
        saving = asyncio.create_task(self._checkpointer.run(), name="bitrix_pull checkpointer")
        handling = asyncio.create_task(self._reception.run(), name="bitrix_pull reception")
        try:
            self._portal_events.begin()
            await self._supervisor.run()
        finally:
            if self._drain_s is None:
                # It ends by itself now: to cancel it again would only cut this short.
                self._drain_s = 0.0
            self._portal_events.stop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._drain_s) as self._draining:
                    await self._reception.idle()
            self._draining = None
            self._reception.finish(self._lifecycle.failure)
            await self.companions.close()
            handling.cancel()
            self._checkpointer.stop()
            await self._portal_events.end()
            await asyncio.wait({handling, saving})
            # What is told to the portal now need not be handled again.
            await self._portal_events.finish(max(self._options.close_timeout_s, self._drain_s))
            await self._checkpointer.close()
            await self._rest.close()

    def _end(self) -> None:
        """Let nobody wait any longer, however far it has come."""
        self._opened.set()
        self._reception.finish(self._lifecycle.failure)
        # FAILED stays to be seen.
        if self._lifecycle.state is not State.FAILED:
            self._lifecycle.close()
        self._reception.notices.end()

    async def opened(self) -> None:
        """Wait until it has what it needs of this machine.

        Raises:
            PullError: The resume store cannot be used.
        """
        await self._opened.wait()
        assert self._serving is not None
        if self._serving.done() and not self._serving.cancelled():
            self._serving.result()

    async def _acknowledge(self, mids: Sequence[str]) -> None:
        await self._supervisor.acknowledge(mids)

    # -- state ----------------------------------------------------------------

    async def wait_live(self, timeout_s: float | None) -> None:
        """Wait until it is live; see ``PullClient.wait_live``."""
        lifecycle = self._lifecycle
        loop = asyncio.get_running_loop()
        deadline = math.inf if timeout_s is None else loop.time() + timeout_s
        reason: Exception | None = None
        try:
            async with asyncio.timeout(timeout_s):
                while lifecycle.state not in _LIVE_STATES:
                    change = lifecycle.last_change
                    reason = change.error or reason if change is not None else reason
                    if lifecycle.state is State.FAILED and reason is not None:
                        raise reason
                    if lifecycle.state in (State.CLOSING, State.CLOSED):
                        raise NotRunning("the client was closed before it was live")
                    retry_in_s = (change.retry_in_s if change is not None else None) or 0.0
                    if loop.time() + retry_in_s > deadline:
                        raise TimeoutError  # Waiting for an attempt that comes too late helps nobody.
                    await lifecycle.changed()
        except TimeoutError:
            told = str(reason) if reason is not None else _AWAITED.get(lifecycle.state, lifecycle.state)
            raise StartTimeout(f"not live within {timeout_s:g} s: {told}") from reason

    def health(self) -> Health:
        """Return how it is doing."""
        state = self._lifecycle.state
        error = self._lifecycle.trouble or self._channels.trouble
        # It may be asked from another thread, and when the loop is over.
        now = 0.0 if self._loop is None else self._loop.time()
        heard_at = self._supervisor.heard_at
        dispatchers = (self._reception.stream, self._reception.portal_feed.dispatcher)
        waiting = [oldest for each in dispatchers if (oldest := each.oldest(now)) is not None]
        oldest = max(waiting, key=lambda each: each.age_s, default=None)
        return Health(
            portal=self._portal,
            state=state,
            since=datetime.fromtimestamp(self._lifecycle.since_unix, UTC),
            transport=self._transports.current or "",
            server_version=self._fetcher.version,
            live=state in _LIVE_STATES,
            ready=state in _LIVE_STATES and not self._reception.inbox.full,
            alive=state not in _DEAD_STATES,
            silent_for_s=None if heard_at is None else max(now - heard_at, 0.0),
            next_attempt_in_s=self._supervisor.next_attempt_in_s,
            channels_end_at=self._channels.end_at,
            last_error=str(error) if error is not None else "",
            last_error_at=_moment(self._lifecycle.trouble_unix),
            connects=self._supervisor.connects,
            received=self._intake.received - self._modules.ignored,
            last_event_at=_moment(self._intake.received_unix),
            healed=self._intake.healed,
            gaps=self._reception.notices.count(Gap),
            duplicates=self._intake.duplicates,
            malformed=self._intake.malformed,
            ignored=self._modules.ignored,
            dropped=self._reception.inbox.dropped,
            waiting=len(self._reception.inbox),
            waiting_bytes=self._reception.inbox.size,
            lag_s=0.0 if oldest is None else oldest.age_s,
            oldest=oldest,
            handler_failures=self._reception.notices.count(HandlerFailed),
            unrouted=self._reception.stream.unrouted,
            store=self._checkpointer.health,
        )


def _moment(unix: float | None) -> datetime | None:
    return None if unix is None else datetime.fromtimestamp(unix, UTC)


class Block:
    """The body of an ``async with`` over a client: cancelled, should the client fail for good meanwhile."""

    def __init__(self, serving: "asyncio.Task[None]") -> None:
        """Watch over what the current task does next."""
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._serving = serving
        self._failure: BaseException | None = None
        serving.add_done_callback(self._interrupt)

    def _interrupt(self, serving: "asyncio.Task[None]") -> None:
        if not serving.cancelled() and (failure := serving.exception()) is not None:
            self._failure = failure
            self._task.cancel()

    def leave(self, error: BaseException | None) -> BaseException | None:
        """End the watch; return what is to be raised in the place of what the body came out with."""
        self._serving.remove_done_callback(self._interrupt)
        if self._failure is None:
            return None
        others = self._task.uncancel() > self._cancelling
        if error is None or (isinstance(error, asyncio.CancelledError) and not others):
            return self._failure
        return None
