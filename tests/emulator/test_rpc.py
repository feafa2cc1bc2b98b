"""Version 5: JSON-RPC over WebSockets (protocol §4.3)."""

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bitrix_pull.emulator import Emulator, Owner
from bitrix_pull.emulator.channels import Audience
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.urls import START_OF_HISTORY, subscription_url
from tests.emulator.conftest import Clock, Launch, until


@pytest.fixture
async def emulator(launch: Launch) -> Emulator:
    return await launch(version=5)


def subscribe(
    emulator: Emulator, user_id: int = 1, *, audience: Audience = "application", mid: str | None = None
) -> connect:
    jwt = emulator.portal.config(audience, user_id)["jwt"]
    return connect(subscription_url(emulator.subws_url, [], WireFormat.JSONRPC, jwt=jwt, mid=mid))


async def text(websocket: ClientConnection) -> str:
    """Return the next frame."""
    received = await asyncio.wait_for(websocket.recv(), 5)
    assert isinstance(received, str)
    return received


async def messages(websocket: ClientConnection) -> list[dict[str, Any]]:
    """Return the params of the messages in the next frame."""
    content = json.loads(await text(websocket))
    requests = content if isinstance(content, list) else [content]
    assert all(request["jsonrpc"] == "2.0" for request in requests)
    assert all(request["method"] == "incoming.message" for request in requests)
    return [request["params"] for request in requests]


async def call(websocket: ClientConnection, method: object, params: object = None) -> Any:
    """Call a method; return its result, or the code of its error."""
    request = {"jsonrpc": "2.0", "id": 7, "method": method}
    await websocket.send(json.dumps(request if params is None else request | {"params": params}))
    reply = json.loads(await text(websocket))
    assert (reply["jsonrpc"], reply["id"]) == ("2.0", 7)
    return reply["result"] if "result" in reply else reply["error"]["code"]


# -- who may come in ------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["missing", "forged", "truncated", "other key", "no base64", "expired"])
async def test_a_bad_token_is_refused(emulator: Emulator, launch: Launch, clock: Clock, harm: str) -> None:
    jwt = emulator.portal.config("application", 1)["jwt"]
    head, payload, signature = jwt.split(".")
    match harm:
        case "missing":
            jwt = ""
        case "forged":
            jwt = f"{head}.{payload[:-2]}AA.{signature}"
        case "truncated":
            jwt = jwt[:-2]
        case "other key":
            jwt = (await launch(version=5, security_key="other")).portal.config("application", 1)["jwt"]
        case "no base64":
            jwt = f"{head}.{payload}.a"
        case _:
            clock.now += 43_205
    with pytest.raises(InvalidStatus) as refusal:
        await connect(f"{emulator.subws_url}?token={jwt}&jsonRpc=true")
    assert (refusal.value.response.status_code, refusal.value.response.body) == (400, b"Wrong Channel Id.")
    assert emulator.push.counters.refused == 1


async def test_channel_ids_are_no_token(emulator: Emulator) -> None:
    shared = emulator.portal.config("application", 1)["channels"]["shared"]["id"]
    with pytest.raises(InvalidStatus):
        await connect(subscription_url(emulator.subws_url, [shared], WireFormat.JSONRPC))


async def test_a_token_is_good_after_a_restart(emulator: Emulator) -> None:
    jwt = emulator.portal.config("application", 1)["jwt"]
    await emulator.restart()
    async with connect(subscription_url(emulator.subws_url, [], WireFormat.JSONRPC, jwt=jwt)):
        await until(lambda: len(emulator.push.connections) == 1)


# -- messages ---------------------------------------------------------------------------------------


async def test_a_message_alone_is_a_request_and_several_are_an_array(emulator: Emulator) -> None:
    async with subscribe(emulator) as websocket:
        sent = [emulator.portal.send("c", {"n": n}, users=None if n % 2 else [1]) for n in range(3)]
        first, rest = json.loads(await text(websocket)), json.loads(await text(websocket))
    assert first["method"] == "incoming.message"
    assert "id" not in first
    assert set(first["params"]) == {"mid", "body", "sender"}
    assert first["params"]["sender"] == {"type": 2, "id": ""}
    assert first["params"]["body"]["params"] == {"n": 0}
    assert [request["params"]["mid"] for request in [first, *rest]] == sent


