"""Runs one handler over its events, in order and off the read path."""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from inspect import isawaitable
from types import CoroutineType
from typing import Generic, TypeVar

from bitrix_pull.dispatch.calls import as_failure, cancellation, failure
from bitrix_pull.dispatch.inbox import Inbox
from bitrix_pull.dispatch.registry import Handler
from bitrix_pull.events import Event, Notice

E = TypeVar("E", bound=Event)

TURN = 100
"""Events after which a worker looks at the clock, even if its handler never waits."""

TURN_S = 0.002
"""How long it may then have gone on before others run. Where handlers are quick it so keeps
pace with the reader: events that wait in thousands cost the garbage collector more than all else."""


class Worker(Generic[E]):
    """The queue and the loop of one handler that was registered with a model at most.

    What the handler raises ends here. An event is settled when the handler has returned or
    failed; those that are in hand or in the queue when the worker is cancelled are not.
    """

    def __init__(self, handler: Handler, inbox: Inbox[E], announce: Callable[[Notice], None]) -> None:
        """Create a worker; ``run`` must be started by its owner."""
        self.pattern = handler.pattern
        self.handler = handler
        self._inbox = inbox
        self._announce = announce
        self._queue: deque[E] = deque()
        self._sleepers: deque[asyncio.Future[None]] = deque()
        self._cut: list[E] = []

    def put(self, events: Sequence[E]) -> None:
        """Queue events."""
        self._queue.extend(events)
        for _ in range(min(len(events), len(self._sleepers))):
            self._wake()

    def oldest(self) -> E | None:
        """Return the oldest event that the handler has not begun with."""
        return self._queue[0] if self._queue else None

    def forgo(self) -> None:
        """Take that event out of the queue, without settling it."""
        self._queue.popleft()

    async def run(self) -> None:
        """Handle events until cancelled.

        If it was not the owner who cancelled it, it was the handler: run it again.
        """
        self._report_cut()
        callback, model = self.handler.callback, self.handler.model
        queue, settle, is_cancelled = self._queue, self._inbox.settle, cancellation()
        while True:
            over_at = time.monotonic() + TURN_S
            for turn in itertools.count(1):
                if not queue:
                    break
                event = queue.popleft()
                error: Exception | None = None
                try:
                    result = callback(event if model is None else event.with_model(model))
                    if type(result) is CoroutineType or (result is not None and isawaitable(result)):
                        await result
                except BaseException as raised:
                    try:
                        error = as_failure(raised)
                    except asyncio.CancelledError:
                        self._cut.append(event)
                        raise
                if is_cancelled():
                    # The handler swallowed it, but it was meant for us.
                    self._cut.append(event)
                    raise asyncio.CancelledError
                if error is not None:
                    self._fail(event, error)
                else:
                    settle(event)
                if turn % TURN == 0 and time.monotonic() >= over_at:
                    await asyncio.sleep(0)
                    over_at = time.monotonic() + TURN_S
            await self._arrival()

    def close(self) -> None:
        """Take note that nobody runs it any more."""

    def _report_cut(self) -> None:
        while self._cut:
            event = self._cut.pop()
            self._fail(event, cancelled_itself())

    def _fail(self, event: E, error: Exception) -> None:
        self._announce(failure(self.handler, event, error, 1))
        self._inbox.fail(event)

    async def _arrival(self) -> None:
        """Sleep until there may be something to do."""
        sleeper = asyncio.get_running_loop().create_future()
        self._sleepers.append(sleeper)
        try:
            await sleeper
        except asyncio.CancelledError:
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)
            raise

    def _wake(self) -> None:
        """Wake one of those that sleep."""
        sleeper = self._sleepers.popleft()
        if not sleeper.done():
            sleeper.set_result(None)


def cancelled_itself() -> Exception:
    """Return the error of a handler that has cancelled the task in which it ran."""
    return RuntimeError("the handler cancelled the task that it ran in")
