"""Asking for what the server left out, where that is slow or hardly possible."""

import asyncio
import random
from typing import Literal

from bitrix_pull import Continuity, Gap, ResumePoint, State
from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.faults import ConnectionFaults
from bitrix_pull.emulator.subscribers import PollSubscriber, Subscriber
from bitrix_pull.options import Transport
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running
from tests.soak.outcome import Outcome

HELD_S = 60.0
SLOW_LINK_BYTES_PER_S = 4_000.0


class _Publisher:
    """Numbers what is published, and lets some of it fall into the replay race."""

    def __init__(self, emu: Emulator, rng: random.Random, *, polling: bool = False) -> None:
        self.emu = emu
        self.rng = rng
        self.count = 0
        self.hidden: list[int] = []
        self._polling = polling

    def publish(self, padding: int = 0) -> None:
        """Send the next number, on one of the channels."""
        params = {"n": self.count, "padding": "x" * padding}
        self.emu.portal.send("x", params, users=self.rng.choice([None, [1]]))
        self.count += 1

    def hide_one(self) -> None:
        """Let the next connection leave out a message."""
        self.emu.push.faults.replay_race = self._hide

    def _hide(self, subscriber: Subscriber) -> None:
        if isinstance(subscriber, PollSubscriber):
            if not self._polling or subscriber.answered.done():
                return
        elif self._polling:
            return
        self.emu.push.faults.replay_race = None
        self.hidden.append(self.count)
        self.publish()

    def compare(self, outcome: Outcome, listener: Listener, *, may_lose: bool = False) -> None:
        """Promise that all arrived once, and that no Gap was told."""
        numbers = listener.numbers
        outcome.note(published=self.count, hidden=len(self.hidden))
        lost = len(set(range(self.count)) - set(numbers))
        if may_lose:
            outcome.note(lost=lost)
        else:
            outcome.exactly(0, lost=lost)
        outcome.exactly(
            0,
            doubled=len(numbers) - len(set(numbers)),
            false_gaps=sum(isinstance(notice, Gap) for notice in listener.heard),
        )


def slow_audit(*, seed: int = 1, times: int = 200, version: int = 4, polling: bool = False) -> Outcome:
    """Polls are answered 0.5 to 10 s late, or all comes at 4 kB/s: healed all, false Gaps 0.

    In each of 200 reconnects a message falls into the replay race, so that only the audit
    brings it; half of the times the history holds some tens of kilobytes.
    """
    outcome, rng = Outcome(), random.Random(seed)

    def slow_websocket(_: int) -> ConnectionFaults:
        return _slow("narrow", rng) if rng.random() < 0.5 else ConnectionFaults()

    async def main() -> None:
        transport: Transport = "long_polling" if polling else "websocket"
        async with emulator(version=version) as emu:
            emu.push.faults.poll_script = lambda _: _slow(rng.choice(["late", "narrow"]), rng)
            emu.push.faults.script = slow_websocket
            publisher = _Publisher(emu, rng, polling=polling)
            async with running(Listener(emu, transport=transport)) as listener:
                await listener.reached(State.LIVE)
                for _ in range(times):
                    padding = rng.choice([0, 2_000])
                    for _ in range(rng.randrange(2, 15)):
                        publisher.publish(padding)
                        await asyncio.sleep(rng.uniform(0, 0.5))
                    await asyncio.sleep(rng.choice([10.0, 40.0]))
                    publisher.hide_one()
                    await emu.push.disconnect_all()
                    for _ in range(rng.randrange(5)):
                        publisher.publish(padding)
                    await asyncio.sleep(rng.uniform(30, 90))
                await asyncio.sleep(200)
                publisher.compare(outcome, listener)
                outcome.note(healed=sum(event.healed for event in listener.events))

    virtual_time.run(main)
    return outcome


def _slow(how: Literal["late", "narrow"], rng: random.Random) -> ConnectionFaults:
    if how == "late":
        return ConnectionFaults(stall_after_bytes=0, stall_s=rng.uniform(0.5, 10))
    return ConnectionFaults(bytes_per_s=SLOW_LINK_BYTES_PER_S)


class _Store:
    """A store of the user's own, as one in memory is not saved to before the end."""

    def __init__(self) -> None:
        self.point: ResumePoint | None = None

    async def open(self) -> None:
        pass

    async def load(self, key: str) -> ResumePoint | None:
        return self.point

    async def save(self, key: str, point: ResumePoint) -> None:
        self.point = point

    async def close(self) -> None:
        pass


async def _watch(store: _Store, listener: Listener, outcome: Outcome) -> None:
    """Look once a second for how long the client was live since it got the first message after the point."""
    live_s, oldest_s, seen = 0, 0.0, 0
    got_at: dict[str, int] = {}
    while True:
        await asyncio.sleep(1)
        live_s += listener.state is State.LIVE
        for event in listener.events[seen:]:
            got_at[event.mid] = live_s
        seen = len(listener.events)
        point = "" if store.point is None else store.point.mid
        for mid in [mid for mid in got_at if mid <= point]:
            del got_at[mid]
        oldest_s = max(oldest_s, live_s - min(got_at.values(), default=live_s))
        outcome.at_most(HELD_S, resume_point_s=oldest_s)


def polls_blocked(*, seed: int = 1, times: int = 100, no_second: bool = False) -> Outcome:
    """Polls are blocked and the WebSocket works, 100 reconnects: the resume point is 60 s old at most.

    A message falls into each second replay race, and is healed all the same, by a second WebSocket.
    With ``no_second`` that is refused too: the resume point moves on, and it is said that nobody
    could be asked.
    """
    outcome, rng = Outcome(), random.Random(seed)

    async def main() -> None:
        store = _Store()
        async with emulator() as emu, running(Listener(emu, resume=store)) as listener:
            faults, publisher = emu.push.faults, _Publisher(emu, rng)
            faults.poll_refusal = 403
            await listener.reached(State.LIVE)
            watching = asyncio.create_task(_watch(store, listener, outcome))
            for number in range(times):
                faults.poll_refusal = rng.choice([403, "reset", "black_hole"])
                end = asyncio.get_running_loop().time() + rng.choice([3.0, 8.0, 30.0, 120.0])
                while asyncio.get_running_loop().time() < end:
                    publisher.publish()
                    await asyncio.sleep(rng.uniform(0.1, 2))
                if number % 2:
                    publisher.hide_one()
                faults.websocket_refusal = None
                await emu.push.disconnect_all(rng.choice([None, 1012]))
                publisher.publish()
                await listener.wait_live()
                faults.websocket_refusal = 403 if no_second else None
            watching.cancel()
            await asyncio.sleep(120)
            publisher.compare(outcome, listener, may_lose=no_second)
            words = sum(isinstance(each, Continuity) and not each.audited for each in listener.heard)
            outcome.note(not_audited=words)
            outcome.promise("it is said that nobody could be asked, then only", bool(words) is no_second)

    virtual_time.run(main)
    return outcome
