import json
from typing import Any

import aiohttp
import pytest

from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.journal import Journal, Kind
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.protobuf import Publication, encode_publications
from bitrix_pull.wire.urls import publication_url, subscription_url
from tests.emulator.conftest import Call, Clock, Launch, channel_ids, frame, subscribe, until
from tests.emulator.test_methods import ADD
from tests.emulator.test_rpc import call as call_rpc
from tests.emulator.test_rpc import subscribe as subscribe_rpc


def noted(emulator: Emulator, *kinds: Kind) -> list[dict[str, Any]]:
    return [dict(entry.details) for entry in emulator.journal.entries(*kinds)]


def test_the_oldest_entries_are_forgotten_and_numbers_go_on(clock: Clock) -> None:
    journal = Journal(clock, keep=3)
    for number in range(5):
        journal.note("acknowledged", mid=str(number))
    assert [(entry.number, entry.details["mid"]) for entry in journal.entries()] == [
        (3, "2"),
        (4, "3"),
        (5, "4"),
    ]
    assert [entry.number for entry in journal.entries(after=4)] == [5]
    journal.clear()
    journal.note("rest")
    assert [(entry.number, entry.kind, entry.at) for entry in journal.entries()] == [(6, "rest", clock.now)]


async def test_calls_are_noted_without_their_tokens(emulator: Emulator, call: Call) -> None:
    await call(ADD, COMMAND="c", PARAMS={"n": 1})
    await call("no.such.method")
    await call("server.time", token="wrong")
    emulator.portal.faults.fail_rest(1)
    async with aiohttp.ClientSession() as session, session.post(f"{emulator.portal_url}/rest/server.time"):
        pass
    params = {"COMMAND": "c", "PARAMS": {"n": 1}}
    caller = {"user": 1, "credentials": "application"}
    assert noted(emulator, "rest") == [
        {"method": ADD, "params": params, **caller, "status": 200},
        {
            "method": "no.such.method",
            "params": {},
            **caller,
            "status": 404,
            "error": "ERROR_METHOD_NOT_FOUND",
        },
        {"method": "server.time", "status": 401, "error": "NO_AUTH_FOUND"},
        {"method": "server.time", "status": 502},
    ]
    assert emulator.token not in repr(emulator.journal.entries())


async def test_refreshes_are_noted(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    params = {
        "grant_type": "refresh_token",
        "client_id": emulator.portal.client_id,
        "client_secret": emulator.portal.client_secret,
        "refresh_token": emulator.refresh_token,
    }
    for _ in range(2):
        async with session.get(emulator.oauth_url, params=params):
            pass
    assert noted(emulator, "oauth") == [{"status": 200}, {"status": 400, "error": "invalid_grant"}]


async def test_connections_are_noted_from_their_beginning_to_their_end(
    emulator: Emulator, session: aiohttp.ClientSession, channels: list[str]
) -> None:
    emulator.push.poll_timeout_s = 0.01
    ids = [text[:32] for text in channels]
    async with subscribe(emulator, channels) as websocket:
        await until(lambda: len(emulator.push.connections) == 1)
        url = subscription_url(emulator.sub_url, channels, WireFormat.TEXT, mid="1" * 26)
        async with session.get(url) as answer:
            assert answer.status == 304
        await websocket.close()
    await until(lambda: not emulator.push.connections)
    one = {"connection": 1, "transport": "websocket", "format": "protobuf", "mid": None}
    two = {"connection": 2, "transport": "poll", "format": "text", "mid": "1" * 26}
    assert [(entry.kind, dict(entry.details)) for entry in emulator.journal.entries()] == [
        ("subscribed", {**one, "channels": ids}),
        ("subscribed", {**two, "channels": ids}),
        ("ended", {"connection": 2, "code": None}),
        ("ended", {"connection": 1, "code": None}),
    ]


async def test_an_end_by_the_server_is_noted_once_with_its_code(
    emulator: Emulator, channels: list[str]
) -> None:
    async with subscribe(emulator, channels):
        await until(lambda: len(emulator.push.connections) == 1)
        await emulator.push.disconnect_all(1012)
    assert noted(emulator, "ended") == [{"connection": 1, "code": 1012}]


async def test_what_is_refused_is_noted(
    emulator: Emulator, session: aiohttp.ClientSession, channels: list[str]
) -> None:
    async with session.get(f"{emulator.sub_url}?CHANNEL_ID=wrong"):
        pass
    async with session.post(publication_url(emulator.rest_url, channels), data=b"?"):
        pass
    assert noted(emulator, "refused") == [
        {"what": "poll", "reason": "4010: Wrong Channel Id."},
        {"what": "publish", "reason": "4013: Wrong Request Data."},
    ]
    assert emulator.push.counters.refused == 2


@pytest.mark.parametrize("by_socket", [True, False])
async def test_what_a_client_published_is_noted(
    emulator: Emulator,
    session: aiohttp.ClientSession,
    channels: list[str],
    public_channel: PublicChannel,
    by_socket: bool,
) -> None:
    request = encode_publications([Publication([public_channel], b'{"n":1}', 60)])
    async with subscribe(emulator, channels) as websocket:
        if by_socket:
            await websocket.send(request)
        else:
            async with session.post(publication_url(emulator.rest_url, channels), data=request) as answer:
                assert answer.status == 200
        await frame(websocket)
    (published,) = noted(emulator, "published")
    assert published.pop("mid")
    own = public_channel.id.hex()
    assert published == {"channels": [own], "body": '{"n":1}', "expiry": 60, "sender": own}


async def test_version_5_notes_publications_and_acknowledgements(launch: Launch) -> None:
    emulator = await launch(version=5)
    body = {"module_id": "m", "command": "c", "params": {}}
    async with subscribe_rpc(emulator) as websocket:
        await call_rpc(websocket, "publish", {"userList": [2], "body": body})
        await websocket.send("mack:1")
        await until(lambda: bool(emulator.journal.entries("acknowledged")))
    (published,) = noted(emulator, "published")
    assert json.loads(published["body"]) == body
    assert noted(emulator, "acknowledged") == [{"mid": "1"}]
    assert channel_ids(emulator)
