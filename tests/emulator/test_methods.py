import json
from typing import Any

import pytest

from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.channels import Audience
from bitrix_pull.emulator.portal import Notification
from bitrix_pull.events import PullEvent
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.protobuf import read
from bitrix_pull.wire.urls import START_OF_HISTORY
from tests.emulator.conftest import Call, Clock, frame, subscribe
from tests.emulator.test_rest import RECORDED_ERRORS, REFERENCE, error

ADD = "pull.application.event.add"


def shape(value: Any) -> Any:
    """Return the names and types of a JSON value."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    return type(value).__name__


async def events(emulator: Emulator, audience: Audience, user_id: int) -> list[PullEvent[Any]]:
    """Return all that the history of a user's channels holds; at least one event."""
    channels = emulator.portal.config(audience, user_id)["channels"]
    ids = [channels["private"]["id"], channels["shared"]["id"]]
    async with subscribe(emulator, ids, mid=START_OF_HISTORY) as websocket:
        return [event for event in read(await frame(websocket)) if isinstance(event, PullEvent)]


# -- configuration ------------------------------------------------------------------------


async def test_config_has_the_shape_of_a_live_one(emulator: Emulator, call: Call) -> None:
    live = json.loads((REFERENCE / "config_v4_live.json").read_text())["result"]
    _, body = await call("pull.application.config.get")
    live["publicChannels"] = {"1": live["publicChannels"]["577"]}
    assert shape(body["result"]) == shape(live)


async def test_an_application_is_told_the_portal_wide_public_channel_of_its_user(
    emulator: Emulator, call: Call, call_webhook: Call
) -> None:
    told = (await call("pull.application.config.get"))[1]["result"]
    users = (await call_webhook("pull.config.get"))[1]["result"]
    assert told["publicChannels"] == users["publicChannels"]
    public_id = told["publicChannels"]["1"]["public_id"]
    assert users["channels"]["private"]["public_id"].startswith(public_id)
    assert not told["channels"]["private"]["public_id"].startswith(public_id)


async def test_config_leads_to_the_emulator_itself(emulator: Emulator, call: Call) -> None:
    server = (await call("pull.application.config.get"))[1]["result"]["server"]
    assert server["long_polling"] == server["long_pooling_secure"] == emulator.sub_url
    assert server["websocket"] == server["websocket_secure"] == emulator.subws_url
    assert server["publish"] == server["publish_secure"] == emulator.rest_url
    assert (server["version"], server["mode"]) == (4, "personal")


async def test_channels_stay_until_they_end(emulator: Emulator, clock: Clock, call: Call) -> None:
    async def channels() -> Any:
        return (await call("pull.application.config.get", CACHE="N"))[1]["result"]["channels"]

    first = await channels()
    assert first["private"]["start"] == "2027-01-15T11:00:00+03:00"
    assert first["private"]["end"] == "2027-01-15T23:00:05+03:00"
    clock.now += 43_204
    assert await channels() == first
    clock.now += 1
    second = await channels()
    assert second["private"]["id"] != first["private"]["id"]
    assert second["shared"]["id"] != first["shared"]["id"]


async def test_the_life_of_channels_can_be_set(emulator: Emulator, clock: Clock, call: Call) -> None:
    emulator.portal.channels.life_s = 60
    _, body = await call("pull.application.config.get")
    assert body["result"]["channels"]["shared"]["end"] == "2027-01-15T11:01:00+03:00"


async def test_every_user_and_audience_has_channels_of_its_own(
    emulator: Emulator, call: Call, call_webhook: Call
) -> None:
    configs = [
        (await call("pull.application.config.get"))[1]["result"],
        (await call("pull.application.config.get", token=emulator.portal.issue_token(2)))[1]["result"],
        (await call_webhook("pull.config.get"))[1]["result"],
    ]
    private = {config["channels"]["private"]["id"] for config in configs}
    shared = [config["channels"]["shared"]["id"] for config in configs]
    assert len(private) == 3
    assert shared[0] == shared[1] != shared[2]


