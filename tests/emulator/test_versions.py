"""What differs between versions and modes. Version 4 in personal mode has the other test files."""

import asyncio
import base64
import json
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bitrix_pull.emulator import Emulator
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.protobuf import Publication, encode_publications
from bitrix_pull.wire.text import CLOSING, OPENING
from bitrix_pull.wire.urls import START_OF_HISTORY, publication_url, subscription_url
from tests.emulator.conftest import Clock, Launch, channel_ids, frame, mids, until
from tests.emulator.test_methods import shape
from tests.emulator.test_rest import REFERENCE


def sample(name: str) -> Any:
    """Return the shape of a recorded configuration."""
    result = json.loads((REFERENCE / name).read_text())["result"]
    public = result["publicChannels"]
    return shape(result | {"publicChannels": {"1": public["577"]} if public else public})


def envelopes(payload: bytes) -> list[dict[str, Any]]:
    """Return the envelopes of a frame or body of delimited text."""
    assert payload.startswith(OPENING)
    texts = payload.removeprefix(OPENING).removesuffix(CLOSING).split(CLOSING + OPENING)
    return [json.loads(text) for text in texts]


async def text_mids(websocket: ClientConnection) -> list[str]:
    return [envelope["mid"] for envelope in envelopes(await frame(websocket))]


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(ValueError, match="no version 6"):
        Emulator(version=6)


# -- version 3 ----------------------------------------------------------------------------------


async def test_version_3_has_no_public_channels(launch: Launch) -> None:
    emulator = await launch(version=3)
    config = emulator.portal.config("application", 1)
    assert shape(config) == sample("config_v3_box.json")
    assert config["server"]["version"] == 3
    assert config["server"]["publish_enabled"] is False
    assert config["publicChannels"] is False
    assert config["channels"]["private"]["public_id"] == ""
    for kind in ("private", "shared"):
        channel_id, _, signature = config["channels"][kind]["id"].partition(".")
        assert (len(channel_id), len(signature)) == (32, 40)


async def test_version_3_knows_nobodys_public_channel(launch: Launch, session: aiohttp.ClientSession) -> None:
    emulator = await launch(version=3)
    for method, params in (
        ("pull.channel.public.get", {"USER_ID": 1}),
        ("pull.channel.public.list", {"USERS": [1, 2]}),
    ):
        async with session.post(f"{emulator.webhook_url}{method}.json", json=params) as answer:
            assert (answer.status, (await answer.json())["result"]) == (200, [])


@pytest.mark.parametrize("wire_format", [WireFormat.TEXT, WireFormat.JSON, WireFormat.PROTOBUF])
async def test_version_3_speaks_text_whatever_it_is_asked_for(
    launch: Launch, session: aiohttp.ClientSession, wire_format: WireFormat
) -> None:
    emulator = await launch(version=3)
    ids = channel_ids(emulator)
    first, second = (emulator.portal.send(command, users=[1]) for command in ("first", "second"))
    async with connect(subscription_url(emulator.subws_url, ids, wire_format, mid=first)) as websocket:
        third = emulator.portal.send("third")
        assert [await text_mids(websocket), await text_mids(websocket)] == [[second], [third]]
        # Frames of clients are ignored.
        await websocket.send(encode_publications([Publication([], b"{}", 0)]))
        fourth = emulator.portal.send("fourth")
        assert await text_mids(websocket) == [fourth]
    async with session.get(subscription_url(emulator.sub_url, ids, wire_format, mid=second)) as answer:
        assert answer.content_type == "text/plain"
        assert [envelope["mid"] for envelope in envelopes(await answer.read())] == [third, fourth]


async def test_version_3_has_no_publish_endpoint_for_clients(
    launch: Launch, session: aiohttp.ClientSession
) -> None:
    emulator = await launch(version=3)
    async with session.post(publication_url(emulator.rest_url, channel_ids(emulator))) as answer:
        assert answer.status == 404
    # The portal's own is there.
    async with session.post(publication_url(emulator.pub_url, channel_ids(emulator)), data=b"{}") as answer:
        assert answer.status == 200


# -- version 2 ----------------------------------------------------------------------------------


def position(envelope: dict[str, Any]) -> str:
    """Return what a client of version 2 adds to its address."""
    return "&" + urlencode({"tag": envelope["tag"], "time": envelope["time"]})


