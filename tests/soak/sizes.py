"""Nothing is too large to arrive: replays of a busy night, and live frames that hold a burst."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bitrix_pull import (
    AccessToken,
    MemoryStore,
    MessageDropped,
    PullClient,
    PullEvent,
    PullOptions,
    State,
    StateChanged,
)
from bitrix_pull.options import Transport
from tests.benchmarks.comparison import Figures, peak_mib, resident_mib
from tests.benchmarks.harness import run_apart
from tests.soak.flood import FloodServer
from tests.soak.outcome import Outcome

Way = tuple[int, bool, Transport]
"""The version, whether protobuf is spoken, the transport."""

WAYS: Sequence[Way] = (
    (3, True, "websocket"),
    (4, True, "websocket"),
    (4, False, "websocket"),
    (3, True, "long_polling"),
    (4, True, "long_polling"),
    (4, False, "long_polling"),
)

BY_CALL: Way = (5, True, "websocket")
"""Where the server's own ping waits behind a replay, and it gives up a client that does not answer."""

SLOW_LINK_S = 10.0
"""From when on it is the link that takes the time, and not the machine."""


@dataclass(slots=True)
class Taken:
    """What a client got."""

    numbers: Counter[int] = field(default_factory=Counter[int])
    dropped: int = 0
    left_live: int = 0


@asynccontextmanager
async def _taking(taken: Taken, pull: PullClient) -> AsyncIterator[None]:
    @pull.on("flood")
    def handle(event: PullEvent[Any]) -> None:
        taken.numbers[event.params["n"]] += 1

    async def listen() -> None:
        async for notice in pull.notices():
            taken.dropped += isinstance(notice, MessageDropped)
            taken.left_live += isinstance(notice, StateChanged) and notice.previous is State.LIVE

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        listening.cancel()


def large_replay(
    *,
    replays: Sequence[tuple[int, int]] = ((22, 900_000), (20_000, 1_000), (222, 900_000)),
    bytes_per_s: int = 1_000_000,
    ways: Sequence[Way] = WAYS,
) -> Outcome:
    """22 of 900 KB, 20,000 of 1 KB, 200 MB, at 1 MB/s: once each, 24 MiB over idle, live in 1.5 x that."""
    outcome = Outcome()
    for count, size in replays:
        for figures in _apart(partial(_replay, count, size, bytes_per_s), ways):
            outcome.exactly(0, lost=_sum(outcome, figures, "lost"), doubled=_sum(outcome, figures, "doubled"))
            outcome.note(connects=_most(outcome, figures, "connects"))
            outcome.at_most(24, peak_over_idle_mib=_most(outcome, figures, "peak_over_idle_mib"))
            outcome.note(received=_sum(outcome, figures, "received"))
            if figures["link_s"] >= SLOW_LINK_S:
                outcome.at_most(1.5, live_by_link_time=_most(outcome, figures, "live_by_link_time"))
    return outcome


def large_live(*, seconds: float = 40.0, bursts: int = 3, ways: Sequence[Way] = (*WAYS, BY_CALL)) -> Outcome:
    """150/s of 20 KiB, bursts of 8 x 400 kB, one of 3 MB: lost 0 but that one, which is told; always live."""
    outcome = Outcome()
    for figures in _apart(partial(_live, seconds, bursts), ways):
        outcome.exactly(0, lost=_sum(outcome, figures, "lost"), doubled=_sum(outcome, figures, "doubled"))
        outcome.exactly(0, left_live=_sum(outcome, figures, "left_live"))
        outcome.promise("the one that is too large is told, once", figures["dropped"] == 1)
        outcome.note(received=_sum(outcome, figures, "received"))
        outcome.note(peak_over_idle_mib=_most(outcome, figures, "peak_over_idle_mib"))
    return outcome


