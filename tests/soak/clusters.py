"""Hubs share a cloud's portals out, and are killed, stopped, cut off and replaced."""

import asyncio
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Literal, get_args

from bitrix_pull.hub.valkey.cluster import LEASE_S
from tests.fault_proxy import FaultProxy
from tests.soak.hub_stage import judged, p99, staged, way_to_cloud
from tests.soak.outcome import Outcome

ANOTHER_OWNER_S = 10.0
PLANNED_S = 2.0
TOKEN_LIFE_S = 15.0
"""Whoever takes a portal up must mostly refresh its tokens first."""

Cut = Literal["valkey", "portals", "both"]


def _run(doing: Callable[[Outcome], Awaitable[None]]) -> Outcome:
    outcome = Outcome()

    async def run() -> None:
        await doing(outcome)

    asyncio.run(run())
    return outcome


def hub_kill(
    *, times: int = 50, portals: int = 1_000, rate: float = 2_000.0, lease_s: float = LEASE_S, seed: int = 1
) -> Outcome:
    """SIGKILL of one of 4 hubs: in the log lost 0, doubled 0, in order; another owner <= 10 s (p99)."""

    async def kill(outcome: Outcome) -> None:
        rng = random.Random(seed)
        took = list[float]()
        # Without refreshes: a kill between the answer to one and the write loses the grant (`token-sigkill`).
        async with staged(workers=4, portals=portals, rate=rate, lease_s=lease_s) as stage:
            for _ in range(times):
                await asyncio.sleep(rng.uniform(1.0, 2.0) * lease_s)
                victim = rng.choice(list(stage.workers))
                took += await stage.kill(victim)
                await stage.start(victim)
            outcome.promise("every portal finds another owner", await stage.shared_out())
            await judged(outcome, stage)
        outcome.in_time(ANOTHER_OWNER_S, another_owner_p99_s=p99(took))

    return _run(kill)


def hub_pause(
    *,
    times: int = 30,
    pause_s: float = 20.0,
    portals: int = 1_000,
    rate: float = 2_000.0,
    lease_s: float = LEASE_S,
    seed: int = 1,
) -> Outcome:
    """SIGSTOP of one of 4 hubs for 20 s, then SIGCONT: it appends nothing late, and spends no token twice."""

    async def pause(outcome: Outcome) -> None:
        rng = random.Random(seed)
        async with staged(
            workers=4, portals=portals, rate=rate, lease_s=lease_s, token_life_s=TOKEN_LIFE_S
        ) as stage:
            for _ in range(times):
                victim = rng.choice(list(stage.workers.values()))
                victim.send_signal(signal.SIGSTOP)
                await asyncio.sleep(pause_s)
                victim.send_signal(signal.SIGCONT)
                await asyncio.sleep(rng.uniform(1.0, 2.0) * lease_s)
                outcome.promise("every portal finds an owner again", await stage.shared_out())
            await judged(outcome, stage)

    return _run(pause)


def hub_cut(
    *,
    times: int = 10,
    cut_s: float = 30.0,
    portals: int = 1_000,
    rate: float = 2_000.0,
    lease_s: float = LEASE_S,
    seed: int = 1,
    cuts: str = ",".join(get_args(Cut)),
) -> Outcome:
    """One of 4 hubs cut off from Valkey, the portals, both, 1 to 30 s: lost 0; deaf <= 10 s once healed."""

    async def cut(outcome: Outcome) -> None:
        rng = random.Random(seed)
        deaf = dict.fromkeys(cuts.split(","), 0.0)
        async with (
            staged(
                workers=3, portals=portals, rate=rate, lease_s=lease_s, token_life_s=TOKEN_LIFE_S
            ) as stage,
            FaultProxy("127.0.0.1", stage.server.port) as valkey,
            way_to_cloud(stage, "127.0.0.2") as way,
        ):
            ways: dict[Any, list[FaultProxy]] = {"valkey": [valkey], "portals": [way], "both": [valkey, way]}
            await stage.start("shaky", url=f"redis://{valkey.address}", names_at="127.0.0.2")
            await stage.settled()
            made = list[tuple[str, float]]()
            for kind in [kind for _ in range(times) for kind in deaf]:
                for proxy in ways[kind]:
                    proxy.cut_off()
                await asyncio.sleep(rng.uniform(cut_s / 30, cut_s))
                for proxy in ways[kind]:
                    proxy.heal()
                made.append((kind, time.time()))
                await asyncio.sleep(2 * lease_s)
                outcome.promise("every portal finds an owner again", await stage.shared_out())
            await judged(outcome, stage)
        for kind, healed_at in made:
            deaf[kind] = max(deaf[kind], stage.judge.deaf_s(healed_at, healed_at + lease_s))
        figures = {f"deaf_after_{kind}_s": round(seconds, 2) for kind, seconds in deaf.items()}
        outcome.in_time(ANOTHER_OWNER_S, **figures)

    return _run(cut)


