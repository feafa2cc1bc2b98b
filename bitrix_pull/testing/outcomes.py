"""What handlers did with an event, written down by who looks on."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, Literal, Self, TypeVar

from bitrix_pull.dispatch.binding import Bound
from bitrix_pull.dispatch.observing import Settling
from bitrix_pull.dispatch.registry import Handler
from bitrix_pull.events import Event, HandlerFailed, Notice

E = TypeVar("E", bound=Event)

Outcome = Literal["waiting", "running", "handled", "failed", "skipped"]
"""Not begun, to be attempted again, or to be acked; at work; returned; failed for good; not wanted."""


@dataclass(eq=False, slots=True)
class Handling:
    """What one handler did with one event.

    Attributes:
        handler: The handler's name.
        outcome: How far it has come. An error that ``on_error`` has dealt with is "handled".
        attempts: How often it was called.
        errors: What it raised, attempt by attempt.
        error: What it has failed with for good, or None.
        returned: What it returned last, middleware included.
        acked: Whether it has settled the event: with ``ack="manual"`` by ``event.ack()``.
    """

    handler: str
    outcome: Outcome = "waiting"
    attempts: int = 0
    errors: list[Exception] = field(default_factory=list[Exception])
    error: Exception | None = None
    returned: Any = None
    acked: bool = False
    is_busy: bool = field(default=False, repr=False)


@dataclass(eq=False, slots=True)
class Delivered(Generic[E]):
    """What became of one event.

    Attributes:
        event: The event, as the client took it in.
        handlings: What each handler that is registered for it did, in order of registration.
        took_s: How long that took, by the test's clock.
    """

    event: E
    handlings: Sequence[Handling] = ()
    took_s: float = 0.0

    @property
    def handled(self) -> tuple[str, ...]:
        """The names of the handlers that have handled it."""
        return tuple(item.handler for item in self.handlings if item.outcome == "handled")

    @property
    def failed(self) -> Mapping[str, Exception | None]:
        """The names of the handlers that have failed on it for good, with what they raised."""
        return {item.handler: item.error for item in self.handlings if item.outcome == "failed"}

    @property
    def retried(self) -> Mapping[str, int]:
        """The names of the handlers that were called more than once, with how often more."""
        return {item.handler: item.attempts - 1 for item in self.handlings if item.attempts > 1}

    @property
    def skipped(self) -> tuple[str, ...]:
        """The names of the handlers whose ``where=`` did not want it."""
        return tuple(item.handler for item in self.handlings if item.outcome == "skipped")

    @property
    def acked(self) -> bool:
        """Whether everybody has settled it: it will not come again, and the resume point may pass it."""
        return all(item.acked for item in self.handlings)

    def raise_for_failures(self) -> Self:
        """Return this if no handler has failed.

        Raises:
            Exception: What the first of those that have raised.
        """
        for error in self.failed.values():
            assert error is not None
            raise error
        return self

    def __getitem__(self, handler: str) -> Handling:
        """Return what a handler did, by its name, or the last part of that."""
        for item in self.handlings:
            if handler in (item.handler, item.handler.rpartition(".")[2]):
                return item
        names = ", ".join(item.handler for item in self.handlings) or "nobody"
        raise KeyError(f"{handler} did not get this event; {names} did")


class Watch(Generic[E]):
    """Looks on at one dispatcher: what is given to whom, each call, and what comes of it."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """Begin with nothing seen; ``changed`` is called with whatever happens."""
        self.deliveries: list[Delivered[E]] = []
        """The events that were given to handlers, the oldest first."""
        self._open: dict[tuple[Handler, str], Handling] = {}
        self._failing: dict[tuple[str, str], Handling] = {}
        self._changed = changed

    @property
    def busy(self) -> Iterator[tuple[Handling, Delivered[E]]]:
        """Who is at work on what: called and not returned."""
        for delivered in self.deliveries:
            for handling in delivered.handlings:
                if handling.is_busy:
                    yield handling, delivered

    def heard(self, notice: Notice) -> None:
        """Take in what a client says."""
        if isinstance(notice, HandlerFailed):
            handling = self._failing.get((notice.handler, notice.event.reference))
            if handling is not None:
                handling.error, handling.outcome = notice.error, "failed"
                # There may be a dead letter to be handed over.
                handling.is_busy = not handling.acked

    # -- as an ``Observer`` ---------------------------------------------------------------

    def given(self, events: Sequence[E], handlers: Sequence[Handler]) -> None:
        """See ``Observer``."""
        for event in events:
            handlings = tuple(Handling(handler.name) for handler in handlers)
            self.deliveries.append(Delivered(event, handlings))
            for handler, handling in zip(handlers, handlings, strict=True):
                self._open[handler, event.reference] = handling
                self._failing[handler.name, event.reference] = handling
        self._changed()

    def bound(self, bound: Bound[E]) -> Bound[E]:
        """See ``Observer``."""
        return replace(
            bound,
            call=partial(self._call, bound),
            shape=None if bound.shape is None else partial(self._shape, bound.handler, bound.shape),
            recover=None if bound.recover is None else partial(self._recover, bound.handler, bound.recover),
        )

    async def _call(self, bound: Bound[E], event: E) -> object:
        handling = self._of(bound.handler, event)
        handling.attempts += 1
        handling.outcome, handling.is_busy = "running", True
        try:
            result = bound.call(event)
            handling.returned = await result if inspect.isawaitable(result) else result
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                handling.errors.append(TimeoutError("the handler was cancelled"))
            elif isinstance(error, Exception):
                handling.errors.append(error)
            self._returned(handling, "waiting")
            raise
        self._returned(handling, "handled" if handling.acked else "waiting")
        return handling.returned

    def _returned(self, handling: Handling, outcome: Outcome) -> None:
        handling.outcome, handling.is_busy = outcome, False
        self._changed()

    def _shape(self, handler: Handler, shape: Callable[[E], E | None], event: E) -> E | None:
        shown = shape(event)
        if shown is None:
            self._of(handler, event).outcome = "skipped"
        return shown

    async def _recover(
        self,
        handler: Handler,
        recover: Callable[[E, Exception], Awaitable[Exception | None]],
        event: E,
        error: Exception,
    ) -> Exception | None:
        handling = self._of(handler, event)
        handling.is_busy = True
        try:
            left = await recover(event, error)
            if left is None:
                handling.outcome = "handled"
            return left
        finally:
            handling.is_busy = False
            self._changed()

    def _of(self, handler: Handler, event: E) -> Handling:
        """Return what a handler does with an event; one that came before anybody looked on has none."""
        return self._open.get((handler, event.reference)) or Handling(handler.name)

    def settling(self, handler: Handler, inbox: Settling[E]) -> Settling[E]:
        """See ``Observer``."""
        return _Settling(self, handler, inbox)

    def finished(self, handler: Handler, event: E, *, failed: bool) -> None:
        """Take note that a handler has settled an event."""
        handling = self._open.get((handler, event.reference))
        if handling is None:
            return
        handling.acked = True
        if failed:
            handling.outcome, handling.is_busy = "failed", False
        elif handling.attempts and handling.outcome == "waiting":
            handling.outcome = "handled"
        self._changed()


class _Settling(Generic[E]):
    def __init__(self, watch: Watch[E], handler: Handler, inbox: Settling[E]) -> None:
        self._watch = watch
        self._handler = handler
        self._inbox = inbox

    def settle(self, event: E) -> None:
        self._watch.finished(self._handler, event, failed=False)
        self._inbox.settle(event)

    def fail(self, event: E) -> None:
        self._watch.finished(self._handler, event, failed=True)
        self._inbox.fail(event)