async def test_version_2_resumes_after_tag_and_time(
    launch: Launch, clock: Clock, session: aiohttp.ClientSession
) -> None:
    emulator = await launch(version=2)
    url = subscription_url(emulator.subws_url, channel_ids(emulator), WireFormat.TEXT)
    async with connect(url) as websocket:
        emulator.portal.send("first")
        (first,) = envelopes(await frame(websocket))
    assert "mid" not in first
    assert first["time"] == "Fri, 15 Jan 2027 08:00:00 GMT"
    emulator.portal.send("second")
    clock.now += 1
    emulator.portal.send("third", users=[1])
    async with session.get(url.replace("ws:", "http:") + position(first)) as answer:
        second, third = envelopes(await answer.read())
    assert [second["text"]["command"], third["text"]["command"]] == ["second", "third"]
    assert third["time"] == "Fri, 15 Jan 2027 08:00:01 GMT"
    async with connect(url + position(second)) as websocket:
        assert envelopes(await frame(websocket)) == [third]


@pytest.mark.parametrize("names", [{"mid": "tag"}, {"tag": "tag"}, {"time": "time"}])
async def test_version_2_resumes_after_nothing_else(launch: Launch, names: dict[str, str]) -> None:
    emulator = await launch(version=2)
    url = subscription_url(emulator.subws_url, channel_ids(emulator), WireFormat.TEXT)
    values = {"tag": START_OF_HISTORY, "time": "Fri, 15 Jan 2027 08:00:00 GMT"}
    query = urlencode({name: values[value] for name, value in names.items()})
    emulator.portal.send("missed")
    async with connect(f"{url}&{query}") as websocket:
        emulator.portal.send("live")
        assert [envelope["text"]["command"] for envelope in envelopes(await frame(websocket))] == ["live"]


async def test_version_2_names_no_mid_after_an_idle_poll(
    launch: Launch, session: aiohttp.ClientSession
) -> None:
    emulator = await launch(version=2)
    emulator.push.poll_timeout_s = 0.01
    emulator.portal.send("kept")
    async with session.get(
        subscription_url(emulator.sub_url, channel_ids(emulator), WireFormat.TEXT)
    ) as answer:
        assert (answer.status, answer.headers["Last-Message-Id"]) == (304, "")


async def test_version_2_pings_and_answers_none(launch: Launch) -> None:
    emulator = await launch(version=2)
    emulator.push.ping_interval_s = 0.05
    url = subscription_url(emulator.subws_url, channel_ids(emulator), WireFormat.TEXT)
    async with connect(url, ping_interval=None) as websocket:
        pong = asyncio.ensure_future(await websocket.ping())
        # What keeps the connection alive is nothing to read.
        assert [await frame(websocket) for _ in range(4)] == [b'""', b""] * 2
        assert not pong.done()
        pong.cancel()
        # Who answers no pings is kept.
        assert len(emulator.push.connections) == 1
        emulator.portal.send("c")
        while not (received := await frame(websocket)).startswith(OPENING):
            assert received in (b'""', b"")