async def test_everyone_gets_what_is_theirs(emulator: Emulator) -> None:
    async with (
        subscribe(emulator, 1) as one,
        subscribe(emulator, 2) as two,
        subscribe(emulator, 1, audience="user") as portal_wide,
    ):
        emulator.portal.send("for one", users=[1])
        emulator.portal.send("for two", users=[2])
        emulator.portal.send("im", module="im", users=[1], audience="user")
        assert [message["body"]["command"] for message in await messages(two)] == ["for two"]
        # The token names the user, not the application: all that is the user's comes by either.
        for websocket in (one, portal_wide):
            received = [*await messages(websocket), *await messages(websocket)]
            assert [message["body"]["command"] for message in received] == ["for one", "im"]


async def test_a_shared_channel_is_of_the_application_or_of_the_portal(emulator: Emulator) -> None:
    async with subscribe(emulator) as application, subscribe(emulator, audience="user") as portal_wide:
        emulator.portal.send("application's")
        emulator.portal.send("portal's", audience="user")
        for websocket, command in ((application, "application's"), (portal_wide, "portal's")):
            assert [message["body"]["command"] for message in await messages(websocket)] == [command]


async def test_additions_go_beside_the_body(emulator: Emulator) -> None:
    async with subscribe(emulator) as websocket:
        emulator.portal.send("c", {"a": 1}, user_params={"unread": 3}, dictionary={"b": 2})
        (message,) = await messages(websocket)
    assert message["body"]["params"] == {"a": 1}
    assert (message["user_params"], message["dictionary"]) == ({"unread": 3}, {"b": 2})


async def test_a_body_that_is_no_json_comes_as_a_string(emulator: Emulator) -> None:
    shared = emulator.portal.config("application", 1)["channels"]["shared"]["id"]
    async with subscribe(emulator) as websocket:
        emulator.push.publish([shared], b"{no json \xff")
        (message,) = await messages(websocket)
    assert message["body"] == "{no json \ufffd"


async def test_a_replay_comes_first(emulator: Emulator) -> None:
    sent = [emulator.portal.send("c", users=[1] if n % 2 else None) for n in range(4)]
    async with subscribe(emulator, mid=sent[0]) as websocket:
        live = emulator.portal.send("c")
        assert [message["mid"] for message in await messages(websocket)] == sent[1:]
        assert [message["mid"] for message in await messages(websocket)] == [live]


async def test_a_new_shared_channel_needs_a_new_token(emulator: Emulator) -> None:
    async with subscribe(emulator) as websocket:
        start = emulator.portal.send("start")
        await messages(websocket)
        emulator.portal.rotate(Owner("application"))
        (expired,) = await messages(websocket)
        assert expired["body"]["command"] == "channel_expire"
        assert expired["body"]["params"]["action"] == "get_config"
        emulator.portal.send("shared")
        emulator.portal.send("private", users=[1])
        assert [message["body"]["command"] for message in await messages(websocket)] == ["private"]
    async with subscribe(emulator, mid=start) as websocket:
        commands = [message["body"]["command"] for message in await messages(websocket)]
    assert commands == ["shared", "private"]


async def test_a_users_own_channel_lasts(emulator: Emulator, clock: Clock) -> None:
    async with subscribe(emulator) as websocket:
        clock.now += 100_000
        emulator.portal.send("late", users=[1])
        assert [message["body"]["command"] for message in await messages(websocket)] == ["late"]


# -- acknowledgements ---------------------------------------------------------------------------------


async def test_acknowledgements_are_remembered(emulator: Emulator, clock: Clock) -> None:
    async with subscribe(emulator) as websocket:
        first, second, third = (emulator.portal.send("c") for _ in range(3))
        await websocket.send(f"mack:{second}")
        await until(lambda: len(emulator.push.acknowledged) == 1)
        clock.now += 5
        await websocket.send(f"mack:{second}")
        await websocket.send(f"mack:{first}".encode())
        await until(lambda: len(emulator.push.acknowledged) == 2)
    assert emulator.push.acknowledged == {second: clock.now - 5, first: clock.now}
    assert third not in emulator.push.acknowledged


