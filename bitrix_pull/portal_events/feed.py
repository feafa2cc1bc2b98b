"""Who wants the portal's own events: handlers and subscriptions, over all runs of a client."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from bitrix_pull.dispatch.dispatcher import Dispatcher
from bitrix_pull.dispatch.inbox import Inbox
from bitrix_pull.dispatch.patterns import PortalPattern
from bitrix_pull.dispatch.registry import Registry
from bitrix_pull.dispatch.storage import Storage
from bitrix_pull.dispatch.subscription import EventIterator
from bitrix_pull.events import Notice, Origin, PortalEvent
from bitrix_pull.options import PullOptions

if TYPE_CHECKING:
    from bitrix_pull.portal_events.binding import Bindings
    from bitrix_pull.portal_events.drain import Drain

P = TypeVar("P")


class PortalEvents(EventIterator[PortalEvent[P]], Generic[P]):
    """The portal's own events as an async iterator: ``async for event in events``.

    An event counts as handled, and is deleted from the portal's queue, when the next one is
    asked for. What was not asked for when the context is left stays in the queue.
    """

    keeps_rest = True

    def __init__(self, feed: "Feed", pattern: PortalPattern, model: Any = None) -> None:
        """Create a subscription; it takes events once its context is entered."""
        super().__init__(feed, pattern, model)
        self._feed = feed
        self._names = pattern.events

    async def __aenter__(self) -> Self:
        """Begin to take events; in a client that runs, after they are bound.

        Raises:
            RuntimeError: It is entered already: two consumers take two subscriptions.
            PullError: The portal does not queue one of the events; see ``on_portal_event``.
        """
        if self._feed.bindings is not None:
            await self._feed.bindings.ensure(self._names)
        return await super().__aenter__()


class Feed:
    """The inbox and the dispatcher of the portal's own events, and what is wanted of them."""

    def __init__(
        self,
        registry: Registry,
        options: PullOptions,
        announce: Callable[[Notice], None],
        origin: Origin,
        storage: Storage | None = None,
    ) -> None:
        """Serve the handlers of a registry, of the client that the events come by."""
        self.inbox: Inbox[PortalEvent[Any]] = Inbox(
            max_events=options.inbox_max_events, max_bytes=options.inbox_max_bytes, storage=storage
        )
        self.dispatcher: Dispatcher[PortalEvent[Any]] = Dispatcher(
            PortalEvent, registry, self.inbox, announce, origin
        )
        self.bindings: Bindings | None = None
        """Binds what an iterator wants, in the present run."""
        self.drain: Drain | None = None
        """Takes events in the present run."""
        self._registry = registry
        self._subscriptions: list[EventIterator[PortalEvent[Any]]] = []
        self._begin: Callable[[], None] | None = None
        registry.watch(self._on_change)

    @property
    def barred(self) -> bool:
        """True if iterators are to be handed nothing any more."""
        return self.dispatcher.barred

    @property
    def running(self) -> bool:
        """True while the client runs."""
        return self.dispatcher.running

    def wanted(self) -> frozenset[str]:
        """Return the names that handlers and subscriptions want at present."""
        handlers = (handler.pattern for handler in self._registry.handlers())
        patterns = [*handlers, *(subscription.pattern for subscription in self._subscriptions)]
        return frozenset[str]().union(
            *(pattern.events for pattern in patterns if isinstance(pattern, PortalPattern))
        )

    def when_wanted(self, begin: Callable[[], None] | None) -> None:
        """Call something once anything is wanted: at once, or later on; None: nothing any more."""
        self._begin = begin
        self._look()

    def attach(self, subscription: EventIterator[PortalEvent[Any]]) -> None:
        """Give a subscription events from now on."""
        self._subscriptions.append(subscription)
        self.dispatcher.attach(subscription)
        self._on_change()

    def detach(
        self, subscription: EventIterator[PortalEvent[Any]], unhandled: Sequence[PortalEvent[Any]]
    ) -> None:
        """Give it no more. What it has left behind stays in the portal's queue."""
        self._subscriptions.remove(subscription)
        self.dispatcher.detach(subscription, ())
        if self.drain is not None:
            self.drain.give_back(unhandled)
        for event in unhandled:
            # It must not count as handled, whatever others do with it.
            self.inbox.abandon(event)
            self.inbox.release(event)

    def _look(self) -> None:
        if self._begin is not None and self.wanted():
            begin, self._begin = self._begin, None
            begin()

    def _on_change(self) -> None:
        self._look()
        if self.drain is not None:
            self.drain.look()
