"""A listener before an emulator, with a proxy between them that spoils the connection."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bitrix_pull.emulator import Emulator
from tests.connection.listening import Listener, emulator, running
from tests.fault_proxy import FaultProxy
from tests.soak.outcome import Outcome


@dataclass(slots=True)
class Stand:
    """Who takes part in a scenario."""

    emu: Emulator
    proxy: FaultProxy
    listener: Listener


@asynccontextmanager
async def stand(emu: Emulator | None = None, **options: Any) -> AsyncIterator[Stand]:
    """Run a listener whose every connection goes through a proxy; virtual time by default."""
    async with emu or emulator() as emu, FaultProxy.before(emu.portal.address) as proxy:
        behind_proxy(emu, proxy)
        async with running(Listener(emu, **options)) as listener:
            yield Stand(emu, proxy, listener)


def behind_proxy(emu: Emulator, proxy: FaultProxy) -> None:
    """Let the portal name the proxy's address; to be done again after each start."""
    emu.portal.address = proxy.address


def compare(outcome: Outcome, expected: Sequence[int], listener: Listener) -> None:
    """Promise that each number arrived once, in order but for what was healed."""
    times = Counter(listener.numbers)
    in_order = [event.params["n"] for event in listener.events if not event.healed]
    outcome.exactly(
        0,
        lost=outcome.figures.get("lost", 0) + sum(n not in times for n in expected),
        doubled=outcome.figures.get("doubled", 0) + sum(count - 1 for count in times.values()),
        disordered=outcome.figures.get("disordered", 0)
        + sum(later < earlier for earlier, later in pairwise(in_order)),
    )
    outcome.note(
        delivered=outcome.figures.get("delivered", 0) + len(listener.events),
        healed=outcome.figures.get("healed", 0) + sum(event.healed for event in listener.events),
    )
