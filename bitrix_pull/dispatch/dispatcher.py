"""Hands each event to the workers and subscriptions that want it."""

import asyncio
from collections.abc import Callable, Hashable, Iterable, Sequence, Set
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from bitrix_pull.dispatch.binding import Bound, bind
from bitrix_pull.dispatch.blocking import BlockingWatch
from bitrix_pull.dispatch.concurrency import ConcurrentWorker
from bitrix_pull.dispatch.dependencies import Supply
from bitrix_pull.dispatch.inbox import Inbox
from bitrix_pull.dispatch.observing import Observer
from bitrix_pull.dispatch.patterns import Pattern
from bitrix_pull.dispatch.registry import Handler, Registry
from bitrix_pull.dispatch.subscription import EventIterator
from bitrix_pull.dispatch.tasks import TaskSet
from bitrix_pull.dispatch.unrouted import Unrouted
from bitrix_pull.dispatch.worker import Worker
from bitrix_pull.events import NOWHERE, Event, EventsDropped, Notice, Origin
from bitrix_pull.redaction import get_logger
from bitrix_pull.telemetry import log_fields

if TYPE_CHECKING:
    from bitrix_pull.health import OldestEvent

_LINGER_S = 30.0
"""How long what a failed consumer leaves behind stays unsettled: longer than a program takes
to end because of it, so that its next run gets it again."""

logger: Final = get_logger("dispatch")

_ROUTES_MAX = 1_000
"""The server chooses the commands, so what is remembered of them must have an end."""

E = TypeVar("E", bound=Event)


class Receiver(Protocol[E]):
    """Takes events of a pattern: a worker or a subscription."""

    pattern: Pattern

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    def has(self, event: E) -> bool:
        """Tell whether it has not finished with an event."""
        ...

    def put(self, events: Sequence[E]) -> None:
        """Queue events."""
        ...

    def oldest(self) -> E | None:
        """Return the oldest event that waits here, or None."""
        ...

    def forgo(self) -> None:
        """Take that event out of the queue."""
        ...


