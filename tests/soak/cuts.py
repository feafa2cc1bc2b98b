"""Nothing lost, nothing doubled: cuts of all kinds in a stream of messages."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from bitrix_pull import PullEvent, State
from bitrix_pull.emulator.faults import ConnectionFaults
from tests import virtual_time
from tests.fault_proxy import Weather
from tests.soak.outcome import Outcome, percentile
from tests.soak.stand import Stand, behind_proxy, compare, stand

Cut = Callable[[Stand, random.Random], Awaitable[None]]

LADDER_RESET_S = 31.0


async def _end_of_file(here: Stand, rng: random.Random) -> None:
    for line in here.proxy.lines:
        line.cut("fin")


async def _reset(here: Stand, rng: random.Random) -> None:
    for line in here.proxy.lines:
        line.cut("reset")


async def _half_open(here: Stand, rng: random.Random) -> None:
    for line in here.proxy.lines:
        line.cut("silence")


async def _deaf_server(here: Stand, rng: random.Random) -> None:
    for line in here.proxy.lines:
        line.weather.to_client_lost = True


async def _in_mid_frame(here: Stand, rng: random.Random) -> None:
    for line in here.proxy.lines:
        line.weather.cut_after_bytes = rng.randrange(1, 2_000)
        line.weather.end = rng.choice(["fin", "reset", "silence"])


async def _in_mid_replay(here: Stand, rng: random.Random) -> None:
    """Cut, and cut the next connection too, somewhere in its handshake or its replay."""

    def forecast() -> Weather:
        here.proxy.forecast = Weather
        return Weather(cut_after_bytes=rng.randrange(1, 3_000), end=rng.choice(["fin", "reset"]))

    here.proxy.forecast = forecast
    await _reset(here, rng)


async def _dribble(here: Stand, rng: random.Random) -> None:
    """Cut, and let the next connection's bytes trickle."""

    def forecast() -> Weather:
        here.proxy.forecast = Weather
        return Weather(bytes_per_s=rng.choice([200.0, 2_000.0]), cut_after_bytes=rng.randrange(100, 3_000))

    here.proxy.forecast = forecast
    await _reset(here, rng)


async def _close_code(here: Stand, rng: random.Random) -> None:
    code = rng.choice([1000, 1001, 1011, 1012, 1013, 4010, 4011, 4013, 4029])
    await here.emu.push.disconnect_all(code, "by the scenario")


async def _connection_lost_at_server(here: Stand, rng: random.Random) -> None:
    await here.emu.push.disconnect_all()


async def _server_restart(here: Stand, rng: random.Random) -> None:
    await here.emu.stop()
    await asyncio.sleep(rng.choice([0.0, 1.0, 20.0]))
    await here.emu.start(keep_history=True)
    behind_proxy(here.emu, here.proxy)


async def _refused_handshake(here: Stand, rng: random.Random) -> None:
    faults = here.emu.push.faults
    faults.websocket_refusal = rng.choice([502, 503, 403, "reset"])
    await _reset(here, rng)
    asyncio.get_running_loop().call_later(rng.uniform(0.05, 20), setattr, faults, "websocket_refusal", None)


async def _spoilt_connection(here: Stand, rng: random.Random) -> None:
    """Cut, and let the server itself spoil the next connection: garble, duplicate, stall, close, …"""
    faults = here.emu.push.faults

    def script(number: int) -> ConnectionFaults:
        faults.script = None
        drawn = ConnectionFaults.drawn(rng)
        # What is overtaken is out of order by the server's doing; that has a scenario of its own.
        drawn.overtaken = 0.0
        return drawn

    faults.script = script
    await _reset(here, rng)


KINDS: tuple[Cut, ...] = (
    _end_of_file,
    _reset,
    _half_open,
    _deaf_server,
    _in_mid_frame,
    _in_mid_replay,
    _dribble,
    _close_code,
    _connection_lost_at_server,
    _server_restart,
    _refused_handshake,
    _spoilt_connection,
)


def cuts(*, seed: int = 1, seeds: int = 20, messages: int = 10_000, cuts: int = 300) -> Outcome:
    """10,000 messages, 300 cuts of all kinds, 20 seeds: lost 0, doubled 0, in order."""
    outcome = Outcome()
    for one in range(seed, seed + seeds):
        virtual_time.run(lambda one=one: _stream(outcome, random.Random(one), messages, cuts))  # type: ignore[misc]
    return outcome


def short_cuts(*, seed: int = 1, seconds: float = 60.0, rate: int = 300) -> Outcome:
    """Cuts every 0.5 to 2 s, 300 messages/s, 60 s: lost 0, doubled 0, late p50 <= 1.5 s, p99 <= 8 s."""
    outcome = Outcome()
    virtual_time.run(lambda: _short_cuts(outcome, random.Random(seed), seconds, rate))
    return outcome


async def _short_cuts(outcome: Outcome, rng: random.Random, seconds: float, rate: int) -> None:
    clock = asyncio.get_running_loop().time
    sent_at: list[float] = []
    late: dict[int, float] = {}
    async with stand() as here:

        @here.listener.on("x")
        def note(event: PullEvent[Any]) -> None:
            late.setdefault(event.params["n"], clock() - sent_at[event.params["n"]])

        await here.listener.reached(State.LIVE)

        async def cut_now_and_then() -> None:
            while True:
                await asyncio.sleep(rng.uniform(0.5, 2))
                await rng.choice((_end_of_file, _reset))(here, rng)

        cutting = asyncio.create_task(cut_now_and_then())
        began = clock()
        while (passed_s := clock() - began) < seconds:
            while len(sent_at) < passed_s * rate:
                sent_at.append(clock())
                here.emu.portal.send("x", {"n": len(sent_at) - 1}, users=rng.choice([None, [1]]))
            await asyncio.sleep(0.05)
        cutting.cancel()
        await here.listener.received(len(sent_at))
        await asyncio.sleep(10)
        compare(outcome, range(len(sent_at)), here.listener)
        outcome.note(connects=here.listener.health().connects)
    outcome.at_most(1.5, late_p50_s=percentile(list(late.values()), 50))
    outcome.at_most(8, late_p99_s=percentile(list(late.values()), 99))
    outcome.note(late_max_s=max(late.values()))


async def _stream(outcome: Outcome, rng: random.Random, messages: int, cuts: int) -> None:
    async with stand() as here:
        await here.listener.reached(State.LIVE)
        cut_at = sorted(rng.sample(range(messages), cuts))
        for n in range(messages):
            here.emu.portal.send("x", {"n": n}, users=rng.choice([None, [1]]))
            if cut_at and n == cut_at[0]:
                cut_at.pop(0)
                # Half of the cuts come soon after another, before what that one lost was healed.
                await here.listener.wait_live()
                if rng.random() < 0.5:
                    await asyncio.sleep(rng.uniform(0, 10) if rng.random() < 0.5 else LADDER_RESET_S)
                await rng.choice(KINDS)(here, rng)
            if rng.random() < 0.5:
                await asyncio.sleep(rng.choice([0.001, 0.1, 0.4, 2.0]))
        await here.listener.received(messages)
        await asyncio.sleep(10)
        compare(outcome, range(messages), here.listener)
        outcome.note(connects=outcome.figures.get("connects", 0) + here.listener.health().connects)