async def test_a_portal_without_push_says_so(emulator: Emulator, call: Call, call_webhook: Call) -> None:
    emulator.portal.push_configured = False
    not_configured = (500, RECORDED_ERRORS[500, "SERVER_ERROR"])
    assert await call("pull.application.config.get") == not_configured
    assert await call_webhook("pull.config.get") == not_configured
    assert await call_webhook("pull.channel.public.list", USERS=[1]) == not_configured


async def test_a_portal_may_tell_its_time(emulator: Emulator, call: Call) -> None:
    emulator.portal.server_time_in_config = True
    _, body = await call("pull.application.config.get")
    assert body["result"]["serverTime"] == "2027-01-15T11:00:00+03:00"


# -- events --------------------------------------------------------------------------------


async def test_an_event_goes_to_the_shared_channel(emulator: Emulator, call: Call) -> None:
    status, body = await call(
        ADD, COMMAND="order_update", PARAMS={"id": 7, "tags": {}}, MODULE_ID="acme.shop"
    )
    assert (status, body["result"]) == (200, True)
    for user_id in (1, 2):
        (event,) = await events(emulator, "application", user_id)
        assert (event.module_id, event.command) == ("acme.shop", "order_update")
        assert event.params == {"id": 7, "tags": []}
        assert event.expiry == 86_400
        assert event.extra == {
            "server_time": "2027-01-15T11:00:00+03:00",
            "server_time_unix": 1_800_000_000.25,
            "server_name": emulator.portal.address,
            "revision_web": 19,
            "revision_mobile": 3,
        }


async def test_an_event_goes_to_the_named_users_alone(emulator: Emulator, call: Call) -> None:
    assert (await call(ADD, COMMAND="some", USER_ID=[1, "2", 2, 0, "x"]))[0] == 200
    assert (await call(ADD, COMMAND="one", USER_ID=3))[0] == 200
    emulator.portal.send("all")
    received = [
        [event.command for event in await events(emulator, "application", id_)] for id_ in (1, 2, 3, 4)
    ]
    assert received == [["some", "all"], ["some", "all"], ["one", "all"], ["all"]]


@pytest.mark.parametrize("params", [{"a": 1}, '{"a": 1}'])
async def test_params_come_as_an_object_or_as_its_text(emulator: Emulator, call: Call, params: Any) -> None:
    assert (await call(ADD, COMMAND="c", PARAMS=params))[0] == 200
    assert (await events(emulator, "application", 1))[0].params == {"a": 1}


async def test_empty_params_go_out_as_php_writes_them(emulator: Emulator, call: Call) -> None:
    channel = emulator.portal.config("application", 1)["channels"]["shared"]["id"]
    async with subscribe(emulator, [channel]) as websocket:
        assert (await call(ADD, COMMAND="c", PARAMS={}))[0] == 200
        assert b'"params":[],' in await frame(websocket)


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({}, "COMMAND_ERROR"),
        ({"COMMAND": ""}, "COMMAND_ERROR"),
        ({"COMMAND": "two words"}, "COMMAND_ERROR"),
        ({"COMMAND": "héllo"}, "COMMAND_ERROR"),
        ({"COMMAND": 5}, "COMMAND_ERROR"),
        ({"COMMAND": "c", "MODULE_ID": "Upper"}, "MODULE_ID_ERROR"),
        ({"COMMAND": "c", "MODULE_ID": ""}, "MODULE_ID_ERROR"),
        ({"COMMAND": "c", "MODULE_ID": "a-b"}, "MODULE_ID_ERROR"),
        ({"COMMAND": "c", "PARAMS": "no json"}, "PARAMS_ERROR"),
        ({"COMMAND": "c", "PARAMS": "5"}, "PARAMS_ERROR"),
        ({"COMMAND": "c", "PARAMS": 5}, "PARAMS_ERROR"),
    ],
)
async def test_what_is_wrong_with_an_event_is_named(call: Call, params: dict[str, Any], code: str) -> None:
    assert error(await call(ADD, **params)) == (400, code)


async def test_every_allowed_character_is_taken(call: Call) -> None:
    assert (await call(ADD, COMMAND="aZ09_:|.-", MODULE_ID="az09._"))[0] == 200


