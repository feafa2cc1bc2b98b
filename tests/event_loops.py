"""The event loops on which this package runs."""

import asyncio
import importlib.util
import sys
from collections.abc import Callable

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

LOOPS: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
"""Those that there are here, by name; the marker ``every_loop`` runs a test on each."""

if sys.version_info >= (3, 12):

    def _eager() -> asyncio.AbstractEventLoop:
        """Return one whose tasks begin to run while they are made."""
        loop = asyncio.new_event_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        return loop

    LOOPS["eager"] = _eager

if importlib.util.find_spec("uvloop") is not None:
    from uvloop import new_event_loop

    LOOPS["uvloop"] = new_event_loop
