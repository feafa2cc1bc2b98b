"""Where a client's events arrive: inboxes, and dispatchers that hand them to its handlers."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bitrix_pull.dispatch.dependencies import Supply
from bitrix_pull.dispatch.dispatcher import Dispatcher
from bitrix_pull.dispatch.inbox import Inbox
from bitrix_pull.dispatch.notices import NoticeBoard
from bitrix_pull.dispatch.registry import Registry
from bitrix_pull.dispatch.tasks import TaskSet
from bitrix_pull.events import Origin, PullEvent
from bitrix_pull.options import PullOptions
from bitrix_pull.portal_events.feed import Feed

if TYPE_CHECKING:
    from bitrix_pull.shared import Shared


class Reception:
    """All between what brings events and the handlers that get them. It knows no network.

    Attributes:
        notices: Where it is said what happens.
        inbox: What came by the stream and is not handled yet.
        stream: Hands that to handlers.
        portal_feed: Does so with the portal's own events.
    """

    def __init__(
        self, registry: Registry, options: PullOptions, origin: Origin, shared: "Shared | None" = None
    ) -> None:
        """Serve the handlers of a registry.

        Args:
            registry: The handlers, present and future.
            options: How much is taken in.
            origin: Where events come from.
            shared: What is shared with other clients.
        """
        storage = None if shared is None else shared.storage
        self.notices: NoticeBoard = NoticeBoard(origin.portal, None if shared is None else shared.announce)
        self.inbox: Inbox[PullEvent[Any]] = Inbox(
            max_events=options.inbox_max_events,
            max_bytes=options.inbox_max_bytes,
            overflow=options.overflow,
            storage=storage,
        )
        self.stream: Dispatcher[PullEvent[Any]] = Dispatcher(
            PullEvent, registry, self.inbox, self.notices.post, origin
        )
        self.portal_feed: Feed = Feed(registry, options, self.notices.post, origin, storage)

    def prepare(self, supply: Supply) -> None:
        """See that handlers get what they ask for, from now on.

        Raises:
            InvalidArgument: One of them asks for what nothing provides.
        """
        self.stream.prepare(supply)
        self.portal_feed.dispatcher.prepare(supply)

    def bar_iterators(self, when: Callable[[], bool]) -> None:
        """Let iterators hand nothing on any more once this is true."""
        self.stream.bar = self.portal_feed.dispatcher.bar = when

    async def run(self) -> None:
        """Run the handlers until cancelled.

        A handler that ignores its cancellation is left behind after half a second.
        """
        tasks = TaskSet()
        dispatchers = (self.stream, self.portal_feed.dispatcher)
        try:
            for dispatcher in dispatchers:
                dispatcher.begin(tasks)
            await asyncio.get_running_loop().create_future()
        finally:
            for dispatcher in dispatchers:
                dispatcher.end()
            await tasks.close()

    async def idle(self) -> None:
        """Wait until everything is handled."""
        await self.stream.idle()
        await self.portal_feed.dispatcher.idle()

    def runs_current_task(self) -> bool:
        """Tell whether the caller is a handler."""
        return self.stream.runs_current_task() or self.portal_feed.dispatcher.runs_current_task()

    def finish(self, error: Exception | None) -> None:
        """End all iterators, normally or with an error."""
        self.stream.finish(error)
        self.portal_feed.dispatcher.finish(error)
