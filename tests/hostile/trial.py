"""One row of a table: a client, an attack, and what must hold afterwards whatever it was."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from tests.hostile.server import HostileServer
from tests.hostile.victim import AFTER, Report, Role, Victim, listen

MEMORY_MIB = 16.0
"""Most memory over idle that an attack may cost."""

THOROUGH = "HOSTILE_THOROUGH" in os.environ
"""Whether every attack is tried in every place, and not in one each."""

STALL_MS = 50.0
"""Longest that an attack may keep the event loop busy, in processor time, alone on its machine."""

STALL_YARDSTICKS = 100.0
"""The same by what a fixed piece of work took the same process just before or after.

That is what the suite holds: even processor time grows where programs share cores and caches.
It is some ten times what is promised, as it grows several times over where coverage is measured.
"""

_AT_ONCE = 1 if THOROUGH else 4
"""Rows that are tried at the same time."""

T = TypeVar("T")
P = TypeVar("P")


def rows(attacks: Mapping[str, T], places: Iterable[P]) -> dict[str, tuple[T, P]]:
    """Return each attack with each place, or with the next one in turn."""
    places = list(places)
    pairs = itertools.product(attacks, places) if THOROUGH else zip(attacks, itertools.cycle(places))
    return {f"{name}, {place}": (attacks[name], place) for name, place in pairs}


async def try_all(table: Mapping[str, T], check: Callable[[T], Awaitable[None]]) -> None:
    """Check every row of a table, some at a time: most of them wait for deadlines and backoffs."""
    free = asyncio.Semaphore(_AT_ONCE)

    async def attempt(name: str, row: T) -> None:
        async with free:
            try:
                await check(row)
            except Exception as error:
                error.add_note(f"row: {name}")
                raise

    outcomes = await asyncio.gather(*itertools.starmap(attempt, table.items()), return_exceptions=True)
    failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    if failures:
        raise ExceptionGroup(f"{len(failures)} of {len(table)} rows", failures)


async def attacked_listener(server: HostileServer, attack: Callable[[], object], **options: Any) -> Report:
    """Attack a client that listens; it must be well again when the attack is over."""
    (report,) = [report async for report in attacked_again(server, [attack], **options)]
    return report


async def attacked_again(
    server: HostileServer, attacks: Sequence[Callable[[], object]], **options: Any
) -> AsyncIterator[Report]:
    """Attack one client that listens time and again; its health counts them all."""
    victim = Victim(listen, server.address, {**options, "times": len(attacks)})
    try:
        for attack in attacks:
            await victim.idle()
            victim.go()
            attack()
            server.greet(AFTER)
            report = await victim.report()
            assert report.recovered, report
            check_cost(report)
            yield report
    finally:
        victim.close()


async def attacked_call(
    server: HostileServer, role: Role, attack: Callable[[], object], **options: Any
) -> Report:
    """Attack a REST call; the next one must work again."""
    (report,) = [report async for report in attacked_calls(server, role, [attack], **options)]
    return report


async def attacked_calls(
    server: HostileServer, role: Role, attacks: Sequence[Callable[[], object]], **options: Any
) -> AsyncIterator[Report]:
    """Attack one REST call after the other, of one client; after each the next must work again."""
    victim = Victim(role, server.address, options)
    try:
        for attack in attacks:
            await victim.idle()
            attack()
            victim.go()
            report = await victim.report()
            assert report.recovered, report
            check_cost(report)
            yield report
    finally:
        victim.close()


def check_cost(report: Report) -> None:
    """Check what every row promises."""
    assert report.over_idle_mib <= MEMORY_MIB, report
    stall_ms = STALL_MS if THOROUGH else STALL_YARDSTICKS * report.yardstick_ms
    assert report.stall_ms <= stall_ms, report
    assert not report.unprintable, report
