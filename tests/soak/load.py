"""More than handlers can take, and more than any process should remember."""

import asyncio
import contextlib
import gc
import os
import tracemalloc
from typing import Any, cast

from bitrix_pull import AccessToken, EventsDropped, PullClient, PullEvent, PullOptions
from bitrix_pull.options import Overflow
from tests import virtual_time
from tests.connection.listening import emulator
from tests.soak.flood import FloodServer, resident_bytes
from tests.soak.outcome import Outcome

MIB = 1024 * 1024
IDLE_S = 0.5


def overload(
    *,
    overflow: str = "pause",
    rate: int = 5_000,
    handled: int = 100,
    seconds: float = 20.0,
    text_bytes: int = 100,
) -> Outcome:
    """5,000 messages/s into a handler of 100/s: memory <= 32 MiB over idle, nothing dropped silently.

    The emulator runs in a process of its own, as the messages that it keeps are its business.
    With "pause" all must arrive in the end, so once the flood is over the handler is let loose.
    """
    outcome = Outcome()
    asyncio.run(_overload(outcome, cast("Overflow", overflow), rate, handled, seconds, text_bytes))
    return outcome


async def _overload(
    outcome: Outcome, overflow: Overflow, rate: int, per_s: int, seconds: float, text_bytes: int
) -> None:
    server = await FloodServer.start()
    total = int(rate * seconds)
    # Small, as it is measured too.
    seen, handled, doubled, first_dropped = bytearray(total), 0, 0, 0
    is_flooded = True
    pull = PullClient(AccessToken(server.portal_url, server.token), options=PullOptions(overflow=overflow))

    @pull.on("flood")
    async def handle(event: PullEvent[Any]) -> None:
        nonlocal handled, doubled
        if seen[event.params["n"]]:
            doubled += 1
        else:
            seen[event.params["n"]] = 1
            handled += 1
        if is_flooded:
            await asyncio.sleep(1 / per_s)

    async def watch() -> None:
        nonlocal first_dropped
        async for notice in pull.notices():
            first_dropped += isinstance(notice, EventsDropped)

    watching = asyncio.create_task(watch())
    async with pull:
        await asyncio.sleep(IDLE_S)
        gc.collect()
        idle, most = resident_bytes(), 0
        flood = asyncio.create_task(server.flood(rate, total, text_bytes))
        while not flood.done():
            await asyncio.sleep(0.05)
            most = max(most, resident_bytes())
        await asyncio.sleep(1)
        is_flooded = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds + 60):
                while handled + pull.health().dropped < total:
                    await asyncio.sleep(0.1)
                    most = max(most, resident_bytes())
        await asyncio.sleep(IDLE_S)
        dropped = pull.health().dropped
    watching.cancel()
    await server.stop()
    outcome.note(published=total, handled=handled, dropped=dropped, notices=first_dropped)
    outcome.exactly(0, unaccounted=total - handled - dropped, doubled=doubled)
    if overflow == "pause":
        outcome.exactly(0, lost=total - handled)
    else:
        outcome.promise("dropping is told", (first_dropped > 0) == (dropped > 0))
    outcome.at_most(32, memory_over_idle_mib=(most - idle) / MIB)


def growth(
    *, messages: int = 1_000_000, reconnects: int = 5_000, warm_up: int = 30, mib: float = 2.0
) -> Outcome:
    """5,000 reconnects and 1,000,000 messages: memory growth <= 2 MiB, descriptors and tasks as before.

    Memory is what Python has allocated (``tracemalloc``) in this client's own files and in
    those of the libraries under it, but the emulator's, which is in the same process.
    """
    outcome = Outcome()

    async def main() -> None:
        count = 0

        # Without renewals, which would be connects too.
        async with emulator(channel_life_s=10**8) as emu:
            emu.push.gather_s = 0.01
            pull = PullClient(AccessToken(emu.portal_url, emu.token))

            @pull.on("x")
            def handle(event: PullEvent[Any]) -> None:
                nonlocal count
                count += 1

            async def some(messages: int, reconnects: int) -> None:
                sent = 0
                each = messages // max(reconnects, 1)
                for _ in range(reconnects):
                    await pull.wait_live()
                    for start in range(0, each, 50):
                        for _ in range(min(50, each - start)):
                            # Kept for a minute only: what the server keeps is not the client's memory.
                            emu.portal.send("x", {"n": 0}, expiry_s=60)
                            sent += 1
                        await asyncio.sleep(0.02)
                    await asyncio.sleep(32)
                    await emu.push.disconnect_all()
                    await asyncio.sleep(0.05)
                    # What was asked is the emulator's memory too, though aiohttp has allocated it.
                    emu.journal.clear()
                before = count
                await asyncio.sleep(60)
                outcome.promise("every message arrives", count > 0 and count == before)

            serving = asyncio.create_task(pull.run())
            await asyncio.sleep(0)
            # What is remembered on purpose (10,000 mids) is filled up before the first look.
            await some(500 * warm_up, warm_up)
            tracemalloc.start()
            await some(500 * warm_up, warm_up)
            warm, connects = count, pull.health().connects
            before = _footprint()
            await some(messages, reconnects)
            after = _footprint()
            tracemalloc.stop()
            await pull.close()
            await asyncio.wait({serving})
            outcome.exactly(messages // reconnects * reconnects, received=count - warm)
            outcome.exactly(reconnects, reconnects=pull.health().connects - connects)
        outcome.at_most(mib, growth_mib=(after[0] - before[0]) / MIB)
        outcome.at_most(0, more_descriptors=after[1] - before[1], more_tasks=after[2] - before[2])

    virtual_time.run(main)
    return outcome


def _footprint() -> tuple[int, int, int]:
    """Return bytes allocated outside of the emulator, open descriptors, and tasks."""
    gc.collect()
    snapshot = tracemalloc.take_snapshot().filter_traces(
        [
            tracemalloc.Filter(False, "*/bitrix_pull/emulator/*"),
            tracemalloc.Filter(False, tracemalloc.__file__),
        ]
    )
    size = sum(statistic.size for statistic in snapshot.statistics("filename"))
    return size, len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
