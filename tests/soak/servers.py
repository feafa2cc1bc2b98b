"""Push servers that lose what they hold, or give way to another one: told, and made up for."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from bitrix_pull import Gap, MemoryStore, State, Webhook
from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.push_server import PushServer
from bitrix_pull.emulator.subscribers import Subscriber, WebSocketSubscriber
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running
from tests.soak.outcome import Outcome

Loss = Literal["flush", "restart", "old snapshot", "lagging replica"]
Calm = Literal["nothing", "clock forward", "clock back", "overtaking", "replay race", "two channels"]


class _Publisher:
    """Numbers what is published, and knows what a client must get of it."""

    def __init__(self, emu: Emulator, rng: random.Random, audience: Literal["application", "user"]) -> None:
        self.emu = emu
        self.rng = rng
        self.audience = audience
        self.wanted: list[int] = []
        self._next = 0

    def publish(self, count: int = 1, *, reachable: bool = True, shown: bool = False) -> None:
        """Send some; to another user too, so that the mids have holes.

        Args:
            count: How many.
            reachable: False if they are lost for a client that is not connected.
            shown: True if the first mid of them goes to the client. If the counter has gone back by
                one, and another user gets that mid, nothing shows it, and nothing is missing.
        """
        portal, rng = self.emu.portal, self.rng
        for number in range(count):
            if rng.random() < 0.3 and (number or not shown):
                portal.send("y", users=[2], audience=self.audience)
            users = rng.choice([None, [1]])
            portal.send("x", {"n": self._next}, users=users, audience=self.audience)
            if reachable:
                self.wanted.append(self._next)
            self._next += 1

    def publish_on_both(self) -> None:
        """Send one message on both channels of the client."""
        channels = self.emu.portal.config("application", 1)["channels"]
        ids = [channels[name]["id"] for name in ("private", "shared")]
        body = f'{{"module_id": "application", "command": "x", "params": {{"n": {self._next}}}}}'
        self.emu.push.publish(ids, body, 86_400)
        self.wanted.append(self._next)
        self._next += 1

    async def flow(self, seconds: float) -> None:
        """Send one every now and then."""
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            self.publish()
            await asyncio.sleep(self.rng.uniform(0.02, 1.5))


class _Heard:
    """What one client has heard, or several that follow each other."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []

    def listen_to(self, listener: Listener) -> None:
        listener.on("x")(lambda event: self.runs[-1].append(event.params["n"]))

    @asynccontextmanager
    async def run(self, listener: Listener) -> AsyncIterator[None]:
        """Let it run, which is a process to a cursor."""
        self.runs.append([])
        async with running(listener):
            yield

    def compare(self, outcome: Outcome, wanted: list[int]) -> None:
        """Promise that all was heard, and nothing twice in one run."""
        times = [Counter(run) for run in self.runs]
        heard = {n for run in self.runs for n in run}
        outcome.note(published=len(wanted), delivered=sum(map(len, self.runs)))
        outcome.exactly(
            0,
            lost=len(set(wanted) - heard),
            doubled=sum(count - 1 for run in times for count in run.values()),
        )

    def take_gaps(self, listener: Listener) -> int:
        """Return how many gaps were told since the last time."""
        told = sum(isinstance(notice, Gap) for notice in listener.heard)
        listener.heard[:] = [notice for notice in listener.heard if not isinstance(notice, Gap)]
        return told


