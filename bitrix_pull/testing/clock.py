"""A clock that can be put forward, so that minutes and days of a test take milliseconds."""

import asyncio
import heapq
import itertools
import sys
import time
from collections.abc import Callable
from functools import partial
from types import ModuleType, TracebackType
from typing import Any, Self

_CALM = 4
"""Turns of the event loop in which nothing happens, after which nothing will without time passing."""

_GRAIN = 1_000
"""Into how many steps time is cut at most, where much is due: what is due within one is due together."""

_GRAIN_MAX_S = 1.0
"""The longest step: what waits for each other, as a poll and who gives it up, lies further apart."""

_COMPARE_EVERY_S = 6 * 3600.0
"""How often a client compares its clocks, which cannot come apart: it would be most of a day's work."""

ON_ITS_WAY_S = 0.002
"""How long what was sent over loopback may take to arrive before time goes on."""

_LIMIT_S = 30.0

_FORGET_AT = 10_000
"""Timers from which on those that are over are looked for."""


class Restless(RuntimeError):  # noqa: N818 - reads as what the event loop is
    """The event loop does not come to rest, so time cannot be put forward."""


class Clock:
    """The clock of the running event loop, ``time.time()`` and ``time.monotonic()``, which move together.

    It goes at its usual pace, and is put forward by ``advance``. What waits for time (``asyncio.sleep``
    and ``timeout``, retries, renewals) comes due in its order, and what it leads to is done before time
    goes on. ``datetime.now()`` is not moved, nor ``time`` in a module that has imported the function.

    Example:
        async with Clock() as clock:
            task = asyncio.create_task(asyncio.sleep(3600))
            await clock.advance(hours=1)

    Attributes:
        patience_s: Real seconds in which nothing may happen before time goes on: what is between two
            sockets takes a moment to arrive, and time must not overtake it.
        limit_s: Real seconds within which the event loop must have come to rest.
    """

    def __init__(self) -> None:
        self.patience_s: float = 0.0
        self.limit_s: float = _LIMIT_S
        self._ahead_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        # The event loop's own methods, and which of them had been put in the places of others.
        self._originals: dict[str, Any] = {}
        self._replaced: dict[str, Any] = {}
        # What was taken over outside of the event loop: where it stands, and what it was.
        self._taken: list[tuple[ModuleType, str, Any]] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        self._happened = 0
        self._jobs = 0
        # The event loop has done what was due by then.
        self._seen_at = 0.0
        # Its result is whether it became calm, or who looked was cancelled.
        self._looking: asyncio.Future[bool] | None = None

    @staticmethod
    def of_running_loop() -> "Clock | None":
        """Return the clock that has taken over the running event loop's, if one has."""
        owner = getattr(asyncio.get_running_loop().time, "__self__", None)
        return owner if isinstance(owner, Clock) else None

    async def __aenter__(self) -> Self:
        """Take over the running event loop's clock.

        Raises:
            RuntimeError: This event loop's clock cannot be moved, or another clock moves it already.
        """
        loop = asyncio.get_running_loop()
        if self.of_running_loop() is not None:
            raise RuntimeError(
                "another clock of bitrix_pull.testing moves this event loop's time: use that one"
            )
        ours = {
            "time": self._loop_time,
            "call_at": self._call_at,
            "call_soon": self._call_soon,
            "run_in_executor": self._run_in_executor,
        }
        if not isinstance(loop, asyncio.BaseEventLoop):
            raise RuntimeError(
                f"the clock of {type(loop).__module__}'s event loop cannot be moved:"
                " run tests on asyncio's own, without uvloop"
            )
        self._originals = {name: getattr(loop, name) for name in ours}
        self._replaced = {name: getattr(loop, "__dict__", {}).get(name) for name in ours}
        for name, function in ours.items():
            setattr(loop, name, function)
        self._loop = loop
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the clock back. What still waits in this event loop goes on by a clock that is ahead."""
        loop, self._loop = self._loop, None
        assert loop is not None
        for name, before in self._replaced.items():
            if before is None:
                delattr(loop, name)
            else:
                setattr(loop, name, before)
        if self._ahead_s:
            # A clock that went back would keep everybody waiting.
            ahead = partial(_ahead, self._originals["time"], self._ahead_s)
            setattr(loop, "time", ahead)  # noqa: B010 - it is a method
        for module, name, original in self._taken:
            setattr(module, name, original)
        self._taken.clear()
        self._timers.clear()

    async def advance(
        self, seconds: float = 0.0, *, minutes: float = 0.0, hours: float = 0.0, days: float = 0.0
    ) -> None:
        """Put the clock forward, and return when everything is done that was due by then.

        Raises:
            ValueError: It would have to go back.
            Restless: What is due does not come to an end.
        """
        seconds += 60 * (minutes + 60 * (hours + 24 * days))
        if seconds < 0:
            raise ValueError("a clock goes forward")
        loop = asyncio.get_running_loop()
        end, grain_s = loop.time() + seconds, min(seconds / _GRAIN, _GRAIN_MAX_S)
        await self.calm()
        while (due := self._next()) is not None and due <= end:
            self.put_forward_to(max(due, min(loop.time() + grain_s, end)))
            await self.calm()
        self.put_forward_to(end)
        await self.calm()

    async def step(self) -> bool:
        """Put the clock forward to when something is due next; return False if nothing ever is."""
        await self.calm()
        if (due := self._next()) is None:
            return False
        self.put_forward_to(due)
        await self.calm()
        return True

    def put_forward_to(self, loop_time: float) -> None:
        """Let the event loop's clock show a time, if that is still to come."""
        behind_s = loop_time - self._loop_time()
        if behind_s <= 0:
            return
        if not self._taken:
            self._take_over_machine()
        self._ahead_s += behind_s

    async def calm(self) -> None:
        """Wait until nothing happens in the event loop any more, unless time passes.

        Raises:
            Restless: It takes too long.
        """
        # One looks, and the others wait for it: they would see each other looking.
        while (looking := self._looking) is not None:
            if await asyncio.shield(looking):
                return
        self._looking = asyncio.get_running_loop().create_future()
        is_calm = False
        try:
            await self._look()
            is_calm = True
        finally:
            looking, self._looking = self._looking, None
            looking.set_result(is_calm)

    async def _look(self) -> None:
        turns, patience_s = 0, self.patience_s
        give_up_at = time.perf_counter() + self.limit_s
        while turns < _CALM or patience_s:
            happened, self._seen_at = self._happened, self._loop_time()
            if turns >= _CALM:
                await asyncio.sleep(patience_s)
                patience_s = 0.0
            else:
                await asyncio.sleep(0 if not self._jobs else 0.001)
            if self._happened > happened + 1 or self._jobs:
                turns, patience_s = 0, self.patience_s
                if time.perf_counter() > give_up_at:
                    raise Restless(f"the event loop has not come to rest for {self.limit_s:g} s")
            else:
                turns += 1

    # -- in the place of the event loop's own ---------------------------------------------

    def _loop_time(self) -> float:
        now: float = self._originals["time"]()
        # The original asks `time`, where that is ours.
        return now if self._taken else now + self._ahead_s

    def _take_over_machine(self) -> None:
        functions = [(time, "time"), (time, "monotonic")]
        if (connector := sys.modules.get("aiohttp.connector")) is not None:
            # By it connections are given up that have been idle, before their server does so.
            functions.append((connector, "monotonic"))
        for module, name in functions:
            original: Callable[[], float] = getattr(module, name)
            self._taken.append((module, name, original))
            setattr(module, name, partial(self._moved, original))
        if (portal_clock := sys.modules.get("bitrix_pull.portal.portal_clock")) is not None:
            self._taken.append((portal_clock, "COMPARE_EVERY_S", portal_clock.COMPARE_EVERY_S))
            setattr(portal_clock, "COMPARE_EVERY_S", _COMPARE_EVERY_S)  # noqa: B010

    def _moved(self, function: Callable[[], float]) -> float:
        return function() + self._ahead_s

    def _call_at(self, when: float, *arguments: Any, **named: Any) -> asyncio.TimerHandle:
        timer: asyncio.TimerHandle = self._originals["call_at"](when, *arguments, **named)
        if len(self._timers) >= _FORGET_AT:
            now = self._loop_time()
            self._timers = [item for item in self._timers if item[0] > now and not item[2].cancelled()]
            heapq.heapify(self._timers)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def _call_soon(self, *arguments: Any, **named: Any) -> asyncio.Handle:
        self._happened += 1
        handle: asyncio.Handle = self._originals["call_soon"](*arguments, **named)
        return handle

    def _run_in_executor(self, *arguments: Any) -> "asyncio.Future[Any]":
        job: asyncio.Future[Any] = self._originals["run_in_executor"](*arguments)
        self._jobs += 1
        job.add_done_callback(self._job_done)
        return job

    def _job_done(self, job: "asyncio.Future[Any]") -> None:
        self._jobs -= 1

    def _next(self) -> float | None:
        """Return when something is due next."""
        while self._timers and (self._timers[0][0] <= self._seen_at or self._timers[0][2].cancelled()):
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None


def _ahead(clock: Callable[[], float], ahead_s: float) -> float:
    return clock() + ahead_s