async def test_what_is_acknowledged_does_not_change_what_is_replayed(emulator: Emulator) -> None:
    async with subscribe(emulator) as websocket:
        sent = [emulator.portal.send("c") for _ in range(2)]
        await websocket.send(f"mack:{sent[0]}")
        await until(lambda: sent[0] in emulator.push.acknowledged)
    async with subscribe(emulator, mid=START_OF_HISTORY) as websocket:
        assert [message["mid"] for message in await messages(websocket)] == sent
    async with subscribe(emulator) as websocket:
        live = emulator.portal.send("c")
        assert [message["mid"] for message in await messages(websocket)] == [live]


# -- pings --------------------------------------------------------------------------------------------


async def test_who_answers_pings_stays(emulator: Emulator) -> None:
    emulator.push.rpc_ping_interval_s = 0.05
    async with subscribe(emulator) as websocket:
        for _ in range(3):
            assert await text(websocket) == "ping"
            await websocket.send("pong")
        assert len(emulator.push.connections) == 1


async def test_who_does_not_answer_a_ping_is_dropped(emulator: Emulator) -> None:
    emulator.push.rpc_ping_interval_s = 0.05
    async with subscribe(emulator) as websocket:
        assert await text(websocket) == "ping"
        with pytest.raises(ConnectionClosed) as closed:
            await text(websocket)
        assert closed.value.rcvd is None
    await until(lambda: emulator.push.connections == [])


# -- calls ----------------------------------------------------------------------------------------------


BODY = {"module_id": "chat", "command": "typing", "params": {"who": 1}}


async def test_a_client_publishes_to_users_and_to_channels(emulator: Emulator) -> None:
    described = emulator.portal.config("application", 2)["publicChannels"]
    async with subscribe(emulator, 1) as sender, subscribe(emulator, 2) as receiver:
        assert await call(sender, "publish", {"userList": [2], "body": BODY, "expiry": 60}) == {}
        (own,) = await messages(receiver)
        assert own["body"] == BODY
        public = emulator.portal.config("application", 1)["publicChannels"]["1"]["public_id"]
        assert own["sender"] == {"type": 1, "id": public}
    channel = f"{described['2']['public_id']}.{described['2']['signature']}"
    async with subscribe(emulator, 1) as sender, subscribe(emulator, 2, mid=own["mid"]) as receiver:
        assert await call(sender, "publish", {"channelList": [channel], "body": BODY}) == {}
        assert len(await messages(receiver)) == 1
    async with subscribe(emulator, 2, mid=START_OF_HISTORY) as receiver:
        assert [message["mid"] for message in await messages(receiver)] == [own["mid"]], (
            "expiry 0 is not kept"
        )


async def test_a_publisher_hears_itself(emulator: Emulator) -> None:
    async with subscribe(emulator) as websocket:
        await websocket.send(
            json.dumps(
                {"jsonrpc": "2.0", "id": 1, "method": "publish", "params": {"userList": [1], "body": BODY}}
            )
        )
        (message,) = await messages(websocket)
        assert message["body"] == BODY
        assert json.loads(await text(websocket)) == {"jsonrpc": "2.0", "id": 1, "result": {}}


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("publish", {"body": BODY}),
        ("publish", {"userList": [], "channelList": [], "body": BODY}),
        ("publish", {"userList": "1", "body": BODY}),
        ("publish", {"userList": ["1"], "body": BODY}),
        ("publish", {"userList": [0], "body": BODY}),
        ("publish", {"userList": list(range(1, 102)), "body": BODY}),
        ("publish", {"channelList": {}, "body": BODY}),
        ("publish", {"channelList": ["no channel"], "body": BODY}),
        ("publish", {"channelList": ["0" * 32 + "." + "0" * 40], "body": BODY}),
        ("publish", {"userList": [1]}),
        ("publish", {"userList": [1], "body": "text"}),
        ("publish", {"userList": [1], "body": {"module_id": "m"}}),
        ("publish", {"userList": [1], "body": BODY, "expiry": -1}),
        ("publish", {"userList": [1], "body": BODY, "expiry": "60"}),
        ("getUsersLastSeen", {}),
        ("subscribeStatusChange", {"userId": "1"}),
        ("unsubscribeStatusChange", {}),
        ("ping", [1]),
    ],
)
async def test_wrong_params_are_refused(emulator: Emulator, method: str, params: Any) -> None:
    async with subscribe(emulator) as websocket:
        assert await call(websocket, method, params) == -32602
    assert emulator.push.counters.messages == 0


