"""The ways in which the server itself forgets messages (protocol §6): each is made up for."""

import asyncio
import random

from bitrix_pull import State
from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.faults import ConnectionFaults
from bitrix_pull.emulator.subscribers import PollSubscriber, Subscriber
from bitrix_pull.options import Transport
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running
from tests.soak.outcome import Outcome
from tests.soak.stand import compare

HEALED_WITHIN_S = 10.0


class _Publisher:
    """Numbers what is published, and notes when it was."""

    def __init__(self, outcome: Outcome, rng: random.Random, *, version: int) -> None:
        self.outcome = outcome
        self.rng = rng
        self.emu = emulator(version=version)
        self.published_at: list[float] = []

    def publish(self) -> None:
        """Send the next number, on one of the channels."""
        n = len(self.published_at)
        self.published_at.append(asyncio.get_running_loop().time())
        self.emu.portal.send("x", {"n": n}, users=self.rng.choice([None, [1]]))

    async def flow(self, seconds: float) -> None:
        """Publish every now and then for some time."""
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            self.publish()
            await asyncio.sleep(self.rng.uniform(0.05, 1))


def replay_race(
    *, seed: int = 1, times: int = 1000, version: int = 4, polling: bool = False, refused_audits: bool = False
) -> Outcome:
    """A message in the replay race, 1,000 times: lost 0, healed within 10 s.

    It is published after the server has read the history for a reconnect, and before it
    has registered the connection. The next cut comes at any time after that, also before
    anything could be healed; then the count of the 10 s begins with the last reconnect.
    By polling, where each poll is such a reconnect, nothing is cut. ``refused_audits``
    refuses some requests for history when they would heal, which then takes longer.
    """
    outcome, rng = Outcome(), random.Random(seed)

    async def main() -> None:
        publisher = _Publisher(outcome, rng, version=version)
        emu, raced, late = publisher.emu, list[int](), 0
        armed: set[bool] = set()

        def lose(subscriber: Subscriber) -> None:
            if isinstance(subscriber, PollSubscriber) != polling or not armed:
                return
            if isinstance(subscriber, PollSubscriber) and subscriber.answered.done():
                return
            armed.clear()
            raced.append(len(publisher.published_at))
            publisher.publish()

        transport: Transport = "long_polling" if polling else "websocket"
        async with emu, running(Listener(emu, transport=transport)) as listener:
            emu.push.faults.replay_race = lose
            await listener.reached(State.LIVE)
            publisher.publish()
            await listener.received(1)
            for _ in range(times):
                armed.add(True)
                if not polling:
                    await emu.push.disconnect_all()
                while armed:
                    await asyncio.sleep(0.01)
                    if polling:
                        publisher.publish()
                raced_at = asyncio.get_running_loop().time()
                # Mostly long enough for healing and for the ladder to be reset, sometimes not.
                flow_s = rng.choice([rng.uniform(0, 10), 32.0, 32.0])
                refused = refused_audits and rng.random() < 0.5
                if refused:
                    _refuse_history_for(emu, rng.uniform(1, 6))
                await publisher.flow(flow_s)
                healed_after = asyncio.get_running_loop().time() - raced_at > HEALED_WITHIN_S
                late += healed_after and not refused and raced[-1] not in listener.numbers
            await asyncio.sleep(60)
            compare(outcome, range(len(publisher.published_at)), listener)
            outcome.note(races=len(raced))
            outcome.exactly(0, not_healed_in_10_s=late)

    virtual_time.run(main)
    return outcome


def _refuse_history_for(emu: Emulator, seconds: float) -> None:
    """Refuse whoever comes now, for some seconds; who is connected stays so."""
    emu.push.faults.refuse_channels = True
    asyncio.get_running_loop().call_later(seconds, setattr, emu.push.faults, "refuse_channels", False)


def overtaking(*, seed: int = 1, times: int = 1000, version: int = 4) -> Outcome:
    """One message overtakes another, and the cut comes right after it, 1,000 times: lost 0."""
    outcome, rng = Outcome(), random.Random(seed)

    async def main() -> None:
        publisher = _Publisher(outcome, rng, version=version)
        emu = publisher.emu
        emu.push.faults.script = lambda number: ConnectionFaults()
        async with emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            for _ in range(times):
                await listener.reached(State.LIVE)
                await publisher.flow(rng.choice([0.0, 1.0, 6.0, 32.0]))
                await asyncio.sleep(rng.choice([0.0, 0.5, 32.0]))
                before = len(listener.events)
                for subscriber in emu.push.connections:
                    subscriber.line.faults.overtaken = 1.0
                publisher.publish()
                for subscriber in emu.push.connections:
                    subscriber.line.faults.overtaken = 0.0
                publisher.publish()
                # The one in front is on its way; the one behind is gathered, and is gone by the cut.
                await asyncio.sleep(rng.choice([0.05, 0.05, 0.3]))
                outcome.note(overtook=outcome.figures.get("overtook", 0) + _overtook(listener, before))
                await emu.push.disconnect_all(rng.choice([None, 1012]))
                await asyncio.sleep(0.1)
            await asyncio.sleep(4_000)
            numbers = listener.numbers
            outcome.exactly(
                0,
                lost=len(publisher.published_at) - len(set(numbers)),
                doubled=len(numbers) - len(set(numbers)),
            )
            outcome.note(delivered=len(numbers))

    virtual_time.run(main)
    return outcome


def _overtook(listener: Listener, before: int) -> bool:
    """Tell whether the newer of two messages has arrived, and the older has not."""
    new = listener.numbers[before:]
    return bool(new) and new[-1] - 1 not in listener.numbers