def hub_valkey_restart(
    *,
    times: int = 20,
    portals: int = 1_000,
    rate: float = 2_000.0,
    lease_s: float = LEASE_S,
    seed: int = 1,
) -> Outcome:
    """Valkey killed, and back without its last second: log and resume points go back together, lost 0."""

    async def restart(outcome: Outcome) -> None:
        rng = random.Random(seed)
        async with staged(workers=3, portals=portals, rate=rate, lease_s=lease_s) as stage:
            folder, aside = stage.server.folder, stage.server.folder.with_suffix(".aside")
            for turn in range(times):
                await asyncio.sleep(rng.uniform(0.5, 1.0) * lease_s)
                if turn % 2 == 0:
                    # What a replica has that is a second behind.
                    shutil.copytree(folder, aside)
                    await asyncio.sleep(1.0)
                stage.server.kill()
                if aside.exists():
                    shutil.rmtree(folder)
                    aside.rename(folder)
                stage.server.start()
                await asyncio.sleep(lease_s * 0.5)
                outcome.promise("every portal has an owner again", await stage.shared_out())
            await judged(outcome, stage)

    return _run(restart)


def hub_clocks(
    *,
    seconds: float = 120.0,
    portals: int = 1_000,
    rate: float = 2_000.0,
    lease_s: float = LEASE_S,
) -> Outcome:
    """Wall clocks of hubs a day apart, jumping each second: nothing changes."""

    async def clocks(outcome: Outcome) -> None:
        async with staged(workers=1, portals=portals, rate=rate, lease_s=lease_s) as stage:
            for number in range(3):
                await stage.start(f"off-{number}", clock_off_s=86_400.0)
            await stage.settled()
            began = time.time()
            owners = (await stage.status()).owners
            await asyncio.sleep(seconds)
            outcome.promise("nobody loses a portal", (await stage.status()).owners == owners)
            await judged(outcome, stage)
            outcome.in_time(PLANNED_S, late_p99_s=p99(stage.judge.late(began)))
            lost = Counter[str]()
            for worker in (await stage.status()).workers:
                lost.update(worker.health["ended"])
            outcome.exactly({}, leases_lost={cause: n for cause, n in lost.items() if cause in _LOST})

    return _run(clocks)


_LOST = ("expired", "fenced", "forgotten", "gone_back", "damaged")


def hub_rolling(
    *,
    times: int = 20,
    portals: int = 1_000,
    rate: float = 2_000.0,
    lease_s: float = LEASE_S,
    workers: int = 4,
) -> Outcome:
    """Rolling restart of 4 hubs, 20 times: a portal moves at most once a step; delayed <= 2 s (p99)."""

    async def roll(outcome: Outcome) -> None:
        most = 0
        async with staged(
            workers=workers, portals=portals, rate=rate, lease_s=lease_s, token_life_s=TOKEN_LIFE_S
        ) as stage:
            await stage.settled()
            began = time.time()
            for turn in range(times * workers):
                name = f"worker-{turn % workers}"
                for step in ("leave", "join"):
                    epochs = (await stage.status()).epochs
                    if step == "leave":
                        await stage.end(name, signal.SIGTERM)
                    else:
                        await stage.start(name)
                    seen = await stage.settled()
                    outcome.promise("every portal has an owner", await stage.shared_out())
                    most = max(most, *(len(seen[key] - {epoch}) for key, epoch in epochs.items()))
            await judged(outcome, stage)
            outcome.in_time(PLANNED_S, late_p99_s=p99(stage.judge.late(began)))
            outcome.in_time(PLANNED_S, taken_up_p99_s=p99(stage.judge.taken_up))
        outcome.at_most(1, moves_a_step=most)

    return _run(roll)