@pytest.mark.parametrize("method", ["unknown", "Publish", 1, ["ping"]])
async def test_an_unknown_method_is_called_so(emulator: Emulator, method: object) -> None:
    async with subscribe(emulator) as websocket:
        assert await call(websocket, method) == -32601


@pytest.mark.parametrize(("frame", "code"), [("{", -32700), ("1", -32600), ('"mack"', -32600)])
async def test_what_is_no_call_is_refused(emulator: Emulator, frame: str, code: int) -> None:
    async with subscribe(emulator) as websocket:
        await websocket.send(frame)
        reply = json.loads(await text(websocket))
    assert (reply["id"], reply["error"]["code"]) == (None, code)


async def test_calls_in_an_array_are_answered_in_an_array(emulator: Emulator) -> None:
    calls = [{"jsonrpc": "2.0", "id": n, "method": method} for n, method in enumerate(["ping", "unknown"])]
    # Replies of the client and notifications need no answer.
    calls += [
        {"jsonrpc": "2.0", "id": 8, "error": {"code": -32601}},
        {"jsonrpc": "2.0", "method": "ping"},
    ]
    async with subscribe(emulator) as websocket:
        await websocket.send(json.dumps(calls[2:]))
        await websocket.send(json.dumps(calls))
        replies = json.loads(await text(websocket))
    assert [(reply["id"], "error" in reply) for reply in replies] == [(0, False), (1, True)]


async def test_a_client_asks_for_its_channels(emulator: Emulator) -> None:
    shared = emulator.portal.config("application", 1)["channels"]["shared"]["id"]
    async with subscribe(emulator) as websocket:
        *own, last = await call(websocket, "listChannels", {})
    assert [channel["type"] for channel in own] == ["private", "private"]
    assert last == {"id": shared[:32], "type": "shared"}


# -- presence -------------------------------------------------------------------------------------------


async def test_a_client_asks_when_users_were_last_seen(emulator: Emulator, clock: Clock) -> None:
    async with subscribe(emulator, 1) as websocket:
        async with subscribe(emulator, 2), subscribe(emulator, 3), subscribe(emulator, 4, audience="user"):
            assert await call(websocket, "getUsersLastSeen", {"userList": [1, 2, 9]}) == {"1": 0, "2": 0}
        await until(lambda: len(emulator.push.connections) == 1)
        asked = {"userList": [1, 2, 3, 4, 9]}
        # Just gone is not online; user 9 never was.
        assert await call(websocket, "getUsersLastSeen", asked) == {"1": 0, "2": 1, "3": 1, "4": 1}
        clock.now += 90
        assert await call(websocket, "getUsersLastSeen", asked) == {"1": 0, "2": 90, "3": 90, "4": 90}


async def test_a_client_is_told_who_comes_and_goes(emulator: Emulator) -> None:
    emulator.push.gather_s = 0.001
    async with subscribe(emulator, 1) as websocket:
        assert await call(websocket, "subscribeStatusChange", {"userId": 2}) == {}
        async with subscribe(emulator, 2, audience="user"), subscribe(emulator, 3), subscribe(emulator, 2):
            (came,) = await messages(websocket)
            async with subscribe(emulator, 2):
                await until(lambda: len(emulator.push.connections) == 5)
        (went,) = await messages(websocket)
        assert await call(websocket, "unsubscribeStatusChange", {"userId": 2}) == {}
        async with subscribe(emulator, 2):
            await until(lambda: len(emulator.push.connections) == 2)
            assert await call(websocket, "ping") == {}
    for message, online in ((came, True), (went, False)):
        assert message["sender"]["type"] == 2
        assert (message["body"]["module_id"], message["body"]["command"]) == ("online", "userStatusChange")
        assert message["body"]["params"] == {"user_id": 2, "online": online}