class Dispatcher(Generic[E]):
    """Routes events of one kind. ``put`` never waits and never runs user code."""

    def __init__(
        self,
        kind: type[E],
        registry: Registry,
        inbox: Inbox[E],
        announce: Callable[[Notice], None],
        origin: Origin = NOWHERE,
    ) -> None:
        """Create a dispatcher over those of a registry's handlers, present and future, that want a kind.

        Args:
            kind: The kind of events that are put in here.
            registry: The handlers; those of other kinds are left alone.
            inbox: Takes the events that are not settled yet.
            announce: Takes notices.
            origin: Where its events come from.
        """
        self._kind = kind
        self._topic_of = kind.topic_of
        self._registry = registry
        self.inbox = inbox
        """The events that are not settled yet."""
        self.observer: Observer[E] | None = None
        """Who looks on; it counts from the next ``prepare`` and ``begin`` on."""
        self.bar: Callable[[], bool] | None = None
        """Tells whether iterators are to be handed nothing any more; handlers have middleware."""
        self._taps: list[Callable[[Sequence[E]], None]] = []
        self._wraps: list[Callable[[Bound[E]], Bound[E]]] = []
        self._drops = inbox.overflow != "pause"
        self._announce = announce
        self._origin = origin
        self._supply = Supply()
        self._blocking = BlockingWatch()
        self._workers: dict[Handler, Worker[E]] = {}
        self._tasks: TaskSet | None = None
        self._subscriptions: list[EventIterator[E]] = []
        self._routes: dict[Hashable, tuple[Receiver[E], ...]] = {}
        self._takers: dict[tuple[Receiver[E], ...], tuple[Receiver[E], ...]] = {}
        self._unwanted: set[Hashable] = set()
        self._unrouted = Unrouted(self._wanted)

    def prepare(self, supply: Supply) -> None:
        """See that handlers get what they ask for, from now on.

        Args:
            supply: What the client has for them.

        Raises:
            InvalidArgument: One of them asks for what nothing provides.
        """
        self._supply = supply
        self._bind()

    def wrap(self, around: Callable[[Bound[E]], Bound[E]]) -> None:
        """Call something in the place of each handler from now on: what this returns of it."""
        self._wraps.append(around)
        self._handlers_changed()

    def begin(self, tasks: TaskSet) -> None:
        """Run the workers of each handler, present and future, until ``end``.

        Args:
            tasks: Runs them. Whoever owns it ends this one first and closes it then, after which
                what is not settled stays in the inbox until the next beginning.
        """
        self.inbox.begin()
        self._unrouted.clear()
        for subscription in self._subscriptions:
            subscription.forget()
        self._tasks = tasks
        self._registry.watch(self._handlers_changed)
        self._handlers_changed()

    def end(self) -> None:
        """Run no worker any more: those that end from now on are not started again."""
        if self._tasks is None:
            return
        self._tasks = None
        self.inbox.end()
        self._registry.unwatch(self._handlers_changed)
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()
        self._forget_routes()

    def put(self, events: Sequence[E]) -> None:
        """Give each event to everybody who wants it, those together that go to the same."""
        for tap in self._taps:
            tap(events)
        routes = list(map(self._routes.get, map(self._topic_of, events)))
        if not self._drops and routes and routes[0] is not None and routes.count(routes[0]) == len(routes):
            self._give(events, routes[0])
            return
        run: list[E] = []
        takers: tuple[Receiver[E], ...] = ()
        for event, receivers in zip(events, routes, strict=True):
            if receivers is None:
                receivers = self._find(self._topic_of(event))
            if self._drops and receivers:
                # Whether there is room for it depends on those before it.
                self._give(run, takers)
                run = []
                if self.inbox.full and not (receivers := self._drop(event, receivers)):
                    self.inbox.take([event], 0)
                    continue
            if receivers is not takers:
                self._give(run, takers)
                run, takers = [], receivers
            run.append(event)
        self._give(run, takers)

    @property
    def unwanted(self) -> Set[Any]:
        """Topics that have come and that nobody wants at present: the same set at all times.

        Events about them need not be put in here, if ``pass_by`` is told.
        """
        return self._unwanted

    def pass_by(self, topics: Sequence[Hashable]) -> None:
        """Count events that nobody wants, by their topics."""
        self._unrouted.count(topics)

    def tap(self, take: Callable[[Sequence[E]], None]) -> None:
        """Let it be called with all that is put in here, whoever wants it."""
        self._taps.append(take)
        self._forget_routes()

    def untap(self, take: Callable[[Sequence[E]], None]) -> None:
        """Let it be called no more."""
        self._taps.remove(take)
        self._forget_routes()

    @property
    def full(self) -> bool:
        """True if ``room`` has to be waited for."""
        return self.inbox.full and not self._drops

    async def room(self) -> None:
        """Wait until the inbox can take more."""
        await self.inbox.room()

    async def idle(self) -> None:
        """Wait until every event is handled."""
        await self.inbox.empty()

    @property
    def unrouted(self) -> dict[str, int]:
        """How many events came in this run that nobody wanted, by the names of their topics."""
        return self._unrouted.counts

    def oldest(self, now: float) -> "OldestEvent | None":
        """Return what has waited longest to be settled, and for whom; None if nothing waits.

        Args:
            now: The present time, by the event loop's clock.
        """
        oldest = self.inbox.oldest()
        if oldest is None:
            return None
        event, taken_at = oldest
        names = [receiver.name for receiver in self._receivers() if receiver.has(event)]
        # Whoever runs handlers alone does not wait for what an operator reads.
        from bitrix_pull.health import OldestEvent

        return OldestEvent(event.label, ", ".join(names), max(now - taken_at, 0.0))

    def held_by(self) -> tuple[str, str, int]:
        """Return which event has waited longest, for which handlers, and how many wait."""
        oldest = self.oldest(0.0)
        return (oldest.event, oldest.handler, len(self.inbox)) if oldest is not None else ("", "", 0)

    @property
    def next_attempt_at(self) -> float | None:
        """When an event that a handler has put aside is attempted again, by the event loop's clock."""
        return min((at for worker in self._workers.values() for at in worker.attempts_at()), default=None)

    def runs_current_task(self) -> bool:
        """Tell whether the caller is a handler."""
        return self._tasks is not None and asyncio.current_task() in self._tasks

    def finish(self, error: Exception | None) -> None:
        """End all subscriptions, normally or with an error; they get no more events."""
        for subscription in self._subscriptions:
            subscription.finish(error)
        self._subscriptions.clear()
        self._forget_routes()

    def _receivers(self) -> "list[Receiver[E]]":
        return [*self._workers.values(), *self._subscriptions]

    def _wanted(self) -> Iterable[str]:
        return (name for item in self._receivers() for name in item.pattern.names())

    def _find(self, topic: Hashable) -> tuple[Receiver[E], ...]:
        """Return who wants events of a topic, and remember it."""
        if (known := self._routes.get(topic)) is not None:
            return known
        if len(self._routes) >= _ROUTES_MAX:
            self._forget_routes()
        found = tuple(item for item in self._receivers() if item.pattern.matches(topic))
        # What goes to the same is told by identity, whatever it is about.
        found = self._routes[topic] = self._takers.setdefault(found, found)
        # Who looks on wants everything.
        if not found and not self._taps and self.observer is None:
            self._unwanted.add(topic)
        return found

    def _forget_routes(self) -> None:
        self._routes.clear()
        self._takers.clear()
        self._unwanted.clear()

    def _give(self, run: Sequence[E], receivers: tuple[Receiver[E], ...]) -> None:
        if not run:
            return
        self.inbox.take(run, len(receivers), asyncio.get_running_loop().time())
        if self.observer is not None:
            self.observer.given(run, [item.handler for item in receivers if isinstance(item, Worker)])
        if not receivers:
            self._unrouted.count(map(self._topic_of, run))
            return
        origin = self._origin
        for event in run:
            event.origin = origin
        for receiver in receivers:
            receiver.put(run)

    # -- a full inbox -------------------------------------------------------------

    def _drop(self, event: E, receivers: tuple[Receiver[E], ...]) -> tuple[Receiver[E], ...]:
        """Drop what the options say, and return who still gets the event that arrives."""
        if self.inbox.overflow == "drop_oldest":
            while self.inbox.full and (oldest := self._oldest_waiting()) is not None:
                for receiver in self._receivers():
                    if receiver.oldest() is oldest:
                        receiver.forgo()
                        self.inbox.settle(oldest)
                self._count_drop(oldest)
            if not self.inbox.full:
                return receivers
        self._count_drop(event)
        return ()

    def _oldest_waiting(self) -> E | None:
        """Return the oldest event that some receiver has not begun with.

        Every queue is in order of arrival, so it is the head of each where it waits.
        """
        heads = {head for receiver in self._receivers() if (head := receiver.oldest()) is not None}
        return self.inbox.first(heads) if len(heads) > 1 else next(iter(heads), None)

    def _count_drop(self, event: E) -> None:
        if self.inbox.count_drop():
            logger.warning(
                "handlers are too slow and the inbox is full: %s",
                self.inbox.overflow,
                extra=log_fields(count=self.inbox.dropped),
            )
            self._announce(EventsDropped(self.inbox.overflow, event.reference, self.inbox.dropped))

    # -- who receives -------------------------------------------------------------

    def _bind(self) -> dict[Handler, Bound[E]]:
        bound: dict[Handler, Bound[E]] = {}
        for handler, way in self._registry.routes():
            if handler.pattern.kind is self._kind and handler not in bound:
                ready: Bound[E] = bind(handler, way, self._supply, self._blocking)
                for wrap in self._wraps:
                    ready = wrap(ready)
                bound[handler] = ready if self.observer is None else self.observer.bound(ready)
        return bound

    def _handlers_changed(self) -> None:
        if self._tasks is None:
            return
        present = self._bind()
        for handler in self._workers.keys() - present.keys():
            self._workers.pop(handler).retire()
        for handler, bound in present.items():
            if (worker := self._workers.get(handler)) is not None:
                worker.bound = bound
                continue
            worker = self._workers[handler] = self._worker(bound, self._tasks)
            self._run(worker, self._tasks)
        self._forget_routes()

    def _worker(self, bound: Bound[E], tasks: TaskSet) -> Worker[E]:
        inbox = self.inbox if self.observer is None else self.observer.settling(bound.handler, self.inbox)
        if bound.handler.policy.is_plain:
            return Worker(bound, inbox, self._announce, self._blocking)
        return ConcurrentWorker(bound, inbox, self._announce, self._blocking, tasks.spawn)

    def _run(self, worker: Worker[E], tasks: TaskSet) -> None:
        task = tasks.spawn(worker.run(), f"bitrix_pull handler {worker.handler.name}")
        task.add_done_callback(partial(self._ended, worker, tasks))

    def _ended(self, worker: Worker[E], tasks: TaskSet, task: "asyncio.Task[None]") -> None:
        if tasks is not self._tasks or worker.retired:
            return
        if not task.cancelled() and (error := task.exception()) is not None:
            if not isinstance(error, Exception):
                return  # KeyboardInterrupt or SystemExit, which end the loop.
            logger.critical("%s is started again", task.get_name(), exc_info=error)
        self._run(worker, tasks)

    # -- subscriptions ------------------------------------------------------------

    @property
    def running(self) -> bool:
        """True between ``begin`` and ``end``."""
        return self._tasks is not None

    @property
    def barred(self) -> bool:
        """True if iterators are to be handed nothing any more."""
        return self.bar is not None and self.bar()

    def attach(self, subscription: EventIterator[E]) -> None:
        """Give a subscription events from now on."""
        self._subscriptions.append(subscription)
        self._forget_routes()

    def detach(self, subscription: EventIterator[E], unhandled: Sequence[E]) -> None:
        """Give it no more. What it has left behind stays unsettled for a while."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            self._forget_routes()
        for event in unhandled:
            self.inbox.abandon(event)
        if unhandled and self._tasks is not None:
            self._tasks.spawn(self._release_later(unhandled), "bitrix_pull abandoned events")

    async def _release_later(self, events: Sequence[E]) -> None:
        await asyncio.sleep(_LINGER_S)
        for event in events:
            self.inbox.release(event)
