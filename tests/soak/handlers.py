"""Handlers that misbehave: the others are not delayed, and nothing is lost."""

import asyncio
import random
from collections import Counter
from typing import Any

from bitrix_pull import HandlerFailed, PullEvent, State
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running
from tests.soak.outcome import Outcome

TIMEOUT_S = 2.0
RETRIES = 1


def poison(*, seed: int = 1, messages: int = 3_000) -> Outcome:
    """Handlers raise, hang or are cancelled on 10 %: others wait <= 1 s longer, lost 0, each told once.

    Cuts go on all the while, and at the end the client is closed and started again: no
    poison comes back.
    """
    outcome, rng = Outcome(), random.Random(seed)
    poisons = {n: rng.choice(["raise", "hang", "cancel", "deny"]) for n in range(messages) if n % 10 == 3}

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        sent_at: list[float] = []
        handled = Counter[int]()
        attempts = Counter[int]()
        delays: list[float] = []
        free_at = 0.0

        async with emulator() as emu:
            listener = Listener(emu)

            @listener.on("x", timeout=TIMEOUT_S, retries=RETRIES, retry_delay=0.5)
            async def handle(event: PullEvent[Any]) -> None:
                nonlocal free_at
                n = event.params["n"]
                kind = poisons.get(n)
                if kind is None:
                    delays.append(clock() - max(sent_at[n], free_at))
                    handled[n] += 1
                    return
                attempts[n] += 1
                free_at = clock()
                if kind == "raise":
                    raise ValueError("poison")
                if kind == "cancel":
                    raise asyncio.CancelledError
                free_at += TIMEOUT_S
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    if kind == "hang":
                        raise
                    # Denies its cancellation: it is left behind after half a second.
                    free_at += 0.5
                    await asyncio.sleep(30)

            async with running(listener):
                await listener.reached(State.LIVE)
                for n in range(messages):
                    if n % 100 == 50:
                        await emu.push.disconnect_all()
                        await listener.reached(State.LIVE)
                    sent_at.append(clock())
                    emu.portal.send("x", {"n": n})
                    await asyncio.sleep(rng.uniform(0, 2) if n % 100 else 40)
                await asyncio.sleep(120)
            failed = [
                notice.event.params["n"]
                for notice in listener.heard
                if isinstance(notice, HandlerFailed) and isinstance(notice.event, PullEvent)
            ]
            before = attempts.copy()
            async with running(listener):
                await listener.reached(State.LIVE)
                await asyncio.sleep(60)
            outcome.note(poisons=len(poisons))
            outcome.exactly(
                0,
                lost=messages - len(handled) - len(attempts),
                doubled=sum(count - 1 for count in handled.values()),
                not_told_once=sum(failed.count(n) != 1 for n in poisons),
                told_without_cause=len(set(failed) - set(poisons)),
                wrong_attempts=sum(attempts[n] != RETRIES + 1 for n in poisons),
                came_back=(attempts - before).total(),
            )
            outcome.at_most(1, longest_delay_s=max(delays))

    virtual_time.run(main)
    return outcome
