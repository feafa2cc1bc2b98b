"""Channels that never run out: days on end, crooked clocks, stubborn portals (protocol §3)."""

import asyncio
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from bitrix_pull import PortalTrouble, State
from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.channels import CHANNEL_LIFE_S, Owner
from bitrix_pull.errors import ChannelsEnded
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running
from tests.laws import THOROUGH

DAYS = 50 if THOROUGH else 10
"""How long they are renewed for; each is renewed every twelve hours."""

QUIET_S = 6 * 3600.0
"""Pings have tests of their own; without them a simulated day is a fraction of a second."""


async def stream_for(emu: Emulator, listener: Listener, days: float, seed: int) -> int:
    """Send events all along, many in the seconds around each end; return how many."""
    rng, sent = random.Random(seed), 0
    loop = asyncio.get_running_loop()
    end = loop.time() + days * 86_400
    while loop.time() < end:
        assert len(emu.push.connections) >= 1, "never without a live connection"
        emu.portal.send("x", {"n": sent}, users=None if sent % 2 else [1])
        sent += 1
        into = loop.time() % CHANNEL_LIFE_S
        near = into < 20 or into > CHANNEL_LIFE_S - 200
        # Of many ends, most are seen by a few events.
        dense = days < 10 or int(loop.time() / CHANNEL_LIFE_S) % 5 == 0
        near_s = rng.uniform(0.05, 1.5) if dense else rng.uniform(1, 15)
        await asyncio.sleep(near_s if near else rng.uniform(100, 3000))
    await listener.received(sent)
    # Lost 0, doubled 0; and each channel's events in order (even numbers are private).
    assert sorted(listener.numbers) == list(range(sent))
    for parity in (0, 1):
        of_channel = [n for n in listener.numbers if n % 2 == parity]
        assert of_channel == sorted(of_channel)
    return sent


@pytest.mark.parametrize("seed", [1])
def test_days_on_end(seed: int) -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu, ping_interval_s=QUIET_S)) as listener:
            emu.push.ping_interval_s = 1e9
            await listener.reached(State.LIVE)
            await stream_for(emu, listener, DAYS, seed)
            renewals = listener.states.count(State.RENEWING)
            assert 2 * DAYS - 1 <= renewals <= 2 * DAYS + 1
            # Two for each renewal, and a look at the settings once an hour.
            assert emu.portal.calls["pull.application.config.get"] <= 2 * renewals + 1 + DAYS * 24 * 60 / 55
            assert State.BACKOFF not in listener.states

    virtual_time.run(main)


@pytest.mark.parametrize("off_s", [-3600.0, 3600.0])
def test_a_portal_whose_clock_is_an_hour_off(off_s: float) -> None:
    async def main() -> None:
        emu = emulator()
        emu.portal.clock_offset_s = off_s
        async with emu, running(Listener(emu, ping_interval_s=QUIET_S)) as listener:
            emu.push.ping_interval_s = 1e9
            await listener.reached(State.LIVE)
            await stream_for(emu, listener, 3, seed=2)
            assert emu.portal.calls["pull.application.config.get"] <= 13 + 3 * 24 * 60 / 55

    virtual_time.run(main)


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
def test_a_local_clock_that_jumps_by_a_day(jump_s: float) -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu, ping_interval_s=QUIET_S)) as listener:
            emu.push.ping_interval_s = 1e9
            await listener.reached(State.LIVE)
            await stream_for(emu, listener, 0.7, seed=3)
            virtual_time.set_wall_clock(jump_s)
            listener.events.clear()
            await stream_for(emu, listener, 2, seed=4)
            assert emu.portal.calls["pull.application.config.get"] <= 13 + 2.7 * 24 * 60 / 55

    virtual_time.run(main)


class StubbornPortal:
    """A REST client of the user's own, whose portal answers the same configuration for ever."""

    def __init__(self, emu: Emulator) -> None:
        self._config = emu.portal.config("application", 1)
        self.asked_at: list[float] = []

    async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
        now = virtual_time.unix_time()
        self.asked_at.append(now)
        return {**self._config, "serverTime": datetime.fromtimestamp(now, UTC).isoformat()}


def test_channels_that_have_ended_never_count_as_live_and_the_portal_is_asked_by_the_ladder(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async with emulator(channel_life_s=600) as emu:
            portal = StubbornPortal(emu)
            async with running(Listener(emu, auth=portal)) as listener:
                await listener.reached(State.LIVE)
                end = virtual_time.unix_time() + 600
                await asyncio.sleep(600 + 3600)
                asked = [at - end for at in portal.asked_at if at > end]
                gaps = [later - earlier for earlier, later in pairwise(asked)]
                # One request ahead of the end, one just after it, and then the ladder up to a minute.
                assert len(portal.asked_at) - len(asked) == 2
                assert 0 < asked[0] <= 4
                for gap, rung in zip(
                    gaps, [0.5, 5, 5, 25, 25, 45, 45, 45, 45, 45, *[60] * 100], strict=False
                ):
                    assert rung <= gap <= rung * 1.2 + 0.1
                assert listener.state is State.BACKOFF
                assert listener.states.count(State.LIVE) == 1
                # What such a portal still sends there arrives.
                emu.portal.channels.rotation = "never"
                emu.portal.send("x", {"n": 0}, users=[1])
                await listener.received(1)
                trouble = [notice for notice in listener.heard if isinstance(notice, PortalTrouble)]
                assert [type(notice.error) for notice in trouble] == [ChannelsEnded]

    virtual_time.run(main)
    warnings = [record for record in caplog.records if "have ended" in record.message]
    assert len(warnings) == 1


def test_channel_expire_without_a_new_channel_renews_at_once() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            calls = emu.portal.calls["pull.application.config.get"]
            emu.portal.channels.expire(Owner("application", 1))
            emu.portal.send("x", {"n": 0}, users=[1])
            await listener.received(1)
            await asyncio.sleep(5)
            assert listener.numbers == [0]
            assert emu.portal.calls["pull.application.config.get"] == calls + 1
            assert listener.states[-2:] == [State.RENEWING, State.LIVE]

    virtual_time.run(main)
