"""The portal's own events during one run of a client: bound, listened for, taken, handled."""

import asyncio
import contextvars
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from typing import Any, Final

from bitrix_pull.dispatch.dispatcher import Dispatcher
from bitrix_pull.dispatch.notices import NoticeBoard
from bitrix_pull.dispatch.patterns import StreamPattern
from bitrix_pull.dispatch.subscription import Subscription
from bitrix_pull.events import Gap, PullEvent, State, StateChanged
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.auth import Mode
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.portal_events import roll_call
from bitrix_pull.portal_events.binding import BindingFetcher, Bindings
from bitrix_pull.portal_events.drain import Drain
from bitrix_pull.portal_events.feed import Feed
from bitrix_pull.portal_events.queue import OfflineQueue
from bitrix_pull.portal_events.roll_call import RollCall
from bitrix_pull.redaction import get_logger

logger: Final = get_logger("portal_events")

AFTER_FAULT_S = 5.0
"""How long to wait after a fault of our own."""

MODULE = "rest"
COMMAND = "event_offline"
"""What the portal says on the application's shared channel when it has queued something."""


class PortalEventService:
    """Takes a feed's events out of the portal's queue, as long as anybody wants some."""

    def __init__(
        self,
        feed: Feed,
        rest: RestClient,
        mode: Mode,
        options: PullOptions,
        stream: Dispatcher[PullEvent[Any]],
        notices: NoticeBoard,
        is_live: Callable[[], bool],
    ) -> None:
        """Put the parts together; nothing is sent yet.

        Args:
            feed: Who wants what.
            rest: Calls the portal.
            mode: Whose channels the client follows: only applications have a queue.
            options: The connector and the interval.
            stream: Where announcements come from.
            notices: Where it is told how the connection fares.
            is_live: Tells how it is at present.
        """
        bindings = Bindings(rest, mode, options.connector)
        self.fetcher: BindingFetcher = BindingFetcher(rest, mode, bindings, feed.wanted)
        """Fetches the configuration once everything is bound."""
        self._bindings = bindings
        self._feed = feed
        self._stream = stream
        self._notices = notices
        self._is_live = is_live
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        # Made when somebody wants something: most clients of many never do.
        self._drain: Drain | None = None
        self._make_drain = partial(
            Drain,
            OfflineQueue(rest, options.connector),
            bindings,
            feed.dispatcher,
            lambda held: RollCall(rest, held),
            connector=options.connector,
            wanted=feed.wanted,
            interval_s=options.portal_events_interval_s,
            # A look and what follows from it are two calls, and half of what is allowed is for others.
            steady_s=4 / rest.calls_per_s if rest.calls_per_s is not None else 0.0,
        )

    def begin(self) -> None:
        """Serve until ``end``."""
        context = contextvars.copy_context()

        def begin() -> None:
            # Whoever registers the first handler may be anybody.
            self._task = asyncio.create_task(
                self._run(), name="bitrix_pull portal events service", context=context
            )

        self._feed.bindings = self._bindings
        self._feed.when_wanted(begin)

    async def end(self) -> None:
        """Serve no more."""
        self._feed.when_wanted(None)
        self._feed.bindings = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        drain = self._drain = self._make_drain()
        while not self._stopping:
            try:
                await self._serve(drain)
            except* Exception as errors:
                # Ours to mend; but nobody shall be deaf because of it.
                if not self._stopping:
                    logger.critical("the portal's events are taken anew", exc_info=errors)
                    await asyncio.sleep(AFTER_FAULT_S)

    async def _serve(self, drain: Drain) -> None:
        self._feed.drain = drain
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(
                    self._hear_announcements(drain), name="bitrix_pull portal events announcements"
                )
                tasks.create_task(self._hear_others(drain), name="bitrix_pull portal events roll call")
                tasks.create_task(self._follow_state(drain), name="bitrix_pull portal events state")
                # A look makes no sense before the portal has bound what is wanted.
                await self.fetcher.fetched.wait()
                tasks.create_task(drain.run(), name="bitrix_pull portal events")
        finally:
            self._feed.drain = None

    def stop(self) -> None:
        """Take no more; what is with handlers goes on."""
        self._stopping = True
        if self._drain is not None:
            self._drain.stop()

    async def finish(self, timeout_s: float) -> None:
        """Tell the portal what became of the events, as far as that succeeds in time."""
        if self._drain is not None:
            await self._drain.finish(timeout_s)

    async def _hear_announcements(self, drain: Drain) -> None:
        async with Subscription(self._stream, StreamPattern.of((COMMAND,), MODULE, None)) as events:
            async for event in events:
                drain.announced(event)

    async def _hear_others(self, drain: Drain) -> None:
        pattern = StreamPattern.of((roll_call.COMMAND,), roll_call.MODULE, None)
        async with Subscription(self._stream, pattern) as events:
            async for event in events:
                await drain.hear(event)

    async def _follow_state(self, drain: Drain) -> None:
        if self._is_live():
            drain.live()
        async with aclosing(self._notices.listen()) as notices:
            async for notice in notices:
                match notice:
                    case StateChanged(
                        state=State.LIVE, previous=State.CONNECTING | State.CATCHING_UP | State.PAUSED
                    ):
                        drain.live()
                    case Gap():
                        drain.look()
                    case _:
                        pass
