"""Hours in milliseconds: an event loop whose clock jumps whenever it would wait."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import looptime

T = TypeVar("T")

BEGINNING = 1_800_000_000.0
"""Unix time when a virtual clock starts."""


def run(main: Callable[[], Coroutine[Any, Any, T]], *, limit_s: float = 400 * 86_400) -> T:
    """Run a coroutine function in virtual time; sockets on loopback work as ever.

    Args:
        main: What to run.
        limit_s: Virtual seconds after which everything that still waits fails.
    """
    loop = looptime.patch_event_loop(asyncio.SelectorEventLoop(), end=limit_s, idle_step=0.01)
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(main())
    finally:
        # The runner has set None as the thread's loop and closed ours.
        assert loop.is_closed()


def unix_time() -> float:
    """Return the unix time that the running virtual clock shows."""
    return BEGINNING + asyncio.get_running_loop().time()
