"""Runs a handler that has a policy: retries, a timeout, several events at once, its own ack."""

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from bitrix_pull.dispatch.binding import Bound
from bitrix_pull.dispatch.blocking import BlockingWatch
from bitrix_pull.dispatch.calls import as_failure, call, cancelled, failure, logger
from bitrix_pull.dispatch.observing import Settling
from bitrix_pull.dispatch.policy import RETRY_DELAY_MAX_S, Policy
from bitrix_pull.dispatch.tasks import GRACE_S
from bitrix_pull.dispatch.worker import TURN, Worker, cancelled_itself
from bitrix_pull.errors import Nacked
from bitrix_pull.events import Event, Notice
from bitrix_pull.telemetry import log_fields

_JITTER = 0.2
"""Largest part of a delay that is added at random, so that what failed together spreads out."""

_UNKEYED = object()

T = TypeVar("T")
E = TypeVar("E", bound=Event)


class Spawn(Protocol):
    """Runs a coroutine in a task that ends with the dispatcher."""

    def __call__(self, coroutine: Coroutine[Any, Any, T], name: str) -> "asyncio.Task[T]":
        """Start the task."""
        ...


@dataclass(slots=True, eq=False)
class Delivery(Generic[E]):
    """One event on its way through one handler, which may take several attempts.

    Attributes:
        event: The event as it was taken from the stream.
        shown: The event as the handler gets it: params typed by its model.
        key: What it must keep its order with; it holds the key until it is finished.
        attempts: How often the handler was called.
        attempt: With ``ack="manual"``: the attempt that may still ack or nack.
        failed: True once it has failed for good.
        settled: True if the inbox knows already.
    """

    event: E
    shown: E
    key: Hashable = _UNKEYED
    attempts: int = 0
    attempt: "Attempt[E] | None" = None
    failed: bool = False
    settled: bool = False


class Attempt(Generic[E]):
    """What ``event.ack()`` and ``event.nack()`` of one call of a handler lead to."""

    def __init__(self, worker: "ConcurrentWorker[E]", delivery: Delivery[E]) -> None:
        """Open an attempt at a delivery."""
        self._worker = worker
        self._delivery = delivery

    def ack(self) -> None:
        """Settle the event, if this attempt is still open."""
        if self._close():
            self._worker.finish(self._delivery)

    def nack(self, delay_s: float) -> None:
        """Ask for the event again, if this attempt is still open."""
        if self._close():
            self._worker.give_back(self._delivery, delay_s)

    def _close(self) -> bool:
        is_open = self._delivery.attempt is self
        if is_open:
            self._delivery.attempt = None
        return is_open


