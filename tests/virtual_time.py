"""Hours in milliseconds: an event loop whose clock jumps whenever it would wait."""

import asyncio
import contextlib
import os
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from unittest.mock import patch

from bitrix_pull.portal import portal_clock

T = TypeVar("T")

BEGINNING = 1_800_000_000.0
"""Unix time when a virtual clock starts."""

IDLE_LOOKS = 4
"""How often a loop with nothing to do looks at its sockets before its clock jumps.

What is written on loopback can be read at once, and what threads do is waited for.
"""

STEP_S = 0.01
"""How far a clock goes on, in as much real time, while only threads or nothing at all can happen."""

LIMIT_S = 400 * 86_400
"""When everything that still waits fails."""


@dataclass
class _Machine:
    """What sets the clocks of the machine under test apart."""

    slept_s: float = 0.0
    """Time that passed for everybody else while its monotonic clock stood still."""
    stopped_s: float = 0.0
    """Time that passed for all clocks while its process did not run."""
    wall_off_s: float = 0.0
    """By how much its wall clock is wrong."""


_machine = _Machine()


class _Waiting(selectors.DefaultSelector):
    """What a loop waits by: where nothing comes, time goes on.

    Attributes:
        now_us: The time, in whole microseconds, so that sums are exact.
        in_threads: What threads are at work on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_us = 0
        self.in_threads: set[asyncio.Future[Any]] = set()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if (ready := super().select(0)) or timeout == 0:
            return ready
        if timeout is None or self.in_threads:
            step_s = STEP_S if timeout is None else min(STEP_S, timeout)
            if not (ready := super().select(step_s)):
                self._go_on(step_s)
            return ready
        for _ in range(IDLE_LOOKS):
            # The system may have put off to deliver something.
            os.sched_yield()
            if ready := super().select(0):
                return ready
        self._go_on(timeout)
        return []

    def _go_on(self, seconds: float) -> None:
        self.now_us += max(1, round(seconds * 1e6))
        if self.now_us > LIMIT_S * 1e6:
            raise TimeoutError(f"{LIMIT_S / 86_400:.0f} virtual days are over")


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, patches: contextlib.ExitStack) -> None:
        self._waiting = _Waiting()
        self._patches = patches
        super().__init__(self._waiting)

    def time(self) -> float:
        return self._waiting.now_us / 1e6 + _machine.stopped_s

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        future = super().run_in_executor(executor, func, *args)
        self._waiting.in_threads.add(future)
        future.add_done_callback(self._waiting.in_threads.discard)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        # From Python 3.12 on a runner gives threads 300 s, which are over at once here.
        await super().shutdown_default_executor()

    def close(self) -> None:
        super().close()
        self._patches.close()


def new_event_loop(*, naps: bool = False) -> asyncio.AbstractEventLoop:
    """Return a loop in virtual time, which holds until it is closed; sockets on loopback work as ever.

    Args:
        naps: True if the machine sleeps or its clock is set: only then are its clocks
            compared as often as in real life, which would take most of a virtual day.
    """
    global _machine
    _machine = _Machine()
    patches = contextlib.ExitStack()
    loop = _VirtualLoop(patches)
    every_s = portal_clock.COMPARE_EVERY_S if naps else 6 * 3600.0
    # The wall clock is as virtual as the loop's, and known in every thread.
    patches.enter_context(
        patch("time.time", lambda: BEGINNING + loop.time() + _machine.slept_s + _machine.wall_off_s)
    )
    patches.enter_context(patch.object(portal_clock, "COMPARE_EVERY_S", every_s))
    # Or idle connections would be looked after for ever.
    patches.enter_context(patch("aiohttp.connector.monotonic", loop.time))
    return loop


def run(main: Callable[[], Coroutine[Any, Any, T]], *, naps: bool = False) -> T:
    """Run a coroutine function on a ``new_event_loop``; the mark ``virtual_time`` runs a test on one."""
    with asyncio.Runner(loop_factory=partial(new_event_loop, naps=naps)) as runner:
        return runner.run(main())


def unix_time() -> float:
    """Return the true unix time in the running virtual loop."""
    return BEGINNING + asyncio.get_running_loop().time() + _machine.slept_s


def fall_asleep(seconds: float) -> None:
    """Let so much time pass for everybody but this machine's monotonic clock, at once."""
    _machine.slept_s += seconds


def stop_the_process(seconds: float) -> None:
    """Let so much time pass for every clock, while nothing of this machine runs: a frozen container."""
    _machine.stopped_s += seconds


def set_wall_clock(off_s: float) -> None:
    """Let this machine's wall clock be wrong by so much."""
    _machine.wall_off_s = off_s


def stop_the_clocks(seconds: float) -> None:
    """Let so much time pass for everybody while both clocks of this machine stand still."""
    _machine.slept_s += seconds
    _machine.wall_off_s -= seconds
