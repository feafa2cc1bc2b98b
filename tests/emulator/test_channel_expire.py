"""Every recorded ``channel_expire``, said by the emulator's portal in the same words."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bitrix_pull.emulator import Emulator, Owner
from bitrix_pull.emulator.channels import Audience
from bitrix_pull.events import PullEvent
from bitrix_pull.wire.messages import Control
from bitrix_pull.wire.protobuf import read
from tests.emulator.conftest import Clock, channel_ids, frame, subscribe

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "channel_expire.json").read_text())
APPLICATION = "local.5f3e1a2b3c4d55.00000001"

PORTAL, APPLICATIONS = Owner("user"), Owner("application")
PRIVATE, APPLICATIONS_PRIVATE = Owner("user", 1), Owner("application", 1)


def rotate(owner: Owner) -> Callable[[Emulator], None]:
    return lambda emulator: emulator.portal.rotate(owner)


def remove(owner: Owner) -> Callable[[Emulator], None]:
    return lambda emulator: emulator.portal.remove(owner)


def rotate_as_of_old(owner: Owner) -> Callable[[Emulator], None]:
    def rotate(emulator: Emulator) -> None:
        emulator.portal.is_older = True
        emulator.portal.rotate(owner)

    return rotate


CASES: dict[str, tuple[Owner, Callable[[Emulator], None]]] = {
    "portal, user's private channel, replaced in use": (PRIVATE, rotate(PRIVATE)),
    "portal, shared channel, replaced in use": (PORTAL, rotate(PORTAL)),
    "application, user's private channel, replaced in use": (
        APPLICATIONS_PRIVATE,
        rotate(APPLICATIONS_PRIVATE),
    ),
    "application, shared channel, replaced in use": (APPLICATIONS, rotate(APPLICATIONS)),
    "application, private channel, removed by the hourly agent after 13 h": (
        APPLICATIONS_PRIVATE,
        remove(APPLICATIONS_PRIVATE),
    ),
    "older portals, application's private channel": (
        APPLICATIONS_PRIVATE,
        rotate_as_of_old(APPLICATIONS_PRIVATE),
    ),
}
AUDIENCES: tuple[Audience, ...] = ("application", "user")


def channel_of(emulator: Emulator, owner: Owner) -> str:
    """Return what its owner subscribes with; user 1, where it is shared."""
    private, shared = channel_ids(emulator, owner.user_id or 1, owner.audience)
    return private if owner.user_id else shared


async def announcement(emulator: Emulator, owner: Owner, happens: Callable[[Emulator], None]) -> Control:
    async with subscribe(emulator, [channel_of(emulator, owner)]) as websocket:
        happens(emulator)
        (expired,) = read(await frame(websocket))
    assert isinstance(expired, Control)
    return expired


def form(value: Any) -> Any:
    """Return a value with what differs from portal to portal put into patterns."""
    if isinstance(value, dict):
        return {name: form(item) for name, item in value.items()}
    if isinstance(value, str):
        value = re.sub(r"[0-9a-f]{40}", "SIG", value)
        value = re.sub(r"[0-9a-f]{32}", "ID", value)
        return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+\d\d:\d\d", "ATOM", value)
    return "UNIX" if isinstance(value, int) else value


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: case["when"])
async def test_an_expired_channel_is_announced_in_the_portals_words(
    emulator: Emulator, case: dict[str, Any]
) -> None:
    owner, happens = CASES[case["when"].partition(":")[0]]
    old = channel_of(emulator, owner)
    expired = await announcement(emulator, owner, happens)
    assert expired.params["channel"]["id"] == old
    said = json.loads(json.dumps(expired.params).replace(emulator.portal.client_id, APPLICATION))
    assert form(said) == form(case["message"]["params"])


@pytest.mark.parametrize("owner", [PORTAL, APPLICATIONS])
async def test_the_new_channel_is_the_one_that_takes_its_place(emulator: Emulator, owner: Owner) -> None:
    expired = await announcement(emulator, owner, rotate(owner))
    assert expired.params["new_channel"]["id"] == channel_of(emulator, owner)


async def test_the_agent_names_the_portals_own_shared_channel(emulator: Emulator) -> None:
    expired = await announcement(emulator, APPLICATIONS_PRIVATE, remove(APPLICATIONS_PRIVATE))
    assert expired.params["new_channel"]["id"] == channel_of(emulator, PORTAL)


@pytest.mark.parametrize(
    ("owner", "action", "kind"),
    [
        (PRIVATE, "get_config", "private"),
        (PORTAL, "reconnect", "shared"),
        (APPLICATIONS, "reconnect", None),
        (APPLICATIONS_PRIVATE, "reconnect", None),
    ],
)
async def test_what_the_agent_removes_is_announced_by_its_type(
    emulator: Emulator, owner: Owner, action: str, kind: str | None
) -> None:
    expired = await announcement(emulator, owner, remove(owner))
    assert expired.params["action"] == action
    assert expired.params["channel"]["type"] == (kind or emulator.portal.client_id)
    assert ("new_channel" in expired.params) is (action == "reconnect")


@pytest.mark.parametrize("owner", [PRIVATE, PORTAL, APPLICATIONS])
async def test_older_portals_bring_the_new_channel(emulator: Emulator, owner: Owner) -> None:
    expired = await announcement(emulator, owner, rotate_as_of_old(owner))
    assert expired.params["action"] == "reconnect"
    assert expired.params["new_channel"]["id"] == channel_of(emulator, owner)


async def test_the_agent_takes_channels_of_13_hours(emulator: Emulator, clock: Clock) -> None:
    old = {audience: channel_ids(emulator, 1, audience) for audience in AUDIENCES}
    clock.now += 13 * 3600 - 1
    emulator.portal.run_agent()
    assert emulator.push.counters.messages == 0
    clock.now += 1
    emulator.portal.run_agent()
    assert emulator.push.counters.messages == 4
    emulator.portal.run_agent()
    assert emulator.push.counters.messages == 4, "what took their place is young"
    for audience in AUDIENCES:
        assert set(channel_ids(emulator, 1, audience)).isdisjoint(old[audience])
    assert emulator.push.counters.messages == 4, "what was removed is not announced a second time"


async def test_a_channel_that_ends_is_replaced_by_the_next_event_which_goes_to_the_new_one(
    emulator: Emulator, clock: Clock
) -> None:
    old = channel_of(emulator, PRIVATE)
    start = emulator.portal.send("start")
    clock.now += 43_205
    emulator.portal.send("late", audience="user", users=[1])
    async with subscribe(emulator, [old], mid=start) as websocket:
        (expired,) = read(await frame(websocket))
    assert isinstance(expired, Control)
    new = channel_of(emulator, PRIVATE)
    assert new != old
    # The event is on the new channel, where nobody listened when it came.
    async with subscribe(emulator, [new], mid=start) as websocket:
        (event,) = read(await frame(websocket))
    assert isinstance(event, PullEvent)
    assert event.command == "late"
