"""What an administrator does: settings of the push server, another push server, dismissed users."""

import json
from typing import Any

import pytest

from bitrix_pull.emulator import Emulator
from bitrix_pull.wire.messages import Control
from bitrix_pull.wire.protobuf import read
from bitrix_pull.wire.urls import START_OF_HISTORY
from tests.emulator.conftest import Call, Clock, Launch, channel_ids, frame, mids, subscribe
from tests.emulator.test_methods import ADD
from tests.emulator.test_rest import REFERENCE
from tests.emulator.test_rpc import messages
from tests.emulator.test_rpc import subscribe as subscribe_rpc


async def server_of(call: Call) -> Any:
    return (await call("pull.application.config.get"))[1]["result"]["server"]


# -- settings -------------------------------------------------------------------------------------


async def test_changed_settings_have_another_timestamp(emulator: Emulator, call: Call) -> None:
    before = await server_of(call)
    emulator.portal.change_settings(push_address=emulator.portal.address.replace("127.0.0.1", "localhost"))
    after = await server_of(call)
    assert after["config_timestamp"] > before["config_timestamp"]
    assert after["websocket"] == before["websocket"].replace("127.0.0.1", "localhost")
    emulator.portal.change_settings()
    again = await server_of(call)
    assert again["config_timestamp"] > after["config_timestamp"], "also within a second"
    assert again["websocket"] == after["websocket"]


async def test_the_portal_wide_are_told_and_applications_are_not(emulator: Emulator) -> None:
    async with (
        subscribe(emulator, channel_ids(emulator)) as application,
        subscribe(emulator, channel_ids(emulator, 2, "user")) as portal_wide,
    ):
        emulator.portal.change_settings()
        after = emulator.portal.send("after")
        (told,) = read(await frame(portal_wide))
        assert isinstance(told, Control)
        assert told.command == "config_expire"
        assert await mids(application) == [after]


async def test_on_version_5_everyone_is_told(launch: Launch) -> None:
    emulator = await launch(version=5)
    async with subscribe_rpc(emulator) as application:
        emulator.portal.change_settings()
        (told,) = await messages(application)
    assert (told["body"]["module_id"], told["body"]["command"]) == ("pull", "config_expire")


# -- another push server ----------------------------------------------------------------------------


@pytest.mark.parametrize("difference", [-1_000, 0, 1_000])
async def test_a_portal_moves_to_another_push_server(emulator: Emulator, call: Call, difference: int) -> None:
    channels = channel_ids(emulator)
    first = emulator.portal.send("first")
    address = (await server_of(call))["websocket"]
    async with subscribe(emulator, channels) as left_behind:
        before = await emulator.move_push_server(epoch=int(first[:10]) + difference)
        assert (await server_of(call))["websocket"] == emulator.subws_url != address
        second = emulator.portal.send("second")
        assert int(second[:10]) == int(first[:10]) + difference
        assert second[10:] == f"{1:016}"
        async with subscribe(emulator, channel_ids(emulator), mid=START_OF_HISTORY) as websocket:
            assert await mids(websocket) == [second]
        # The old one runs on and takes whom it knows; the portal sends nothing there.
        late = before.publish(channels, b"{}")
        assert await mids(left_behind) == [late]
    assert channel_ids(emulator) == channels


async def test_both_push_servers_stop_and_start_with_the_emulator(emulator: Emulator, call: Call) -> None:
    await emulator.move_push_server()
    address = emulator.subws_url
    await emulator.restart()
    assert (await server_of(call))["websocket"] == address
    async with subscribe(emulator, channel_ids(emulator)) as websocket:
        assert await mids_of_next(emulator, websocket)


async def mids_of_next(emulator: Emulator, websocket: Any) -> bool:
    sent = emulator.portal.send("c")
    return await mids(websocket) == [sent]


# -- what becomes of the mids -------------------------------------------------------------------------


async def test_mids_are_handed_out_a_second_time(emulator: Emulator) -> None:
    channels = channel_ids(emulator)
    async with subscribe(emulator, channels) as websocket:
        first = emulator.portal.send("first")
        assert await mids(websocket) == [first]
        emulator.push.flush()
        assert emulator.portal.send("other") == first
        assert await mids(websocket) == [first]
        snapshot = emulator.push.snapshot()
        second = emulator.portal.send("second")
        emulator.push.restore(snapshot)
        assert emulator.portal.send("another") == second
    async with subscribe(emulator, channels, mid=START_OF_HISTORY) as websocket:
        received: list[Any] = list(read(await frame(websocket)))
        assert [event.command for event in received] == ["other", "another"]


# -- dismissed users ----------------------------------------------------------------------------------


async def test_a_dismissed_user_has_no_channel(emulator: Emulator, call_webhook: Call) -> None:
    emulator.portal.inactive.add(999)
    _, body = await call_webhook("pull.channel.public.list", USERS=[1, 999])
    recorded = json.loads((REFERENCE / "public_channels_inactive_user.json").read_text())["result"]["999"]
    found = body["result"]["999"]
    assert len(found.pop("signature")) == len(recorded.pop("signature"))
    assert found == recorded
    assert body["result"]["1"]["public_id"]


async def test_an_event_to_a_dismissed_user_is_taken_and_goes_nowhere(emulator: Emulator, call: Call) -> None:
    emulator.portal.inactive.add(2)
    dismissed, other = (channel_ids(emulator, user_id)[:1] for user_id in (2, 3))
    assert (await call(ADD, COMMAND="c", USER_ID=[2, 3]))[1]["result"] is True
    assert (await call(ADD, COMMAND="c", USER_ID=[2]))[1]["result"] is True
    async with subscribe(emulator, other, mid=START_OF_HISTORY) as websocket:
        assert len(list(read(await frame(websocket)))) == 1
    async with subscribe(emulator, dismissed, mid=START_OF_HISTORY) as websocket:
        mid = emulator.push.publish(dismissed, b"{}")
        assert await mids(websocket) == [mid]


# -- when users were last seen ------------------------------------------------------------------------


async def test_the_portal_knows_when_users_were_last_seen(
    emulator: Emulator, call: Call, clock: Clock
) -> None:
    emulator.portal.last_active = {5: clock.now - 90, 6: clock.now}
    _, body = await call("pull.api.user.getLastSeen", userIds=[5, "6", 7], sendToQueueSever=True)
    assert body["result"] == {"5": 90, "6": 0}
    _, body = await call("pull.api.user.getLastSeen", userIds=[7])
    assert body["result"] == []
    status, body = await call("pull.api.user.getLastSeen")
    assert (status, body["error"]) == (400, "INVALID_FORMAT")


@pytest.mark.parametrize("tell", [True, False])
async def test_the_push_server_learns_it_if_it_shall(launch: Launch, clock: Clock, tell: bool) -> None:
    emulator = await launch(version=5)
    emulator.portal.last_active[5] = clock.now - 90
    emulator.portal.last_seen_s([5], tell_push_server=tell)
    assert emulator.push.presence.last_seen_s([5, 6]) == ({5: 90} if tell else {})
