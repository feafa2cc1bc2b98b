"""Other services ask hubs to publish, which are killed over it."""

import asyncio
import random
import time
from collections import Counter

from bitrix_pull.hub.valkey import PublishAnswer, ValkeyPublisher
from bitrix_pull.hub.valkey.cluster import LEASE_S
from tests.soak.hub_stage import ASKED, NAME, Stage, staged
from tests.soak.outcome import Outcome


class _Asker:
    """Asks for one thing after the other at the owners of portals, and keeps what it is answered."""

    def __init__(self, publisher: ValkeyPublisher, keys: list[str], rate: float, rng: random.Random) -> None:
        self.answers: list[PublishAnswer | None] = []
        self._publisher = publisher
        self._keys = keys
        self._rate = rate
        self._rng = rng
        self._over = False

    async def run(self) -> None:
        """Ask until it is over, and wait for the answers."""
        async with asyncio.TaskGroup() as tasks:
            while not self._over:
                tasks.create_task(self._ask(self._rng.choice(self._keys)))
                await asyncio.sleep(self._rng.expovariate(self._rate))

    async def _ask(self, portal: str) -> None:
        number = len(self.answers)
        self.answers.append(None)
        self.answers[number] = await self._publisher.publish(portal, ASKED, {"n": number})

    def stop(self) -> None:
        """Ask for nothing more."""
        self._over = True


def hub_publish(
    *,
    times: int = 20,
    portals: int = 1_000,
    rate: float = 100.0,
    lease_s: float = LEASE_S,
    seed: int = 1,
) -> Outcome:
    """SIGKILL of one of 3 hubs that are asked to publish: once at most, and none lost without a word."""
    outcome = Outcome()

    async def run() -> None:
        rng = random.Random(seed)
        async with (
            staged(workers=3, portals=portals, rate=0.0, lease_s=lease_s) as stage,
            ValkeyPublisher(stage.server.url, name=NAME) as publisher,
            asyncio.TaskGroup() as tasks,
        ):
            asker = _Asker(publisher, list((await stage.status()).owners), rate, rng)
            asking = tasks.create_task(asker.run())
            for _ in range(times):
                await asyncio.sleep(rng.uniform(1.0, 2.0) * lease_s)
                victim = rng.choice(list(stage.workers))
                await stage.kill(victim)
                await stage.start(victim)
            asker.stop()
            await asking
            await _judge(outcome, stage, asker.answers)

    asyncio.run(run())
    return outcome


async def _judge(outcome: Outcome, stage: Stage, answers: list[PublishAnswer | None]) -> None:
    """Compare the answers with what came back into the log, where each event is once."""
    accepted = {n for n, answer in enumerate(answers) if answer is not None and answer.outcome == "accepted"}
    published, deadline = stage.judge.asked, time.monotonic() + 60
    await asyncio.sleep(2 * stage.lease_s)
    while time.monotonic() < deadline:
        await stage.read()
        if accepted <= published.keys():
            break
        await asyncio.sleep(0.2)
    outcomes = Counter("none" if answer is None else answer.outcome for answer in answers)
    refused = [n for n, answer in enumerate(answers) if answer is not None and answer.outcome == "refused"]
    unknown = [n for n, answer in enumerate(answers) if answer is not None and answer.outcome == "unknown"]
    outcome.note(portals=stage.portals, asked=len(answers), accepted=len(accepted), refused=len(refused))
    outcome.note(unknown=len(unknown), unknown_but_published=len(published.keys() & set(unknown)))
    outcome.exactly(
        0,
        unanswered=outcomes["none"],
        accepted_but_lost=len(accepted - published.keys()),
        refused_but_published=len(published.keys() & set(refused)),
        doubled=sum(count > 1 for count in published.values()),
    )
    outcome.promise("most are accepted", len(accepted) > 0.9 * len(answers))
