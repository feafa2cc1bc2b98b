from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest

from bitrix_pull.emulator import Emulator, Owner
from bitrix_pull.emulator.channels import ChannelBook, PortalChannel
from bitrix_pull.events import PullEvent
from bitrix_pull.wire.messages import Control
from bitrix_pull.wire.protobuf import read
from tests.emulator.conftest import Clock, channel_ids, frame, subscribe

SHARED, PRIVATE = Owner("application"), Owner("application", 1)


async def kept(emulator: Emulator, channels: Sequence[str], after: str) -> list[Any]:
    """Return what channels hold after a mid; at least one message."""
    async with subscribe(emulator, channels, mid=after) as websocket:
        return list(read(await frame(websocket)))


def commands(messages: Sequence[Any]) -> list[str]:
    assert all(isinstance(message, PullEvent | Control) for message in messages)
    return [message.command for message in messages]


# -- how long a channel lives -----------------------------------------------------------------


@pytest.mark.parametrize("life_s", [0.1, 1, 1.9, 5, 43_205])
@pytest.mark.parametrize("fraction", [0, 0.25, 0.99])
async def test_a_channel_ends_when_it_says_so(clock: Clock, life_s: float, fraction: float) -> None:
    clock.now = 1_800_000_000 + fraction
    emulator = Emulator(clock=clock, channel_life_s=life_s)
    first = emulator.portal.config("application", 1)["channels"]["private"]
    end = datetime.fromisoformat(first["end"]).timestamp()
    assert clock.now < end <= clock.now + max(life_s, 1)
    clock.now = end - 0.001
    assert emulator.portal.config("application", 1)["channels"]["private"] == first
    clock.now = end
    assert emulator.portal.config("application", 1)["channels"]["private"]["id"] != first["id"]


# -- at expiry --------------------------------------------------------------------------------


async def test_at_its_end_a_channel_is_replaced_by_the_next_event_to_it(
    emulator: Emulator, clock: Clock
) -> None:
    old = channel_ids(emulator)
    start = emulator.portal.send("start")
    clock.now += 43_205
    emulator.portal.send("late", users=[1])
    new = channel_ids(emulator)
    assert new[0] != old[0]
    # The shared channel has no event, but the request for the new ids has replaced it too.
    assert commands(await kept(emulator, old, start)) == ["channel_expire", "channel_expire"]
    assert commands(await kept(emulator, new, start)) == ["late"]


# -- on request -------------------------------------------------------------------------------


async def test_on_request_channels_are_replaced_ahead_of_their_end(emulator: Emulator, clock: Clock) -> None:
    emulator.portal.channels.rotation = "on_request"
    emulator.portal.channels.rotation_lead_s = 600
    old = channel_ids(emulator)
    start = emulator.portal.send("start")
    clock.now += 43_205 - 601
    assert channel_ids(emulator) == old
    clock.now += 1
    emulator.portal.send("before", users=[1])
    new = channel_ids(emulator)
    assert set(new).isdisjoint(old)
    assert channel_ids(emulator) == new
    emulator.portal.send("after", users=[1])
    # The old ones are still taken.
    assert commands(await kept(emulator, old, start)) == ["before", "channel_expire", "channel_expire"]
    assert commands(await kept(emulator, new, start)) == ["after"]


def test_a_short_life_leaves_half_of_it_in_peace(clock: Clock) -> None:
    replaced: list[PortalChannel] = []
    book = ChannelBook("key", clock, lambda old, new: replaced.append(old), life_s=10)
    book.rotation = "on_request"
    clock.now = 1_800_000_000
    first = book.requested(SHARED)
    clock.now += 4.9
    assert book.requested(SHARED) == first
    clock.now += 0.1
    assert book.current(SHARED) == first, "an event is no request"
    assert book.requested(SHARED) != first
    assert replaced == [first]


async def test_a_stuck_portal_tells_ended_channels_for_ever(emulator: Emulator, clock: Clock) -> None:
    old = channel_ids(emulator)
    emulator.portal.channels.rotation = "never"
    clock.now += 1_000_000
    emulator.portal.send("late", users=[1])
    assert channel_ids(emulator) == old
    assert emulator.push.counters.messages == 1, "nothing is announced"
    emulator.portal.channels.rotation = "at_expiry"
    assert set(channel_ids(emulator)).isdisjoint(old)


# -- commands ---------------------------------------------------------------------------------


async def test_expire_lets_the_end_come_in_silence(emulator: Emulator) -> None:
    old = channel_ids(emulator)
    start = emulator.portal.send("start")
    emulator.portal.expire(PRIVATE)
    async with subscribe(emulator, old, mid=start) as websocket:
        emulator.portal.send("still here")
        assert commands(list(read(await frame(websocket)))) == ["still here"]
        emulator.portal.send("late", users=[1])
        assert commands(list(read(await frame(websocket)))) == ["channel_expire"]
    new = channel_ids(emulator)
    assert new[0] != old[0]
    assert new[1] == old[1]
    assert commands(await kept(emulator, new[:1], start)) == ["late"]


async def test_rotate_announces_new_channels_at_once(emulator: Emulator) -> None:
    old = channel_ids(emulator)
    async with subscribe(emulator, old) as websocket:
        emulator.portal.rotate()
        received: list[Any] = [*read(await frame(websocket)), *read(await frame(websocket))]
    assert commands(received) == ["channel_expire", "channel_expire"]
    assert {message.params["channel"]["id"] for message in received} == set(old)
    assert set(channel_ids(emulator)).isdisjoint(old)


async def test_rotating_what_nobody_has_does_nothing(emulator: Emulator) -> None:
    emulator.portal.rotate(SHARED)
    emulator.portal.expire(SHARED)
    assert emulator.push.counters.messages == 0
    assert emulator.portal.channels.owners == []


async def test_all_who_are_connected_are_told_of_a_restart(emulator: Emulator) -> None:
    emulator.portal.restart_notice()
    assert emulator.push.counters.messages == 0, "nobody is there"
    old = channel_ids(emulator)
    emulator.portal.rotate()
    users = channel_ids(emulator, 2, "user")
    async with subscribe(emulator, old) as outdated, subscribe(emulator, users) as other:
        emulator.portal.restart_notice()
        for websocket in (outdated, other):
            (received,) = read(await frame(websocket))
            assert isinstance(received, Control)
            assert received.command == "server_restart"
    after = emulator.portal.send("after", expiry_s=60)
    # Who comes later has nothing to do with it.
    start = f"{int(after) - 2:026}"
    assert commands(await kept(emulator, channel_ids(emulator), start)) == ["after"]