def counter_goes_back(
    *, seed: int = 1, times: int = 50, version: int = 4, polling: bool = False, silent: bool = False
) -> Outcome:
    """The server loses its counter, with a cut and without, 50 times: lost 0, a Gap each time, 0 false.

    Its Redis is flushed, replaced by an empty one, by an older snapshot, or by a replica that
    lagged a little behind. Between two of these come cuts with nothing lost, steps of the server's
    clock, messages that overtake others, that are left out of a replay, and that are on two
    channels. ``silent`` lets nothing be published after a loss until it was told. Only version 4
    says how long messages are kept, and when the server took them: others promise no Gap where the
    mids that come after a cut are new, and nothing while the portal's clock is set back.
    """
    outcome, rng = Outcome(), random.Random(seed)
    outcome.note(losses=0, told=0)
    outcome.exactly(0, false_gaps=0, untold=0)
    step = [0.0]

    async def main() -> None:
        emu = Emulator(security_key="key", clock=lambda: virtual_time.unix_time() + step[0], version=version)
        async with emu:
            publisher, heard = _Publisher(emu, rng, "application"), _Heard()
            # What is older than the client: their mids are unknown to it.
            publisher.publish(60, reachable=False)
            await asyncio.sleep(60)
            listener = Listener(emu, transport="long_polling" if polling else "auto")
            heard.listen_to(listener)
            async with heard.run(listener):
                await listener.reached(State.LIVE)
                for number in range(2 * times):
                    round_ = _Round(emu, listener, publisher, rng)
                    await publisher.flow(rng.choice([0.5, 8.0, 40.0]))
                    if number % 2:
                        await round_.calm(step, set_back=version == 4)
                        told = heard.take_gaps(listener)
                        outcome.exactly(0, false_gaps=outcome.figures["false_gaps"] + told)
                        continue
                    await round_.loss(silent=silent)
                    told = heard.take_gaps(listener)
                    outcome.note(
                        losses=outcome.figures["losses"] + 1, told=outcome.figures["told"] + bool(told)
                    )
                    if version == 4:
                        outcome.exactly(0, untold=outcome.figures["untold"] + (not told))
                await asyncio.sleep(120)
            heard.compare(outcome, publisher.wanted)

    virtual_time.run(main)
    return outcome


class _Round:
    """One thing that happens to a server, and some messages after it."""

    def __init__(self, emu: Emulator, listener: Listener, publisher: _Publisher, rng: random.Random) -> None:
        self._emu = emu
        self._listener = listener
        self._publisher = publisher
        self._rng = rng

    async def loss(self, *, silent: bool) -> None:
        """Let the server lose its counter, and tell it from the messages that follow, or from silence."""
        push, publisher, rng = self._emu.push, self._publisher, self._rng
        loss: Loss = rng.choice(["flush", "restart", "old snapshot", "lagging replica"])
        snapshot = push.snapshot()
        if loss == "old snapshot":
            await publisher.flow(rng.choice([10.0, 30.0]))
        elif loss == "lagging replica":
            publisher.publish(rng.randrange(1, 5))
        await self._listener.wait_live()
        await asyncio.sleep(2)
        cut = loss == "restart" or silent or rng.random() < 0.5
        if loss == "restart":
            await self._emu.stop()
        elif cut:
            await push.disconnect_all(rng.choice([None, 1012]))
        if cut:
            publisher.publish(rng.randrange(4), reachable=False)
        match loss:
            case "flush":
                push.flush()
            case "restart":
                await self._emu.start(keep_history=False)
            case _:
                push.restore(snapshot)
        if not silent:
            publisher.publish(rng.randrange(1, 4), shown=True)
            await asyncio.sleep(rng.choice([0.1, 5.0]))
            await publisher.flow(30)
        await asyncio.sleep(90)
        if silent:
            publisher.publish(3)
            await asyncio.sleep(10)

    async def calm(self, step: list[float], *, set_back: bool) -> None:
        """Let something happen by which nothing is lost."""
        push, publisher, rng = self._emu.push, self._publisher, self._rng
        calms: list[Calm] = ["nothing", "clock forward", "overtaking", "replay race", "two channels"]
        calm = rng.choice([*calms, "clock back"] if set_back else calms)
        overtaken = 0.4 if calm in ("overtaking", "clock forward", "clock back") else 0.0
        self._let_overtake(overtaken)
        await publisher.flow(3)
        match calm:
            case "clock forward":
                step[0] += rng.choice([3.0, 3_600.0])
            case "clock back":
                step[0] -= rng.choice([3.0, 3_600.0])
            case "two channels":
                publisher.publish_on_both()
            case _:
                pass
        await publisher.flow(3)
        self._let_overtake(0.0)
        await asyncio.sleep(2)
        if calm == "replay race":
            push.faults.replay_race = self._hide_one
        await push.disconnect_all(rng.choice([None, 1012]))
        publisher.publish(rng.randrange(4))
        if calm == "two channels":
            publisher.publish_on_both()
        await self._listener.reached(State.LIVE)
        self._let_overtake(overtaken)
        await publisher.flow(rng.choice([1.0, 15.0]))
        self._let_overtake(0.0)
        await asyncio.sleep(30)
        push.faults.replay_race = None

    def _let_overtake(self, part: float) -> None:
        for subscriber in self._emu.push.connections:
            subscriber.line.faults.overtaken = part

    def _hide_one(self, subscriber: Subscriber) -> None:
        if isinstance(subscriber, WebSocketSubscriber):
            self._emu.push.faults.replay_race = None
            self._publisher.publish()


