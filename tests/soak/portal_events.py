"""The portal's own events: each change is followed by a handler, whatever happens in between."""

import asyncio
import itertools
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bitrix_pull import MemoryTokenStore, OAuth, PortalEvent, PullClient, PullOptions, Tokens
from bitrix_pull.emulator import Emulator
from tests import virtual_time
from tests.fault_proxy import FaultProxy
from tests.forked import Process
from tests.portal_events.stand import READING, RESERVING, UPDATE, Program, deal, emulator, rest_calls, running
from tests.soak.crashes import ended, has_worked, until
from tests.soak.outcome import Outcome, percentile
from tests.soak.stand import behind_proxy

PAGE = 50
WAYS = {"reserving": RESERVING, "reading": READING}


# -- everything at once ---------------------------------------------------------------


def portal_events(
    *, seed: int = 1, changes: int = 10_000, records: int = 3_000, cuts: int = 200, burst: int = 250
) -> Outcome:
    """10,000 changes, 200 cuts, 5xx, 429, expired tokens: last states handled, calls <= 2.5 x the least."""
    outcome = Outcome()
    for way, reservation in WAYS.items():

        async def main(way: str = way, reservation: str = reservation) -> None:
            await _everything(outcome, way, reservation, random.Random(seed), changes, records, cuts, burst)

        virtual_time.run(main)
    return outcome


