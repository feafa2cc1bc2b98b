"""Publishing while connections are cut and servers answer 5xx: each message's fate is told as it is."""

import asyncio
import random
from collections import Counter
from typing import Any

from bitrix_pull import Fate, Message, State
from bitrix_pull.emulator.faults import PublishFault
from bitrix_pull.errors import Unreachable
from bitrix_pull.publish.publisher import Route
from bitrix_pull.publish.retrying import Retry
from tests import virtual_time
from tests.connection.listening import emulator
from tests.soak.outcome import Outcome
from tests.soak.stand import Stand, stand

WAYS: tuple[tuple[Route, int], ...] = (("rest", 4), ("endpoint", 4), ("socket", 4), ("socket", 5))


def publishing(*, seed: int = 1, seeds: int = 5, publishes: int = 1_000) -> Outcome:
    """1,000 publishes by each route under cuts and 5xx: none silently lost, none silently doubled."""
    outcome, figures = Outcome(), Counter[str]()
    for one in range(seed, seed + seeds):
        for route, version in WAYS:
            for retry in ("never", "safe"):
                rng = random.Random(f"{one}/{route}/{version}/{retry}")
                fates, heard = virtual_time.run(
                    lambda rng=rng, route=route, version=version, retry=retry: _publish(  # type: ignore[misc]
                        rng, publishes, route, version, retry
                    )
                )
                _count(figures, fates, heard, retry)
    outcome.note(
        published=figures["published"],
        accepted=figures["accepted"],
        refused=figures["refused"],
        never_sent=figures["never_sent"],
        unknown=figures["unknown"],
        unknown_but_received=figures["unknown_but_received"],
    )
    outcome.exactly(
        0,
        untold=figures["untold"],
        accepted_but_lost=figures["accepted_but_lost"],
        accepted_but_doubled=figures["accepted_but_doubled"],
        refused_but_received=figures["refused_but_received"],
        unknown_but_doubled=figures["unknown_but_doubled"],
    )
    outcome.promise("most are accepted", figures["accepted"] > figures["published"] / 2)
    outcome.promise("some are unknown", figures["unknown"] > 0)
    return outcome


async def _publish(
    rng: random.Random, publishes: int, route: Route, version: int, retry: Retry
) -> tuple[list[Fate], Counter[int]]:
    """Return the fate of each message, and how often each arrived."""
    async with stand(emulator(version=version)) as here:
        await here.listener.reached(State.LIVE)
        here.emu.push.faults.publishing = lambda number: _trouble(rng)
        weather = asyncio.create_task(_weather(here, rng))
        fates: dict[int, Fate] = {}
        numbers = iter(range(publishes))

        async def worker() -> None:
            while size := rng.choice([1, 1, 1, 5, 30]):
                messages = [
                    Message("x", {"n": n}, to_self=True) for _, n in zip(range(size), numbers, strict=False)
                ]
                if not messages:
                    return
                if route == "rest" and rng.random() < 0.1:
                    here.emu.portal.faults.fail_rest(
                        1, rng.choice([500, 502, 503]), applied=rng.random() < 0.5
                    )
                receipt = await here.listener.publish_many(messages, route=route, retry=retry)
                fates.update((fate.message.params["n"], fate) for fate in receipt.fates)
                await asyncio.sleep(rng.choice([0.0, 0.1, 1.0]))

        await asyncio.gather(*(worker() for _ in range(4)))
        weather.cancel()
        here.emu.push.faults.publishing = None
        await here.listener.wait_live(600)
        await asyncio.sleep(60)
        return [fates[n] for n in sorted(fates)], Counter(here.listener.numbers)


def _trouble(rng: random.Random) -> PublishFault | None:
    if rng.random() > 0.1:
        return None
    applied = rng.random() < 0.5
    return rng.choice(
        [
            PublishFault(status=rng.choice([500, 502, 503, 504]), applied=applied),
            PublishFault(cut=True, applied=applied),
            PublishFault(status=429, retry_after_s=rng.randrange(1, 5)),
        ]
    )


async def _weather(here: Stand, rng: random.Random) -> None:
    """Cut every connection now and then, in each of the ways."""
    while True:
        await asyncio.sleep(rng.expovariate(1 / 40))
        for line in here.proxy.lines:
            if rng.random() < 0.5:
                line.cut(rng.choice(["fin", "reset", "reset", "silence"]))


def _count(figures: Counter[str], fates: list[Fate], heard: Counter[int], retry: str) -> None:
    figures["published"] += len(fates)
    for fate in fates:
        n: Any = fate.message.params["n"]
        times = heard[n]
        never_sent = isinstance(fate.error, Unreachable)
        figures["never_sent" if never_sent else fate.outcome] += 1
        figures["untold"] += (fate.error is None) != (fate.outcome == "accepted")
        doubled = times > 1 and retry == "never"
        match fate.outcome:
            case "accepted":
                figures["accepted_but_lost"] += not times
                figures["accepted_but_doubled"] += doubled
            case "refused":
                figures["refused_but_received"] += bool(times)
            case "unknown":
                figures["unknown_but_received"] += bool(times)
                figures["unknown_but_doubled"] += doubled
    # Nothing may arrive of which nobody was told.
    figures["untold"] += len(heard.keys() - {fate.message.params["n"] for fate in fates})