async def test_recorded_errors_have_the_recorded_words(emulator: Emulator, call: Call) -> None:
    assert await call(ADD) == (400, RECORDED_ERRORS[400, "COMMAND_ERROR"])
    answer = await call(ADD, COMMAND="c", USER_ID="1", token=emulator.portal.issue_token(2))
    assert answer == (400, RECORDED_ERRORS[400, "USER_ID_ACCESS_ERROR"])


@pytest.mark.parametrize(
    ("user_id", "taken"),
    [
        ("2", True),
        ([2], True),
        (None, True),
        (2, False),
        (["2"], False),
        ([1, 2], False),
        ([], False),
        ([2.0], False),
    ],
)
async def test_without_rights_a_user_addresses_itself_exactly(
    emulator: Emulator, call: Call, user_id: Any, taken: bool
) -> None:
    status, _ = await call(ADD, COMMAND="c", USER_ID=user_id, token=emulator.portal.issue_token(2))
    assert status == (200 if taken else 400)
    emulator.portal.admins.add(2)
    assert (await call(ADD, COMMAND="c", USER_ID=user_id, token=emulator.portal.issue_token(2)))[0] == 200


# -- the rest --------------------------------------------------------------------------------


async def test_notifications_are_recorded(emulator: Emulator, call: Call) -> None:
    for parameters in (
        {"USER_ID": [1, 2], "TEXT": "hello"},
        {"USER_ID": "3", "TEXT": "x", "AVATAR": "https://a/b.png"},
    ):
        assert (await call("pull.application.push.add", **parameters))[1]["result"] is True
    assert emulator.portal.notifications == [
        Notification([1, 2], "hello", ""),
        Notification([3], "x", "https://a/b.png"),
    ]


async def test_what_is_wrong_with_a_notification_is_named(emulator: Emulator, call: Call) -> None:
    async def add(**params: Any) -> tuple[int, str]:
        return error(await call("pull.application.push.add", **params))

    assert await add(USER_ID=1, TEXT=" ") == (400, "TEXT_ERROR")
    assert await add(USER_ID=1) == (400, "TEXT_ERROR")
    assert await add(TEXT="x") == (400, "USER_ID_ERROR")
    assert await add(USER_ID=2, TEXT="x", token=emulator.portal.issue_token(2)) == (400, "ACCESS_ERROR")
    emulator.portal.application_name = ""
    assert await add(USER_ID=1, TEXT="x") == (400, "EMPTY_APP_NAME")
    assert emulator.portal.notifications == []


async def test_public_channels_of_users_are_listed(
    emulator: Emulator, call: Call, call_webhook: Call
) -> None:
    _, listed = await call_webhook("pull.channel.public.list", USERS=[1, "5"])
    assert set(listed["result"]) == {"1", "5"}
    five = listed["result"]["5"]
    assert set(five) == {"user_id", "public_id", "signature", "start", "end"}
    channel = PublicChannel.parse(f"{five['public_id']}.{five['signature']}")
    assert emulator.push.signer.knows(channel.id, channel.signature)
    assert (await call_webhook("pull.channel.public.get", USER_ID=5))[1]["result"] == five
    emulator.portal.application_scope.add("pull_channel")
    _, application = await call("pull.channel.public.list", USERS=[5], APPLICATION="Y")
    assert application["result"] == emulator.portal.public_channels("application", [5])
    assert application["result"]["5"]["public_id"] != five["public_id"]


async def test_an_empty_list_of_public_channels_is_php(call_webhook: Call) -> None:
    assert (await call_webhook("pull.channel.public.list", USERS=[]))[1]["result"] == []


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("pull.channel.public.list", {}),
        ("pull.channel.public.list", {"USERS": "1"}),
        ("pull.channel.public.get", {}),
        ("pull.channel.public.get", {"USER_ID": [1, 2]}),
        ("pull.watch.extend", {"TAGS": "x"}),
    ],
)
async def test_wrong_parameters_are_named(call_webhook: Call, method: str, params: dict[str, Any]) -> None:
    assert error(await call_webhook(method, **params)) == (400, "INVALID_FORMAT")


async def test_watches_are_extended(call: Call) -> None:
    assert (await call("pull.watch.extend", TAGS=["A", "B"]))[1]["result"] == {"A": True, "B": True}
    assert (await call("pull.watch.extend", TAGS=[]))[1]["result"] == []
