"""Events as an async iterator: ``async for event in events``."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, ClassVar, Final, Generic, Protocol, Self, TypeVar

from bitrix_pull.dispatch.inbox import Inbox
from bitrix_pull.dispatch.patterns import Pattern
from bitrix_pull.errors import NotRunning
from bitrix_pull.events import Event, PullEvent, adapter_of
from bitrix_pull.flag import Flag
from bitrix_pull.redaction import get_logger

logger: Final = get_logger("dispatch")

_STARTED_WITHIN_S = 5.0
"""How long an iterator waits for its client to be started before it says so."""

E = TypeVar("E", bound=Event)
P = TypeVar("P")


class Source(Protocol[E]):
    """Where the events of a subscription come from."""

    @property
    def inbox(self) -> Inbox[E]:
        """Where they wait to be settled."""
        ...

    @property
    def barred(self) -> bool:
        """True if nothing may be handed on any more."""
        ...

    @property
    def running(self) -> bool:
        """True while anything can come."""
        ...

    def attach(self, subscription: "EventIterator[E]", /) -> None:
        """Give it events from now on."""
        ...

    def detach(self, subscription: "EventIterator[E]", unhandled: Sequence[E], /) -> None:
        """Give it no more; these it has left behind."""
        ...


class EventIterator(Generic[E]):
    """Events of one pattern for one consumer, from entering the context until leaving it.

    An event counts as handled when the next one is asked for. While the consumer is
    behind, its events wait in the client's inbox, and a full inbox stops the reading for
    everybody: leave the context when you no longer iterate.

    Leaving the context as planned drops what was not asked for. What was not handled when
    the client is closed comes again in the next run, as far as the server still keeps it;
    so it is when an error or a cancellation leads out of the context, the event in hand
    included, if the client is closed within 30 s after it.
    """

    keeps_rest: ClassVar[bool] = False
    """Whether what was not asked for is left unhandled, not dropped, by who leaves as planned."""

    def __init__(self, source: Source[E], pattern: Pattern, model: Any = None) -> None:
        """Create a subscription; it takes events once its context is entered."""
        self.pattern = pattern
        self._model = adapter_of(model) if model is not None else None
        self._source = source
        self._inbox = source.inbox
        self._queue: deque[E] = deque()
        self._arrived = Flag()
        self._current: E | None = None
        self._open = False
        self._finished = False
        self._error: Exception | None = None
        self._warned = False

    async def __aenter__(self) -> Self:
        """Begin to take events.

        Raises:
            RuntimeError: It is entered already: two consumers take two subscriptions.
        """
        if self._open:
            raise RuntimeError("this subscription is entered already")
        self._open = True
        self._finished = False
        self._error = None
        self._source.attach(self)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop taking events."""
        self._open = False
        unhandled: Sequence[E] = ()
        if exc_type is None:
            self._settle_current()
            if self.keeps_rest:
                unhandled = list(self._queue)
            elif not self._finished:
                for event in self._queue:
                    self._inbox.settle(event)
        else:
            unhandled = [*([self._current] if self._current is not None else []), *self._queue]
        self._current = None
        self._queue.clear()
        self._source.detach(self, unhandled)

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> E:
        """Wait for the next event.

        Raises:
            StopAsyncIteration: The client was closed.
            NotRunning: The context was not entered.
            PullError: The client failed for good; the error says why.
            pydantic.ValidationError: The params do not fit ``model``. The event counts as
                handled; asking again gives the next one.
        """
        if not self._open:
            raise NotRunning(
                "iterate inside the context", advice="Write `async with pull.subscribe(…) as events:`."
            )
        self._settle_current()
        while not self._queue or self._source.barred:
            if self._error is not None:
                raise self._error
            if self._finished:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrival()
        event = self._current = self._queue.popleft()
        if self._model is None:
            return event
        return event.with_model(self._model)

    async def _arrival(self) -> None:
        """Wait, and say so if that may be for good."""
        if not (self._source.running or self._warned):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STARTED_WITHIN_S):
                    await self._arrived.wait()
            if not (self._source.running or self._arrived.is_set()):
                self._warned = True
                logger.warning(
                    "%s waits, and its client is not running: use `async with pull:` or start `pull.run()`",
                    self.name,
                )
        await self._arrived.wait()

    def put(self, events: Sequence[E]) -> None:
        """Queue events."""
        self._queue.extend(events)
        self._arrived.set()

    @property
    def name(self) -> str:
        """What it is called beside handlers."""
        return f"an iterator over {', '.join(self.pattern.names()) or 'all events'}"

    def has(self, event: E) -> bool:
        """Tell whether the consumer has still to ask for an event, or for the one after it."""
        return event is self._current or event in self._queue

    def oldest(self) -> E | None:
        """Return the oldest event that was not asked for."""
        return self._queue[0] if self._queue else None

    def forgo(self) -> None:
        """Take that event out of the queue, without settling it."""
        self._queue.popleft()

    def forget(self) -> None:
        """Drop what an earlier run has left."""
        self._queue.clear()
        self._current = None

    def finish(self, error: Exception | None) -> None:
        """End the iteration after what is queued: normally, or with an error."""
        self._finished = True
        self._error = error
        self._arrived.set()

    def _settle_current(self) -> None:
        if self._current is not None:
            self._inbox.settle(self._current)
            self._current = None


class Subscription(EventIterator[PullEvent[P]], Generic[P]):
    """Messages of the stream as an async iterator: ``async for event in events``.

    An event counts as handled when the next one is asked for. While the consumer is
    behind, its events wait in the client's inbox, and a full inbox stops the reading for
    everybody: leave the context when you no longer iterate.
    """