async def _everything(
    outcome: Outcome,
    way: str,
    reservation: str,
    rng: random.Random,
    changes: int,
    records: int,
    cuts: int,
    burst: int,
) -> None:
    state, seen = Counter[int](), Counter[int]()
    handled, least = 0, 0
    emu = emulator(reservation)
    emu.portal.token_life_s = 300.0
    async with emu, FaultProxy.before(emu.portal.address) as proxy:
        behind_proxy(emu, proxy)
        pull = _of_application(emu)

        @pull.on_portal_event(UPDATE, concurrency=5)
        async def changed(event: PortalEvent[Any]) -> None:
            nonlocal handled
            assert event.id is not None
            # What it would fetch first.
            fetched = state[event.id]
            await asyncio.sleep(rng.choice([0, 0, 0.01, 0.3]))
            seen[event.id] = max(seen[event.id], fetched)
            handled += 1

        async with pull:
            bursts = math.ceil(changes / burst)
            for number in range(bursts):
                named: set[int] = set()
                for _ in range(min(burst, changes - number * burst)):
                    record = rng.randrange(1, records + 1)
                    named.add(record)
                    state[record] += 1
                    emu.portal.change(UPDATE, deal(record))
                    if rng.random() < 0.1:
                        await asyncio.sleep(rng.uniform(0, 0.05))
                # Read or reserve, and delete: a page at a time.
                least += 2 * math.ceil(len(named) / PAGE)
                for _ in range(cuts // bursts):
                    await asyncio.sleep(rng.uniform(1, 15))
                    for line in proxy.lines:
                        line.cut(rng.choice(["fin", "reset"]))
                _spoil(emu, rng)
                await asyncio.sleep(rng.uniform(5, 40))
            async with asyncio.timeout(1_000):
                while emu.portal.offline.records:
                    await asyncio.sleep(1)
        outcome.exactly(0, **{f"{way}_unseen": sum(state[record] > seen[record] for record in state)})
        outcome.note(**{f"{way}_handled": handled, f"{way}_calls": rest_calls(emu), f"{way}_least": least})
        outcome.at_most(2.5, **{f"{way}_calls_by_least": rest_calls(emu) / least})


def _spoil(emu: Emulator, rng: random.Random) -> None:
    """Let the portal fail in one of its ways."""
    match rng.randrange(4):
        case 0:
            emu.portal.faults.fail_rest(rng.randrange(1, 3), 502, applied=rng.random() < 0.5)
        case 1:
            emu.portal.faults.fail_rest(1, 503, '{"error":"QUERY_LIMIT_EXCEEDED"}', "application/json")
        case 2:
            method = rng.choice(["event.offline.get", "event.offline.list", "batch"])
            emu.portal.limits.exhaust(method, int(emu.portal.now()) + rng.randrange(2, 10))
        case _:
            pass


def _of_application(emu: Emulator, **options: Any) -> PullClient:
    """Return a client whose tokens expire and are refreshed."""
    tokens = Tokens(
        access_token=emu.portal.issue_token(1, emu.portal.token_life_s),
        refresh_token=emu.portal.issue_refresh_token(),
        # Nobody but the portal knows when.
        expires=None,
    )
    auth = OAuth(
        emu.portal_url,
        client_id=emu.portal.client_id,
        client_secret=emu.portal.client_secret,
        tokens=MemoryTokenStore(tokens),
        oauth_url=emu.oauth_url,
    )
    return PullClient(auth, options=PullOptions(**options))


# -- announcements --------------------------------------------------------------------


def latency(*, changes: int = 300, rest_s: float = 0.1, seed: int = 1) -> Outcome:
    """From change to handler: p50 <= 0.3 s over the portal's own REST time, where it reserves."""
    outcome = Outcome()
    for way, reservation in WAYS.items():
        took = asyncio.run(_latencies(reservation, changes, rest_s, random.Random(seed)))
        figures = {f"{way}_p50_s": percentile(took, 50), f"{way}_p99_s": percentile(took, 99)}
        outcome.note(**figures)
        # By reading, the second of the change must be over first.
        outcome.in_time(
            0.3 if reservation == RESERVING else 1.8,
            **{f"{way}_p50_over_rest_s": percentile(took, 50) - rest_s},
        )
    return outcome


async def _latencies(reservation: str, changes: int, rest_s: float, rng: random.Random) -> list[float]:
    async with Emulator() as emu:
        emu.portal.features["rest_offline_extended"] = reservation
        began: dict[int, float] = {}
        took: list[float] = []
        pull = _of_application(emu)

        @pull.on_portal_event(UPDATE)
        async def changed(event: PortalEvent[Any]) -> None:
            assert event.id is not None
            took.append(time.perf_counter() - began[event.id])

        async with pull:
            await asyncio.sleep(1)
            emu.portal.faults.delay_s = rest_s
            for number in range(1, changes + 1):
                began[number] = time.perf_counter()
                emu.portal.change(UPDATE, deal(number))
                await asyncio.sleep(rng.uniform(0.3, 1.2))
            await until(lambda: len(took) == changes)
        return took


def lost_announcements(*, changes: int = 200, interval_s: float = 300.0, seed: int = 1) -> Outcome:
    """All announcements lost: handled within the safety interval."""
    outcome, rng = Outcome(), random.Random(seed)

    async def main(reservation: str) -> float:
        async with (
            emulator(reservation) as emu,
            running(Program(emu, portal_events_interval_s=interval_s)) as program,
        ):
            emu.portal.faults.lose_announcements = True
            changed_at: dict[int, float] = {}
            for number in range(1, changes + 1):
                changed_at[number] = virtual_time.unix_time()
                emu.portal.change(UPDATE, deal(number))
                await asyncio.sleep(rng.uniform(0, 60))
            await program.handled(changes, within_s=2 * interval_s)
            handled = zip(program.events, program.handled_at, strict=True)
            return max(at - changed_at[event.id] for event, at in handled if event.id is not None)

    for way, reservation in WAYS.items():
        latest_s = virtual_time.run(lambda reservation=reservation: main(reservation))  # type: ignore[misc]
        outcome.at_most(interval_s + 5, **{f"{way}_latest_s": latest_s})
    return outcome


# -- several processes ----------------------------------------------------------------


def two(*, changes: int = 5_000, records: int = 500, cuts: int = 50, seed: int = 1) -> Outcome:
    """Two processes, one application: nothing handled by neither; by reservation nothing by both."""
    outcome = Outcome()
    for way, reservation in WAYS.items():

        async def main(way: str = way, reservation: str = reservation) -> None:
            rng = random.Random(seed)
            emu = emulator(reservation)
            async with emu, FaultProxy.before(emu.portal.address) as proxy:
                behind_proxy(emu, proxy)
                async with running(Program(emu)) as one, running(Program(emu)) as other:
                    one.takes_s, other.takes_s = 0.01, 0.02
                    last_at: dict[int, float] = {}
                    for number in range(changes):
                        record = rng.randrange(1, records + 1)
                        last_at[record] = virtual_time.unix_time()
                        emu.portal.change(UPDATE, deal(record))
                        await asyncio.sleep(rng.choice([0, 0, 0, 0.1, 1]))
                        if number % (changes // cuts) == 0:
                            for line in itertools.islice(proxy.lines, rng.randrange(3)):
                                line.cut("reset")
                    async with asyncio.timeout(1_000):
                        while emu.portal.offline.records:
                            await asyncio.sleep(1)
            begun: dict[int | None, float] = {}
            for program in (one, other):
                for event, at in zip(program.events, program.handled_at, strict=True):
                    begun[event.id] = max(begun.get(event.id, 0.0), at - program.takes_s)
            outcome.exactly(
                0, **{f"{way}_by_neither": sum(begun.get(number, 0.0) < at for number, at in last_at.items())}
            )
            outcome.note(**{f"{way}_one": len(one.events), f"{way}_other": len(other.events)})
            if reservation == RESERVING:
                # Each record of the queue went to one of them.
                twice = len(one.events) + len(other.events) - emu.portal.offline.created
                outcome.exactly(0, **{f"{way}_by_both": twice})

        virtual_time.run(main)
    return outcome


def killed(*, kills: int = 100, seed: int = 1, deals: int = 40, rate: float = 30.0) -> Outcome:
    """SIGKILL in mid-drain, 100 times, both ways: each change handled to its end, nothing left reserved."""
    outcome = Outcome()
    for way, reservation in WAYS.items():
        asyncio.run(_kill_again_and_again(outcome, way, reservation, random.Random(seed), kills, deals, rate))
    return outcome


async def _kill_again_and_again(
    outcome: Outcome, way: str, reservation: str, rng: random.Random, kills: int, deals: int, rate: float
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "handled"
        log.touch()
        async with Emulator() as emu:
            emu.portal.features["rest_offline_extended"] = reservation
            for _ in range(deals):
                emu.portal.deals.add({"OPPORTUNITY": 0})
            # What is not bound is not queued.
            emu.portal.offline.bindings.append((UPDATE, ""))
            state = Counter[int]()
            changing = asyncio.create_task(_change(emu, state, rng, deals, rate))
            left_reserved = 0
            for _ in range(kills):
                async with _victim(emu, log) as process:
                    size = log.stat().st_size
                    await until(lambda size=size, process=process: has_worked(log, size, process))  # type: ignore[misc]
                    await asyncio.sleep(rng.uniform(0, 0.3))
                    outcome.promise("each process works", not ended(process))
                left_reserved += sum(bool(record.process_id) for record in emu.portal.offline.records)
            changing.cancel()
            async with _victim(emu, log):
                await until(lambda: not emu.portal.offline.records, every_s=0.2, within_s=300)
            left = len(emu.portal.offline.records)
        done = Counter[int]()
        for line in log.read_text().splitlines():
            number, version = map(int, line.split())
            done[number] = max(done[number], version)
    outcome.exactly(0, **{f"{way}_unhandled": sum(state[number] > done[number] for number in state)})
    outcome.exactly(0, **{f"{way}_left_in_the_queue": left})
    outcome.note(
        **{f"{way}_kills": kills, f"{way}_changes": state.total(), f"{way}_found_reserved": left_reserved}
    )


async def _change(emu: Emulator, state: Counter[int], rng: random.Random, deals: int, rate: float) -> None:
    while True:
        number = rng.randrange(1, deals + 1)
        state[number] += 1
        emu.portal.deals.update(number, {"OPPORTUNITY": state[number]})
        await asyncio.sleep(rng.expovariate(rate))


@asynccontextmanager
async def _victim(emu: Emulator, log: Path) -> AsyncIterator[Process]:
    process = await Process.start("tests.soak.portal_events_victim", emu.portal_url, emu.token, str(log))
    try:
        yield process
    finally:
        if not ended(process):
            process.kill()
        await process.wait()


# -- handlers that fail ---------------------------------------------------------------


def poisoned(*, changes: int = 2_000, records: int = 400, seed: int = 1) -> Outcome:
    """A handler that fails for good: its record is marked as failed, told once; the others go on."""
    outcome = Outcome()
    for way, reservation in WAYS.items():

        async def main(way: str = way, reservation: str = reservation) -> None:
            rng = random.Random(seed)
            letters = Counter[int | None]()
            async with emulator(reservation) as emu:
                program = Program(
                    emu,
                    fail=lambda event: event.id is not None and event.id % 20 == 0,
                    retries=1,
                    on_dead_letter=lambda event, error: letters.update([event.id]),
                )
                async with running(program):
                    for _ in range(changes):
                        # What is poison changes once: each further change is another attempt.
                        number = rng.randrange(1, records + 1)
                        if number % 20 or not letters[number]:
                            emu.portal.change(UPDATE, deal(number))
                        await asyncio.sleep(rng.choice([0, 0, 0.05]))
                    async with asyncio.timeout(1_000):
                        while any(not record.failed for record in emu.portal.offline.records):
                            await asyncio.sleep(1)
                    await asyncio.sleep(1_000)
                marked = sum(record.failed for record in emu.portal.offline.records)
            outcome.exactly(len(letters), **{f"{way}_marked": marked})
            outcome.exactly(letters.total(), **{f"{way}_told": len(program.failures)})
            outcome.exactly(
                0, **{f"{way}_poison_handled": sum(event.id in letters for event in program.events)}
            )
            outcome.note(**{f"{way}_handled": len(program.events)})

        virtual_time.run(main)
    return outcome
