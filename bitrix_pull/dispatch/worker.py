"""Runs one handler over its events, in order and off the read path."""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from inspect import isawaitable
from time import monotonic
from types import CoroutineType
from typing import Generic, TypeVar

from bitrix_pull.dispatch.binding import Bound
from bitrix_pull.dispatch.blocking import BlockingWatch
from bitrix_pull.dispatch.calls import as_failure, cancellation, failure
from bitrix_pull.dispatch.observing import Settling
from bitrix_pull.dispatch.patterns import Pattern
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

    def __init__(
        self,
        bound: Bound[E],
        inbox: Settling[E],
        announce: Callable[[Notice], None],
        blocking: BlockingWatch,
    ) -> None:
        """Create a worker; ``run`` must be started by its owner."""
        self.pattern: Pattern = bound.handler.pattern
        self.bound = bound
        """What is called. It may be put in place anew: what comes after that goes there."""
        self.retired: bool = False
        """True once it takes no more events."""
        self._inbox = inbox
        self._announce = announce
        self._blocking = blocking
        self._queue: deque[E] = deque()
        self._in_hand: E | None = None
        self._sleepers: list[asyncio.Future[None]] = []
        # Events that were in hand when the worker was cancelled; with the error, where it had failed.
        self._cut: list[tuple[E, Exception | None]] = []

    @property
    def handler(self) -> Handler:
        """The handler that it calls."""
        return self.bound.handler

    def put(self, events: Sequence[E]) -> None:
        """Queue events."""
        self._queue.extend(events)
        for _ in range(min(len(events), len(self._sleepers))):
            self._wake()

    @property
    def name(self) -> str:
        """The handler's name."""
        return self.handler.name

    def has(self, event: E) -> bool:
        """Tell whether the handler has still to begin with an event, or to finish with it."""
        return event is self._in_hand or event in self._queue

    def oldest(self) -> E | None:
        """Return the oldest event that the handler has not begun with."""
        return self._queue[0] if self._queue else None

    def forgo(self) -> None:
        """Take that event out of the queue, without settling it."""
        self._queue.popleft()

    def attempts_at(self) -> Iterable[float]:
        """Return when events that were put aside are attempted again, by the event loop's clock."""
        return ()

    async def run(self) -> None:
        """Handle events until cancelled.

        If it was not the owner who cancelled it, it was the handler: run it again.
        """
        await self._report_cut()
        queue, settle, is_cancelled = self._queue, self._inbox.settle, cancellation()
        while not self.retired:
            callback, shape = self.bound.call, self.bound.shape
            began_at = monotonic()
            has_awaited = False
            for turn in itertools.count(1):
                if not queue:
                    break
                event = self._in_hand = queue.popleft()
                error: Exception | None = None
                try:
                    shown = event if shape is None else shape(event)
                    result = None if shown is None else callback(shown)
                    if type(result) is CoroutineType or (result is not None and isawaitable(result)):
                        has_awaited = True
                        await result
                except BaseException as raised:
                    error = self._as_failure(event, raised)
                if is_cancelled():
                    # The handler swallowed it, but it was meant for us.
                    self._cut.append((event, None))
                    raise asyncio.CancelledError
                if error is not None:
                    await self._fail(event, error)
                else:
                    settle(event)
                if turn % TURN == 0 and monotonic() >= began_at + TURN_S:
                    break
            if not has_awaited:
                self._blocking.took(self.handler.name, monotonic() - began_at)
            self._in_hand = None
            await self._turn()

    def close(self) -> None:
        """Take note that nobody runs it any more."""

    def retire(self) -> None:
        """Take no more events, and finish with those that the handler has not begun with."""
        self.retired = True
        for event in self._queue:
            self._inbox.settle(event)
        self._queue.clear()
        while self._sleepers:
            self._wake()

    def _as_failure(self, event: E, raised: BaseException) -> Exception:
        try:
            return as_failure(raised)
        except asyncio.CancelledError:
            self._cut.append((event, None))
            raise

    async def _report_cut(self) -> None:
        while self._cut:
            event, error = self._cut.pop()
            if error is None:
                await self._fail(event, cancelled_itself())
            else:
                self._give_up(event, error)

    async def _fail(self, event: E, error: Exception) -> None:
        left: Exception | None = error
        if self.bound.recover is not None:
            try:
                left = await self.bound.recover(event, error)
            except asyncio.CancelledError:
                self._cut.append((event, error))
                raise
        if left is None:
            self._inbox.settle(event)
        else:
            self._give_up(event, left)

    def _give_up(self, event: E, error: Exception) -> None:
        self._announce(failure(self.handler, event, error, 1))
        self._inbox.fail(event)

    async def _turn(self) -> None:
        """Let others run, and sleep until there may be something to do."""
        if self._queue:
            await asyncio.sleep(0)
        elif not self.retired:
            await self._arrival()

    async def _arrival(self) -> None:
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
        sleeper = self._sleepers.pop(0)
        if not sleeper.done():
            sleeper.set_result(None)


def cancelled_itself() -> Exception:
    """Return the error of a handler that has cancelled the task in which it ran."""
    return RuntimeError("the handler cancelled the task that it ran in")