class ConcurrentWorker(Worker[E]):
    """Several tasks over one queue: one that is run always, and others where there is more to do.

    A hub has thousands of portals, most of which are idle: what may be done a hundred times at
    once takes one task until then.

    Events are begun in order. One that has failed is put aside until its next attempt, and
    the task goes on with the next. With ``key=`` an event holds its key until it is finished,
    and later ones of the same key wait behind it, wherever it is.
    """

    def __init__(
        self,
        bound: Bound[E],
        inbox: Settling[E],
        announce: Callable[[Notice], None],
        blocking: BlockingWatch,
        spawn: Spawn,
    ) -> None:
        """Create a worker; ``run`` must be started by its owner."""
        super().__init__(bound, inbox, announce, blocking)
        self._policy = bound.handler.policy
        self._spawn = spawn
        # Whoever gives events has a context of its own.
        self._context = copy_context()
        self._helpers = 0
        # Begun, and to be attempted before what is in the queue.
        self._ready: deque[Delivery[E]] = deque()
        # By key that is held: the deliveries that wait for it; all of them again in order of arrival.
        self._lines: dict[Hashable, deque[Delivery[E]]] = {}
        self._in_line: OrderedDict[E, Delivery[E]] = OrderedDict()
        self._begun: set[E] = set()
        self._timers: dict[Delivery[E], asyncio.TimerHandle] = {}
        self._cut_short: list[Delivery[E]] = []
        self._closed = False

    def has(self, event: E) -> bool:
        """Tell whether the handler has still to begin with an event, or to finish with it."""
        return event in self._begun or event in self._queue

    def oldest(self) -> E | None:
        """Return the oldest event that the handler has not begun with."""
        return next(iter(self._in_line), None) or super().oldest()

    def forgo(self) -> None:
        """Take that event out of the queue, without settling it."""
        if self._in_line:
            _, delivery = self._in_line.popitem(last=False)
            self._lines[delivery.key].popleft()
        else:
            super().forgo()

    def attempts_at(self) -> Iterable[float]:
        """Return when events that were put aside are attempted again."""
        return [timer.when() for timer in self._timers.values()]

    def put(self, events: Sequence[E]) -> None:
        """Queue events."""
        more = len(events) - len(self._sleepers)
        super().put(events)
        self._get_help(more)

    async def run(self) -> None:
        """Handle events until cancelled."""
        self._report_cut_short()
        while not self.retired:
            await self._handle()
            await self._turn()

    async def _handle(self) -> None:
        """Handle what there is."""
        turn = 0
        while (delivery := self._next()) is not None:
            await self._attempt(delivery)
            turn += 1
            if turn % TURN == 0:
                await asyncio.sleep(0)

    def _get_help(self, count: int) -> None:
        """Start tasks for what nobody has time for, as many as there may be."""
        for _ in range(min(count, self._policy.concurrency - 1 - self._helpers)):
            self._helpers += 1
            name = f"bitrix_pull handler {self.handler.name}"
            task = self._context.run(self._spawn, self._handle(), name)
            task.add_done_callback(self._helped)

    def _helped(self, task: "asyncio.Task[None]") -> None:
        self._helpers -= 1
        if self._closed:
            return
        if not task.cancelled() and (error := task.exception()) is not None:
            if not isinstance(error, Exception):
                return  # KeyboardInterrupt or SystemExit, which end the loop.
            logger.critical("%s has failed", task.get_name(), exc_info=error)
        # If it was not the owner who cancelled it, it was the handler.
        self._report_cut_short()
        self._get_help(min(len(self._ready) + len(self._queue), 1))

    def _report_cut_short(self) -> None:
        while self._cut_short:
            self._failed(self._cut_short.pop(), cancelled_itself())

    def retire(self) -> None:
        """Take no more events, and finish with those that the handler has not in hand."""
        super().retire()
        for timer in self._timers.values():
            timer.cancel()
        waiting = [*self._ready, *self._timers, *self._in_line.values()]
        for line in self._lines.values():
            line.clear()
        self._ready.clear()
        self._timers.clear()
        self._in_line.clear()
        for delivery in waiting:
            self._settle(delivery)

    def close(self) -> None:
        """Drop the retries that are still to come; their events stay unsettled."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def finish(self, delivery: Delivery[E]) -> None:
        """Settle an event, and let the next of its key go on."""
        self._settle(delivery)
        if delivery.key is _UNKEYED:
            return
        line = self._lines[delivery.key]
        if line:
            follower = line.popleft()
            del self._in_line[follower.event]
            self._begin_again(follower)
        else:
            del self._lines[delivery.key]

    def give_back(self, delivery: Delivery[E], delay_s: float) -> None:
        """Attempt an event again, as its handler asks."""
        if self._policy.retries and delivery.attempts > self._policy.retries:
            self._bury(delivery, Nacked("the handler gave the event back once more than retries= allows"))
        elif self.retired:
            self.finish(delivery)
        else:
            self._put_aside(delivery, delay_s)

    # -- what is next -----------------------------------------------------------

    def _next(self) -> Delivery[E] | None:
        if self._ready:
            return self._ready.popleft()
        while self._queue:
            delivery = self._begin(self._queue.popleft())
            if delivery is not None:
                return delivery
        return None

    def _begin(self, event: E) -> Delivery[E] | None:
        """Return the delivery of an event, or None if it cannot be attempted now."""
        delivery = Delivery(event, event)
        self._begun.add(event)
        line: deque[Delivery[E]] | None = None
        try:
            if (shape := self.bound.shape) is not None:
                shown = shape(event)
                if shown is None:
                    self._settle(delivery)
                    return None
                delivery.shown = shown
            if self._policy.key is not None:
                key = self._policy.key(delivery.shown)
                line = self._lines.get(key)
                delivery.key = key
        except BaseException as error:
            # It would fail in the same way again.
            self._bury(delivery, as_failure(error))
            return None
        if line is not None:
            line.append(delivery)
            self._in_line[event] = delivery
            return None
        if delivery.key is not _UNKEYED:
            self._lines[delivery.key] = deque()
        return delivery

    def _begin_again(self, delivery: Delivery[E]) -> None:
        self._ready.append(delivery)
        if self._sleepers:
            self._wake()
        elif not self._closed:
            self._get_help(1)

    # -- an attempt and its outcome -----------------------------------------------

    async def _attempt(self, delivery: Delivery[E]) -> None:
        delivery.attempts += 1
        event = self._open(delivery)
        attempt = delivery.attempt
        try:
            error = await self._call(event)
            if cancelled():
                raise asyncio.CancelledError  # The handler swallowed it, but it was meant for us.
        except asyncio.CancelledError:
            if delivery.attempt is attempt:
                self._cut_short.append(delivery)
            raise
        if delivery.attempt is not attempt:
            if error is not None:
                logger.error(
                    "handler %s failed after its ack or nack",
                    self.handler.name,
                    exc_info=error,
                    extra=log_fields(handler=self.handler.name, error=error),
                )
        elif error is not None:
            self._failed(delivery, error)
        elif attempt is None:
            self.finish(delivery)

    def _open(self, delivery: Delivery[E]) -> E:
        """Return the event as this attempt shows it to the handler."""
        if self._policy.ack == "manual":
            delivery.attempt = Attempt(self, delivery)
        elif self._policy.ack == "on_receive":
            self._settle(delivery)
        if delivery.attempt is None and delivery.attempts == 1:
            return delivery.shown
        return delivery.shown.for_attempt(delivery.attempts, delivery.attempt)

    async def _call(self, event: E) -> Exception | None:
        timeout_s = self._policy.timeout_s
        if timeout_s is None:
            return await call(self.bound.call, event)
        # In a task of its own: a handler that ignores its cancellation can only be left behind.
        task = self._spawn(call(self.bound.call, event), f"bitrix_pull call of handler {self.handler.name}")
        try:
            await asyncio.wait({task}, timeout=timeout_s)
        finally:
            in_time = task.done()
            task.cancel()
        if in_time:
            return cancelled_itself() if task.cancelled() else task.result()
        await asyncio.wait({task}, timeout=GRACE_S)
        if not task.done():
            logger.warning("%s ignores its timeout and is left running", task.get_name())
        return TimeoutError(f"the handler did not return within {timeout_s:g} s")

    def _failed(self, delivery: Delivery[E], error: Exception) -> None:
        delivery.attempt = None
        if delivery.attempts > self._policy.retries or self.retired:
            self._bury(delivery, error)
        else:
            self._put_aside(delivery, retry_delay_s(self._policy, delivery.attempts))

    def _put_aside(self, delivery: Delivery[E], delay_s: float) -> None:
        if not self._closed:
            loop = asyncio.get_running_loop()
            self._timers[delivery] = loop.call_later(delay_s, self._due, delivery)

    def _due(self, delivery: Delivery[E]) -> None:
        del self._timers[delivery]
        self._begin_again(delivery)

    def _bury(self, delivery: Delivery[E], error: Exception) -> None:
        """Finish with an event that failed for good; error handlers may have a word in it."""
        if self.bound.recover is None and self._policy.on_dead_letter is None:
            self._report(delivery, error)
            self.finish(delivery)
        elif not self._closed:
            # In a task of its own: the handler goes on with other events.
            self._spawn(
                self._last_words(delivery, error), f"bitrix_pull failure of handler {self.handler.name}"
            )

    async def _last_words(self, delivery: Delivery[E], error: Exception) -> None:
        try:
            left = await self._recovered(delivery, error)
            if left is not None:
                self._report(delivery, left)
                await self._hand_over(delivery, left)
        except asyncio.CancelledError:
            if self._closed:
                raise
            # One of those functions has cancelled the task that it ran in.
            if not delivery.failed:
                self._report(delivery, error)
        self.finish(delivery)

    async def _recovered(self, delivery: Delivery[E], error: Exception) -> Exception | None:
        if self.bound.recover is None:
            return error
        return await self.bound.recover(delivery.event, error)

    def _report(self, delivery: Delivery[E], error: Exception) -> None:
        delivery.failed = True
        self._announce(failure(self.handler, delivery.event, error, max(delivery.attempts, 1)))

    async def _hand_over(self, delivery: Delivery[E], error: Exception) -> None:
        if self._policy.on_dead_letter is None:
            return
        own_error = await call(self._policy.on_dead_letter, delivery.event, error)
        if cancelled():
            raise asyncio.CancelledError
        if own_error is not None:
            logger.error(
                "on_dead_letter of handler %s failed",
                self.handler.name,
                exc_info=own_error,
                extra=log_fields(handler=self.handler.name, error=own_error),
            )

    def _settle(self, delivery: Delivery[E]) -> None:
        if not delivery.settled:
            delivery.settled = True
            self._begun.discard(delivery.event)
            if delivery.failed:
                self._inbox.fail(delivery.event)
            else:
                self._inbox.settle(delivery.event)


def retry_delay_s(policy: Policy, attempts: int) -> float:
    """Return how long to wait after this many attempts have failed."""
    doubled = policy.retry_delay_s * 2.0 ** min(attempts - 1, 100)
    # The limit leaves room for the jitter, or all would be due at once.
    return min(doubled, RETRY_DELAY_MAX_S / (1 + _JITTER)) * (1 + random.uniform(0, _JITTER))