def _apart(measure: Callable[[int, bool, Transport], Figures], ways: Sequence[Way]) -> Iterable[Figures]:
    """Measure all ways at once; each client in a fresh process, whose memory is its own."""
    with ThreadPoolExecutor(len(ways)) as pool:
        yield from pool.map(run_apart, [partial(measure, *way) for way in ways])


def _sum(outcome: Outcome, figures: Figures, name: str) -> float:
    before: float = outcome.figures.get(name, 0)
    return before + figures[name]


def _most(outcome: Outcome, figures: Figures, name: str) -> float:
    before: float = outcome.figures.get(name, 0)
    return max(before, figures[name])


# -- in a process of its own ------------------------------------------------------


def _replay(
    count: int, size: int, bytes_per_s: int, version: int, protobuf: bool, transport: Transport
) -> Figures:
    options = PullOptions(transport=transport, protobuf=protobuf)
    return asyncio.run(_replayed(version, options, count, size, bytes_per_s))


async def _replayed(version: int, options: PullOptions, count: int, size: int, bytes_per_s: int) -> Figures:
    server = await FloodServer.start(version=version)
    store, auth = MemoryStore(), AccessToken(server.portal_url, server.token)
    loop = asyncio.get_running_loop()
    try:
        async with PullClient(auth, resume=store, options=options) as pull:
            async with pull.subscribe("flood") as events:
                await server.flood(1, 1, 10)
                await anext(events)
            gc.collect()
            idle_mib = resident_mib()
        await server.flood(10_000, count, size)
        await server.link(bytes_per_s)
        pull, taken = PullClient(auth, resume=store, options=options), Taken()
        async with _taking(taken, pull):
            weighing = asyncio.create_task(server.replayed())
            running = asyncio.create_task(pull.run())
            link_s = await weighing / bytes_per_s
            began_at = loop.time()
            await pull.wait_live(timeout=5 * link_s + 60)
            live_after = loop.time() - began_at
            while len(taken.numbers) < count and loop.time() < began_at + 5 * link_s + 60:
                await asyncio.sleep(0.1)
            # Whatever the audit brings once more has come by then.
            await asyncio.sleep(6)
            connects = pull.health().connects
            await pull.close()
            await asyncio.wait({running})
    finally:
        await server.stop()
    return {
        "lost": count - len(taken.numbers),
        "doubled": taken.numbers.total() - len(taken.numbers),
        "received": len(taken.numbers),
        "connects": connects,
        "peak_over_idle_mib": peak_mib() - idle_mib,
        "link_s": link_s,
        "live_by_link_time": live_after / link_s,
    }


def _live(seconds: float, bursts: int, version: int, protobuf: bool, transport: Transport) -> Figures:
    options = PullOptions(transport=transport, protobuf=protobuf)
    return asyncio.run(_kept_up(version, options, seconds, bursts))


async def _kept_up(version: int, options: PullOptions, seconds: float, bursts: int) -> Figures:
    server, taken = await FloodServer.start(version=version), Taken()
    pull = PullClient(AccessToken(server.portal_url, server.token), options=options)
    steady = int(150 * seconds)
    try:
        async with _taking(taken, pull), pull:
            idle_mib = resident_mib()
            await server.flood(150, steady, 20 * 1024)
            await server.flood(0.5, 8 * bursts, 400_000, at_once=8)
            await server.flood(1, 1, 3_000_000)
            await server.flood(1, 1, 10)
            last, loop = steady + 8 * bursts + 1, asyncio.get_running_loop()
            deadline = loop.time() + 60
            while not taken.numbers[last] and loop.time() < deadline:
                await asyncio.sleep(0.05)
            await asyncio.sleep(6)
            left_live = taken.left_live
    finally:
        await server.stop()
    expected = {*range(last - 1), last}
    return {
        "lost": len(expected - set(taken.numbers)),
        "doubled": taken.numbers.total() - len(taken.numbers),
        "received": len(taken.numbers),
        "left_live": left_live,
        "dropped": taken.dropped,
        "peak_over_idle_mib": peak_mib() - idle_mib,
    }
