"""Hours in milliseconds: an event loop whose clock jumps whenever it would wait."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from unittest.mock import patch

import looptime

from bitrix_pull.portal import portal_clock

T = TypeVar("T")

BEGINNING = 1_800_000_000.0
"""Unix time when a virtual clock starts."""

IDLE_LOOKS = 3
"""How often a loop with nothing to do looks at its sockets before its clock jumps.

What is written on loopback can be read at once, and what threads do is waited for. Each
look is a whole turn of the loop, in which a simulated day spends most of its time.
"""


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


def new_event_loop(*, limit_s: float = 400 * 86_400, naps: bool = False) -> asyncio.AbstractEventLoop:
    """Return a loop in virtual time, which holds until it is closed; sockets on loopback work as ever.

    Args:
        limit_s: Virtual seconds after which everything that still waits fails.
        naps: True if the machine sleeps or its clock is set: only then are its clocks
            compared as often as in real life, which would take most of a virtual day.
    """
    global _machine
    _machine = _Machine()
    loop = looptime.patch_event_loop(
        asyncio.SelectorEventLoop(), end=limit_s, idle_step=0.01, noop_cycles=IDLE_LOOKS
    )
    running_time, shut_down, close = loop.time, loop.shutdown_default_executor, loop.close

    async def without_hurry(*_timeout: float) -> None:
        # From Python 3.12 on a runner gives threads 300 s, which are over at once here.
        await shut_down()

    def close_and_undo() -> None:
        close()
        patches.close()

    every_s = portal_clock.COMPARE_EVERY_S if naps else 6 * 3600.0
    patches = contextlib.ExitStack()
    # The wall clock is as virtual as the loop's, and known in every thread.
    patches.enter_context(
        patch("time.time", lambda: BEGINNING + loop.time() + _machine.slept_s + _machine.wall_off_s)
    )
    patches.enter_context(patch.object(portal_clock, "COMPARE_EVERY_S", every_s))
    patches.enter_context(patch.object(loop, "time", lambda: running_time() + _machine.stopped_s))
    patches.enter_context(patch.object(loop, "shutdown_default_executor", without_hurry))
    patches.enter_context(patch.object(loop, "close", close_and_undo))
    # Or idle connections would be looked after for ever.
    patches.enter_context(patch("aiohttp.connector.monotonic", loop.time))
    return loop


def run(
    main: Callable[[], Coroutine[Any, Any, T]], *, limit_s: float = 400 * 86_400, naps: bool = False
) -> T:
    """Run a coroutine function on a ``new_event_loop``; the mark ``virtual_time`` runs a test on one."""
    with asyncio.Runner(loop_factory=partial(new_event_loop, limit_s=limit_s, naps=naps)) as runner:
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
