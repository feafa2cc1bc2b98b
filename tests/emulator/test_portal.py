from typing import Any

import pytest

from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.channels import Audience
from bitrix_pull.events import PullEvent
from bitrix_pull.wire.protobuf import read
from tests.emulator.conftest import frame, subscribe


async def received(emulator: Emulator, channel: str, mid: str) -> list[Any]:
    """Return what a channel holds after a mid."""
    async with subscribe(emulator, [channel], mid=mid) as websocket:
        return list(read(await frame(websocket)))


def channel(emulator: Emulator, audience: Audience, user_id: int, kind: str) -> str:
    return str(emulator.portal.config(audience, user_id)["channels"][kind]["id"])


async def test_the_backend_sends_to_whom_it_is_told(emulator: Emulator) -> None:
    expected: dict[tuple[Audience, int, str], list[str]] = {
        ("application", 1, "shared"): ["shared"],
        ("application", 1, "private"): ["private"],
        ("application", 2, "private"): ["private"],
        ("user", 1, "private"): ["message"],
        ("user", 2, "shared"): ["counter"],
    }
    start = emulator.portal.send("start")
    emulator.portal.send("shared", {"n": 1})
    emulator.portal.send("private", users=[1, 2])
    emulator.portal.send("message", module="im", audience="user", users=[1])
    emulator.portal.send("counter", 0, module="main", audience="user")
    emulator.portal.send("brief", expiry_s=0)
    for (audience, user_id, kind), commands in expected.items():
        events = await received(emulator, channel(emulator, audience, user_id, kind), start)
        assert [event.command for event in events] == commands


@pytest.mark.parametrize(
    ("params", "sent"), [(None, {}), ({}, {}), (0, 0), ([1], [1]), ({"a": {}}, {"a": []})]
)
async def test_params_go_out_as_they_are_but_for_empty_maps(
    emulator: Emulator, params: Any, sent: Any
) -> None:
    start = emulator.portal.send("start")
    emulator.portal.send("c", params)
    (event,) = await received(emulator, channel(emulator, "application", 1, "shared"), start)
    assert isinstance(event, PullEvent)
    assert event.params == sent


async def test_additions_are_merged_into_the_params_by_the_portal(emulator: Emulator) -> None:
    start = emulator.portal.send("start")
    emulator.portal.send("c", {"a": 1, "b": 1, "c": 1}, user_params={"b": 2, "c": 2}, dictionary={"c": 3})
    emulator.portal.send("c", user_params={"b": 2})
    first, second = await received(emulator, channel(emulator, "application", 1, "shared"), start)
    assert first.params == {"a": 1, "b": 2, "c": 3}
    assert second.params == {"b": 2}


async def test_user_mode_is_told_of_presence(emulator: Emulator) -> None:
    start = emulator.portal.send("start")
    emulator.portal.send_status(5)
    emulator.portal.send_status(6, "away")
    events = await received(emulator, channel(emulator, "user", 1, "shared"), start)
    assert [(event.kind, event.command) for event in events] == [("online", "user_status")] * 2
    assert [event.params["users"] for event in events] == [
        {"5": {"id": 5, "status": "online", "last_activity_date": "2027-01-15T11:00:00+03:00"}},
        {"6": {"id": 6, "status": "away", "last_activity_date": "2027-01-15T11:00:00+03:00"}},
    ]
