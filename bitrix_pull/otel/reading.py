"""Reads figures where they arise: on the event loop, whichever thread an SDK collects in.

What is read belongs to the loop: it may change while another thread looks at it, and looking at
an inbox makes it count what was finished with.
"""

import asyncio
import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from bitrix_pull.otel.attributes import Attributes

Loop = asyncio.AbstractEventLoop

Readings = dict[str, list[tuple[float, Attributes]]]
"""Values and attributes by the names of the metrics."""

_WAIT_S: Final = 1.0
"""How long a collection waits for an event loop that is busy; then it gives what it has. It may be
busy with waiting for this: an SDK that is shut down in a coroutine collects once more elsewhere."""

_GOOD_FOR_S: Final = 1.0
"""How long what was read may be given, to who has not had it yet."""


class Source(Protocol):
    """Something that figures are read of."""

    readings: Readings
    """What was read last."""

    @property
    def loop(self) -> Loop | None:
        """The event loop that it lives on, or None."""
        ...

    def read(self) -> Iterator[None]:
        """Read it anew, and yield now and then, that others may run."""
        ...


class Reader:
    """Reads all sources once a collection, though each metric is asked for on its own.

    Args:
        sources: Gives those that there are.
    """

    def __init__(self, sources: Callable[[], Iterable[Source]]) -> None:
        self._sources = sources
        self._had: set[str] = set()
        self._read_at = 0.0

    def values(self, name: str) -> Iterator[tuple[float, Attributes]]:
        """Yield the values of a metric with their attributes."""
        # Who asks for the same again collects again.
        now = time.monotonic()
        if name in self._had or now - self._read_at > _GOOD_FOR_S:
            self._had = {name}
            self._read()
            self._read_at = time.monotonic()
        self._had.add(name)
        for source in list(self._sources()):
            yield from source.readings.get(name, ())

    def _read(self) -> None:
        by_loop: dict[Loop | None, list[Source]] = {}
        for source in list(self._sources()):
            by_loop.setdefault(source.loop, []).append(source)
        for loop, sources in by_loop.items():
            if loop is None or not loop.is_running() or loop is _running():
                for source in sources:
                    for _ in source.read():
                        pass
            else:
                _read_on(loop, sources)


def _running() -> Loop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _read_on(loop: Loop, sources: Iterable[Source]) -> None:
    async def read() -> None:
        for source in sources:
            for _ in source.read():
                await asyncio.sleep(0)

    reading = read()
    try:
        done = asyncio.run_coroutine_threadsafe(reading, loop)
    except RuntimeError:
        reading.close()  # The loop was closed meanwhile.
        return
    try:
        done.result(_WAIT_S)
    except (TimeoutError, concurrent.futures.CancelledError):
        with contextlib.suppress(RuntimeError):
            done.cancel()