async def test_version_2_closes_where_it_does_not_know_a_channel(
    launch: Launch, session: aiohttp.ClientSession
) -> None:
    emulator = await launch(version=2)
    emulator.push.faults.refuse_channels = True
    url = subscription_url(emulator.subws_url, channel_ids(emulator), WireFormat.TEXT)
    async with connect(url) as websocket:
        with pytest.raises(ConnectionClosed) as closed:
            await frame(websocket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
    assert json.loads(closed.value.rcvd.reason)["http_status"] == 403
    async with session.get(url.replace("ws:", "http:")) as answer:
        assert answer.status == 403
    assert emulator.push.counters.refused == 2


# -- shared mode ----------------------------------------------------------------------------------


async def test_config_in_shared_mode_has_the_shape_of_a_live_one(launch: Launch) -> None:
    emulator = await launch(mode="shared")
    config = emulator.portal.config("application", 1)
    assert shape(config) == sample("config_v4_shared_mode.json")
    assert config["server"]["mode"] == "shared"
    assert config["clientId"] == emulator.push.client_id


async def test_the_client_id_follows_from_the_key(launch: Launch) -> None:
    first, same, other = [
        (await launch(mode="shared", security_key=key)).push.client_id for key in ("a", "a", "b")
    ]
    assert first == same != other


async def test_public_channels_can_be_told_in_shared_mode(launch: Launch) -> None:
    emulator = await launch(mode="shared")
    emulator.portal.public_channels_in_config = True
    assert set(emulator.portal.config("application", 1)["publicChannels"]) == {"1"}


async def test_every_address_needs_the_client_id(launch: Launch, session: aiohttp.ClientSession) -> None:
    emulator = await launch(mode="shared")
    ids = channel_ids(emulator)
    right = emulator.push.client_id
    missed = emulator.push.publish(ids, b"{}", 60)

    def url(endpoint: str, client_id: str | None, mid: str | None = None) -> str:
        return subscription_url(endpoint, ids, WireFormat.TEXT, client_id=client_id, mid=mid)

    for wrong in (None, "0" * 32):
        with pytest.raises(InvalidStatus) as refusal:
            await connect(url(emulator.subws_url, wrong))
        response = refusal.value.response
        assert (response.status_code, response.body) == (400, b"Wrong Client Id")
        async with session.get(url(emulator.sub_url, wrong)) as answer:
            assert (answer.status, await answer.text()) == (400, "4036: Wrong Client Id")
        for verb in ("POST", "GET"):
            pub = publication_url(emulator.pub_url, ids, client_id=wrong)
            async with session.request(verb, pub, data=b"") as answer:
                assert (answer.status, await answer.text()) == (400, "4036: Wrong Client Id")
    async with connect(url(emulator.subws_url, right)) as websocket:
        async with session.post(publication_url(emulator.pub_url, ids, client_id=right), data=b"{}") as sent:
            assert sent.status == 200
        assert len(await text_mids(websocket)) == 1
    async with session.get(url(emulator.sub_url, right, START_OF_HISTORY)) as answer:
        assert [envelope["mid"] for envelope in envelopes(await answer.read())] == [missed]


async def test_clients_publish_with_the_client_id(launch: Launch, session: aiohttp.ClientSession) -> None:
    emulator = await launch(mode="shared")
    ids = channel_ids(emulator)
    private = emulator.portal.config("application", 1)["channels"]["private"]
    request = encode_publications([Publication([PublicChannel.parse(private["public_id"])], b"{}", 0)])
    url = subscription_url(emulator.subws_url, ids, WireFormat.PROTOBUF, client_id=emulator.push.client_id)
    async with connect(url) as websocket:
        async with session.post(publication_url(emulator.rest_url, ids), data=request) as answer:
            assert (answer.status, await answer.text()) == (400, "4036: Wrong Client Id")
        right = publication_url(emulator.rest_url, ids, client_id=emulator.push.client_id)
        async with session.post(right, data=request) as answer:
            assert answer.status == 200
        assert len(await mids(websocket)) == 1


async def test_personal_mode_ignores_a_client_id(launch: Launch) -> None:
    emulator = await launch()
    url = subscription_url(emulator.subws_url, channel_ids(emulator), WireFormat.TEXT, client_id="any")
    async with connect(url):
        await until(lambda: len(emulator.push.connections) == 1)


# -- version 5: what leads to it --------------------------------------------------------------------


def claims(jwt: str) -> dict[str, Any]:
    payload = jwt.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))


async def test_config_of_version_5_has_the_shape_of_a_live_one(launch: Launch) -> None:
    emulator = await launch(version=5)
    assert shape(emulator.portal.config("application", 1)) == sample("config_v5_jwt.json")


async def test_the_token_says_what_a_live_one_says(launch: Launch) -> None:
    emulator = await launch(version=5)
    config = emulator.portal.config("application", 7)
    live = json.loads((REFERENCE / "config_v5_jwt.json").read_text())["result"]["jwt"]
    said = claims(config["jwt"])
    assert set(said) == set(claims(live))
    assert said["sub"] == "7"
    assert said["chan"] == config["channels"]["shared"]["id"].partition(".")[0]
    assert said["exp"] == config["exp"] == 1_800_043_205
    assert said["iat"] == 1_800_000_000


async def test_the_token_stays_until_its_end(launch: Launch, clock: Clock) -> None:
    emulator = await launch(version=5)
    jwt = emulator.portal.config("application", 1)["jwt"]
    clock.now += 43_204
    assert emulator.portal.config("application", 1)["jwt"] == jwt
    clock.now += 1
    assert emulator.portal.config("application", 1)["jwt"] != jwt


@pytest.mark.parametrize("version", [2, 3, 5])
def test_in_shared_mode_there_is_version_4_alone(version: int) -> None:
    with pytest.raises(ValueError, match="always 4"):
        Emulator(mode="shared", version=version)


async def test_version_5_serves_no_polls(launch: Launch, session: aiohttp.ClientSession) -> None:
    emulator = await launch(version=5)
    jwt = emulator.portal.config("application", 1)["jwt"]
    async with session.get(subscription_url(emulator.sub_url, [], WireFormat.JSONRPC, jwt=jwt)) as answer:
        assert answer.status == 404
