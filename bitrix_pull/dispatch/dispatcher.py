"""Hands each event to the workers and subscriptions that want it."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from pydantic import BaseModel

from bitrix_pull.dispatch.inbox import Inbox
from bitrix_pull.dispatch.router import Handler, Pattern, Router
from bitrix_pull.dispatch.subscription import Subscription
from bitrix_pull.dispatch.worker import Worker
from bitrix_pull.events import Notice, PullEvent

_ROUTES_MAX = 1_000
"""The server chooses the commands, so what is remembered of them must have an end."""


class Receiver(Protocol):
    """Takes events of a pattern: a worker or a subscription."""

    pattern: Pattern

    def put(self, event: PullEvent[Any]) -> None:
        """Queue an event."""
        ...


class Dispatcher:
    """Routes events. ``put`` never waits and never runs user code."""

    def __init__(self, router: Router, inbox: Inbox, announce: Callable[[Notice], None]) -> None:
        """Create a dispatcher over a router's handlers, present and future ones."""
        self._router = router
        self._inbox = inbox
        self._announce = announce
        self._workers: dict[Handler, Worker] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._subscriptions: list[Subscription[Any]] = []
        self._routes: dict[tuple[str, str], tuple[Receiver, ...]] = {}
        router.watch(self._handlers_changed)

    async def run(self) -> None:
        """Run a worker for each handler until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._handlers_changed()
                await asyncio.Event().wait()
        finally:
            self._tasks = None
            self._workers.clear()
            self._routes.clear()
            self._inbox.clear()

    def put(self, event: PullEvent[Any]) -> None:
        """Give an event to everybody who wants it."""
        key = (event.module_id, event.command)
        receivers = self._routes.get(key)
        if receivers is None:
            receivers = self._find(*key)
        if receivers:
            self._inbox.take(event, len(receivers))
            for receiver in receivers:
                receiver.put(event)

    async def room(self) -> None:
        """Wait until the inbox can take more."""
        await self._inbox.room()

    async def idle(self) -> None:
        """Wait until every event is handled."""
        await self._inbox.empty()

    def subscribe(self, pattern: Pattern, model: type[BaseModel] | None) -> Subscription[Any]:
        """Return a subscription that is not entered yet."""
        return Subscription(pattern, model, self._inbox, self._attach, self._detach)

    def finish(self, error: Exception | None) -> None:
        """End all subscriptions, normally or with an error."""
        for subscription in self._subscriptions:
            subscription.finish(error)

    def _find(self, module: str, command: str) -> tuple[Receiver, ...]:
        if len(self._routes) >= _ROUTES_MAX:
            self._routes.clear()
        receivers: list[Receiver] = [*self._workers.values(), *self._subscriptions]
        found = tuple(item for item in receivers if item.pattern.matches(module, command))
        self._routes[module, command] = found
        return found

    def _handlers_changed(self) -> None:
        if self._tasks is None:
            return
        for handler in self._router.handlers():
            if handler not in self._workers:
                worker = Worker(handler, self._inbox, self._announce)
                self._workers[handler] = worker
                self._tasks.create_task(worker.run(), name=f"bitrix_pull handler {handler.name}")
        self._routes.clear()

    def _attach(self, subscription: Subscription[Any]) -> None:
        self._subscriptions.append(subscription)
        self._routes.clear()

    def _detach(self, subscription: Subscription[Any]) -> None:
        self._subscriptions.remove(subscription)
        self._routes.clear()
