"""Hands each event to the workers and subscriptions that want it."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, Protocol

from pydantic import BaseModel

from bitrix_pull.dispatch.concurrency import ConcurrentWorker
from bitrix_pull.dispatch.inbox import Inbox
from bitrix_pull.dispatch.policy import Policy
from bitrix_pull.dispatch.router import Handler, Pattern, Router
from bitrix_pull.dispatch.subscription import Subscription
from bitrix_pull.dispatch.tasks import TaskSet
from bitrix_pull.dispatch.worker import Worker
from bitrix_pull.events import EventsDropped, Notice, PullEvent
from bitrix_pull.redaction import get_logger

_LINGER_S = 30.0
"""How long what a failed consumer leaves behind stays unsettled: longer than a program takes
to end because of it, so that its next run gets it again."""

logger = get_logger("dispatch")

_ROUTES_MAX = 1_000
"""The server chooses the commands, so what is remembered of them must have an end."""

_kind = attrgetter("module_id", "command")


class Receiver(Protocol):
    """Takes events of a pattern: a worker or a subscription."""

    pattern: Pattern

    def put(self, events: Sequence[PullEvent[Any]]) -> None:
        """Queue events."""
        ...

    def oldest(self) -> PullEvent[Any] | None:
        """Return the oldest event that waits here, or None."""
        ...

    def forgo(self) -> None:
        """Take that event out of the queue."""
        ...


class Dispatcher:
    """Routes events. ``put`` never waits and never runs user code."""

    def __init__(self, router: Router, inbox: Inbox, announce: Callable[[Notice], None]) -> None:
        """Create a dispatcher over a router's handlers, present and future ones."""
        self._router = router
        self._inbox = inbox
        self._drops = inbox.overflow != "pause"
        self._announce = announce
        self._workers: dict[Handler, Worker] = {}
        self._tasks: TaskSet | None = None
        self._subscriptions: list[Subscription[Any]] = []
        self._routes: dict[tuple[str, str], tuple[Receiver, ...]] = {}
        router.watch(self._handlers_changed)

    async def run(self) -> None:
        """Run the workers of each handler until cancelled.

        What is not settled then stays in the inbox until the next run. A handler that
        ignores its cancellation is left behind after half a second.
        """
        self._inbox.clear()
        for subscription in self._subscriptions:
            subscription.forget()
        self._tasks = tasks = TaskSet()
        self._handlers_changed()
        try:
            await asyncio.Event().wait()
        finally:
            self._tasks = None
            for worker in self._workers.values():
                worker.close()
            self._workers.clear()
            self._routes.clear()
            await tasks.close()

    def put(self, events: Sequence[PullEvent[Any]]) -> None:
        """Give each event to everybody who wants it, those together that go to the same."""
        routes = list(map(self._routes.get, map(_kind, events)))
        if not self._drops and routes and routes[0] is not None and routes.count(routes[0]) == len(routes):
            self._give(events, routes[0])
            return
        run: list[PullEvent[Any]] = []
        takers: tuple[Receiver, ...] = ()
        for event, receivers in zip(events, routes, strict=True):
            if receivers is None:
                receivers = self._find(event.module_id, event.command)
            if self._drops and receivers:
                # Whether there is room for it depends on those before it.
                self._give(run, takers)
                run = []
                if self._inbox.full:
                    receivers = self._drop(event, receivers)
            if receivers is not takers:
                self._give(run, takers)
                run, takers = [], receivers
            run.append(event)
        self._give(run, takers)

    @property
    def full(self) -> bool:
        """True if ``room`` has to be waited for."""
        return self._inbox.full and not self._drops

    async def room(self) -> None:
        """Wait until the inbox can take more."""
        await self._inbox.room()

    async def idle(self) -> None:
        """Wait until every event is handled."""
        await self._inbox.empty()

    def runs_current_task(self) -> bool:
        """Tell whether the caller is a handler."""
        return self._tasks is not None and asyncio.current_task() in self._tasks

    def subscribe(self, pattern: Pattern, model: type[BaseModel] | None) -> Subscription[Any]:
        """Return a subscription that is not entered yet."""
        return Subscription(pattern, model, self._inbox, self._attach, self._detach)

    def finish(self, error: Exception | None) -> None:
        """End all subscriptions, normally or with an error; they get no more events."""
        for subscription in self._subscriptions:
            subscription.finish(error)
        self._subscriptions.clear()
        self._routes.clear()

    def _receivers(self) -> "list[Receiver]":
        return [*self._workers.values(), *self._subscriptions]

    def _find(self, module: str, command: str) -> tuple[Receiver, ...]:
        """Return who wants a kind of event, and remember it."""
        if (known := self._routes.get((module, command))) is not None:
            return known
        if len(self._routes) >= _ROUTES_MAX:
            self._routes.clear()
        found = tuple(item for item in self._receivers() if item.pattern.matches(module, command))
        self._routes[module, command] = found
        return found

    def _give(self, run: Sequence[PullEvent[Any]], receivers: tuple[Receiver, ...]) -> None:
        if not run:
            return
        self._inbox.take(run, len(receivers))
        for receiver in receivers:
            receiver.put(run)

    # -- a full inbox -------------------------------------------------------------

    def _drop(self, event: PullEvent[Any], receivers: tuple[Receiver, ...]) -> tuple[Receiver, ...]:
        """Drop what the options say, and return who still gets the event that arrives."""
        if self._inbox.overflow == "drop_oldest":
            while self._inbox.full and (oldest := self._oldest_waiting()) is not None:
                for receiver in self._receivers():
                    if receiver.oldest() is oldest:
                        receiver.forgo()
                        self._inbox.settle(oldest)
                self._count_drop(oldest)
            if not self._inbox.full:
                return receivers
        self._count_drop(event)
        return ()

    def _oldest_waiting(self) -> PullEvent[Any] | None:
        """Return the oldest event that some receiver has not begun with.

        Every queue is in order of arrival, so it is the head of each where it waits.
        """
        heads = {head for receiver in self._receivers() if (head := receiver.oldest()) is not None}
        return self._inbox.first(heads) if len(heads) > 1 else next(iter(heads), None)

    def _count_drop(self, event: PullEvent[Any]) -> None:
        if self._inbox.count_drop():
            logger.warning("handlers are too slow and the inbox is full: %s", self._inbox.overflow)
            self._announce(EventsDropped(self._inbox.overflow, event.mid, self._inbox.dropped))

    # -- who receives -------------------------------------------------------------

    def _handlers_changed(self) -> None:
        if self._tasks is None:
            return
        for handler in self._router.handlers():
            if handler not in self._workers:
                worker = self._workers[handler] = self._worker(handler, self._tasks)
                for _ in range(handler.policy.concurrency):
                    self._run(worker, self._tasks)
        self._routes.clear()

    def _worker(self, handler: Handler, tasks: TaskSet) -> Worker:
        if handler.policy == Policy():
            return Worker(handler, self._inbox, self._announce)
        return ConcurrentWorker(handler, self._inbox, self._announce, tasks.spawn)

    def _run(self, worker: Worker, tasks: TaskSet) -> None:
        task = tasks.spawn(worker.run(), f"bitrix_pull handler {worker.handler.name}")
        task.add_done_callback(partial(self._ended, worker, tasks))

    def _ended(self, worker: Worker, tasks: TaskSet, task: "asyncio.Task[None]") -> None:
        if tasks is not self._tasks:
            return
        if not task.cancelled() and (error := task.exception()) is not None:
            if not isinstance(error, Exception):
                return  # KeyboardInterrupt or SystemExit, which end the loop.
            logger.critical("%s is started again", task.get_name(), exc_info=error)
        self._run(worker, tasks)

    def _attach(self, subscription: Subscription[Any]) -> None:
        self._subscriptions.append(subscription)
        self._routes.clear()

    def _detach(self, subscription: Subscription[Any], unhandled: Sequence[PullEvent[Any]]) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            self._routes.clear()
        for event in unhandled:
            self._inbox.abandon(event)
        if unhandled and self._tasks is not None:
            self._tasks.spawn(self._release_later(unhandled), "bitrix_pull abandoned events")

    async def _release_later(self, events: Sequence[PullEvent[Any]]) -> None:
        await asyncio.sleep(_LINGER_S)
        for event in events:
            self._inbox.release(event)