def server_moves(*, seed: int = 1, times: int = 50, version: int = 4) -> Outcome:
    """The portal moves to another push server 50 times: lost 0 of what it holds, a Gap each time.

    Its epoch is lower, higher, the same, or it is one that was used before; the client is cut
    off, told to fetch its configuration, or restarted. Between two moves come cuts, restarts, and
    another name for the same server, and no Gap.
    """
    outcome, rng = Outcome(), random.Random(seed)
    outcome.note(moves=0)
    outcome.exactly(0, false_gaps=0, untold=0)

    async def main() -> None:
        async with emulator(version=version) as emu:
            publisher, heard, store = _Publisher(emu, rng, "user"), _Heard(), MemoryStore()
            used = [(emu.push, _address(emu))]
            publisher.publish(20, reachable=False)
            await asyncio.sleep(60)
            listener = _user_of(emu, store)
            heard.listen_to(listener)
            for number in range(2 * times):
                moves = number % 2 == 1
                restarts = rng.random() < 0.3
                if not moves and rng.random() < 0.3:
                    _rename(emu)
                async with heard.run(listener):
                    await listener.reached(State.LIVE)
                    await publisher.flow(rng.choice([3.0, 40.0]))
                    await asyncio.sleep(2)
                    if not restarts:
                        if moves:
                            await _move(emu, rng, used)
                        else:
                            await emu.push.disconnect_all()
                        publisher.publish(rng.randrange(4))
                        await asyncio.sleep(rng.choice([0.0, 10.0]))
                        await publisher.flow(rng.choice([0.5, 140.0]))
                    await asyncio.sleep(250)
                if restarts:
                    if moves:
                        await _move(emu, rng, used)
                    publisher.publish(rng.randrange(4))
                    await asyncio.sleep(rng.choice([0.1, 60.0]))
                    told = heard.take_gaps(listener)
                    listener = _user_of(emu, store)
                    heard.listen_to(listener)
                    async with heard.run(listener):
                        await listener.reached(State.LIVE)
                        await publisher.flow(5)
                        await asyncio.sleep(100)
                    told += heard.take_gaps(listener)
                else:
                    told = heard.take_gaps(listener)
                if moves:
                    outcome.note(moves=outcome.figures["moves"] + 1)
                    outcome.exactly(0, untold=outcome.figures["untold"] + (not told))
                else:
                    outcome.exactly(0, false_gaps=outcome.figures["false_gaps"] + told)
            heard.compare(outcome, publisher.wanted)

    virtual_time.run(main)
    return outcome


def _user_of(emu: Emulator, store: MemoryStore) -> Listener:
    # An application is not told that the configuration is outdated.
    return Listener(emu, auth=Webhook(emu.webhook_url), resume=store)


def _address(emu: Emulator) -> str:
    return emu.subws_url.split("/")[2]


async def _move(emu: Emulator, rng: random.Random, used: list[tuple[PushServer, str]]) -> None:
    """Let the portal use another push server, and end the connections to the old one now or later."""
    before, move = emu.push, rng.choice(["lower", "higher", "same", "back"])
    if move == "back" and len(used) > 1:
        push, address = rng.choice([each for each in used if each[0] is not before])
        emu.portal.change_settings(push, address)
        emu.push = push
    else:
        difference = {"lower": -1_000, "higher": 1_000}.get(move, 0)
        await emu.move_push_server(epoch=before.epoch + difference)
        used.append((emu.push, _address(emu)))
    if rng.random() < 0.5:
        await before.disconnect_all()


def _rename(emu: Emulator) -> None:
    """Let the same push server be reached by another name."""
    host, _, port = _address(emu).partition(":")
    emu.portal.change_settings(push_address=f"{'localhost' if host == '127.0.0.1' else '127.0.0.1'}:{port}")
