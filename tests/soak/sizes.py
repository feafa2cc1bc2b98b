"""Nothing is too large to arrive: replays of a busy night, and live frames that hold a burst."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import product
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
from tests.soak.flood import FloodServer, resident_bytes
from tests.soak.outcome import Outcome

MIB = 1024 * 1024
FORMS = ((3, True), (4, True), (4, False))
"""Versions, and whether protobuf is spoken."""

TRANSPORTS: tuple[Transport, ...] = ("websocket", "long_polling")

LOOK_S = 0.02

SLOW_LINK_S = 10.0
"""From when on it is the link that takes the time, and not the machine."""


@dataclass(slots=True)
class Taken:
    """What a client got, and what it took to hold it."""

    numbers: Counter[int] = field(default_factory=Counter[int])
    dropped: int = 0
    left_live: int = 0
    most_bytes: int = 0


@asynccontextmanager
async def _taking(taken: Taken, pull: PullClient) -> AsyncIterator[None]:
    @pull.on("flood")
    def handle(event: PullEvent[Any]) -> None:
        taken.numbers[event.params["n"]] += 1

    async def listen() -> None:
        async for notice in pull.notices():
            taken.dropped += isinstance(notice, MessageDropped)
            taken.left_live += isinstance(notice, StateChanged) and notice.previous is State.LIVE

    async def measure() -> None:
        while True:
            taken.most_bytes = max(taken.most_bytes, resident_bytes())
            await asyncio.sleep(LOOK_S)

    tasks = [asyncio.create_task(listen()), asyncio.create_task(measure())]
    await asyncio.sleep(0)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def large_replay(
    *,
    replays: Sequence[tuple[int, int]] = ((22, 900_000), (20_000, 1_000), (222, 900_000)),
    bytes_per_s: int = 1_000_000,
    forms: Sequence[tuple[int, bool]] = FORMS,
) -> Outcome:
    """22 of 900 KB, 20,000 of 1 KB, 200 MB, at 1 MB/s: once each, 24 MiB over idle, live in 1.5 x that."""
    outcome = Outcome()
    for (version, protobuf), transport, (count, size) in product(forms, TRANSPORTS, replays):
        options = PullOptions(transport=transport, protobuf=protobuf)
        asyncio.run(_replay(outcome, version, options, count, size, bytes_per_s))
    return outcome


async def _replay(
    outcome: Outcome, version: int, options: PullOptions, count: int, size: int, bytes_per_s: int
) -> None:
    server = await FloodServer.start(version=version)
    store, auth = MemoryStore(), AccessToken(server.portal_url, server.token)
    loop = asyncio.get_running_loop()
    try:
        async with PullClient(auth, resume=store, options=options) as pull:
            async with pull.subscribe("flood") as events:
                await server.flood(1, 1, 10)
                await anext(events)
            gc.collect()
            idle = resident_bytes()
        await server.flood(10_000, count, size)
        await server.link(bytes_per_s)
        pull, taken = PullClient(auth, resume=store, options=options), Taken()
        link_s = count * size / bytes_per_s
        async with _taking(taken, pull):
            began_at = loop.time()
            running = asyncio.create_task(pull.run())
            await asyncio.sleep(0)
            await pull.wait_live(timeout=5 * link_s + 60)
            live_after = loop.time() - began_at
            while len(taken.numbers) < count and loop.time() < began_at + 5 * link_s + 60:
                await asyncio.sleep(0.1)
            # Whatever the audit brings once more has come by then.
            await asyncio.sleep(6)
            await pull.close()
            await asyncio.wait({running})
    finally:
        await server.stop()
    before = outcome.figures.get
    outcome.exactly(
        0,
        lost=before("lost", 0) + count - len(taken.numbers),
        doubled=before("doubled", 0) + taken.numbers.total() - len(taken.numbers),
    )
    outcome.note(replays=before("replays", 0) + 1)
    outcome.at_most(
        24, peak_over_idle_mib=max(before("peak_over_idle_mib", 0.0), (taken.most_bytes - idle) / MIB)
    )
    if link_s >= SLOW_LINK_S:
        longest = max(before("live_by_link_time", 0.0), (live_after - 1) / link_s)
        outcome.at_most(1.5, live_by_link_time=longest)


def large_live(
    *, seconds: float = 40.0, bursts: int = 3, forms: Sequence[tuple[int, bool]] = (*FORMS, (5, True))
) -> Outcome:
    """150/s of 20 KiB, bursts of 8 x 400 kB, one of 3 MB: lost 0 but that one, which is told; always live."""
    outcome = Outcome()
    for (version, protobuf), transport in product(forms, TRANSPORTS):
        if version < 5 or transport == "websocket":
            options = PullOptions(transport=transport, protobuf=protobuf)
            asyncio.run(_live(outcome, version, options, seconds, bursts))
    return outcome


async def _live(outcome: Outcome, version: int, options: PullOptions, seconds: float, bursts: int) -> None:
    server, taken = await FloodServer.start(version=version), Taken()
    pull = PullClient(AccessToken(server.portal_url, server.token), options=options)
    steady = int(150 * seconds)
    try:
        async with _taking(taken, pull), pull:
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
    before = outcome.figures.get
    expected = {*range(last - 1), last}
    outcome.exactly(
        0,
        lost=before("lost", 0) + len(expected - set(taken.numbers)),
        doubled=before("doubled", 0) + taken.numbers.total() - len(taken.numbers),
        left_live=before("left_live", 0) + left_live,
    )
    outcome.promise("the one that is too large is told, once", taken.dropped == 1)
    outcome.note(received=before("received", 0) + len(taken.numbers))
