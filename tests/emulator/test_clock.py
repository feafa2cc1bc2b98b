import asyncio
from email.utils import parsedate_to_datetime

import aiohttp
import pytest

from bitrix_pull.emulator import Emulator
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.urls import publication_url, subscription_url
from tests.emulator.conftest import Call, Clock, subscribe, until

PUSH_PATHS = [
    ("OPTIONS", "/bitrix/sub/"),
    ("GET", "/bitrix/sub/"),
    ("GET", "/bitrix/subws/"),
    ("POST", "/bitrix/pub/"),
    ("POST", "/bitrix/rest/"),
    ("GET", "/server-stat/"),
    ("GET", "/unknown/"),
]
PORTAL_PATHS = [("POST", "/rest/server.time"), ("POST", "/rest/1/x/server.time"), ("GET", "/oauth/token/")]


async def date(session: aiohttp.ClientSession, verb: str, url: str) -> float:
    async with session.request(verb, url) as answer:
        return parsedate_to_datetime(answer.headers["Date"]).timestamp()


@pytest.mark.parametrize(("verb", "path"), PUSH_PATHS + PORTAL_PATHS)
async def test_every_answer_is_dated_by_the_clock(
    emulator: Emulator, clock: Clock, session: aiohttp.ClientSession, verb: str, path: str
) -> None:
    clock.now = 1_900_000_000.9
    assert await date(session, verb, emulator.portal_url + path) == 1_900_000_000


@pytest.mark.parametrize(("verb", "path"), PUSH_PATHS + PORTAL_PATHS)
async def test_a_portal_can_have_a_clock_of_its_own(
    emulator: Emulator, session: aiohttp.ClientSession, verb: str, path: str
) -> None:
    emulator.portal.clock_offset_s = -3600
    expected = 1_800_000_000 - (3600 if (verb, path) in PORTAL_PATHS else 0)
    assert await date(session, verb, emulator.portal_url + path) == expected


async def test_polls_and_handshakes_are_dated_when_they_are_answered(
    emulator: Emulator, clock: Clock, session: aiohttp.ClientSession, channels: list[str]
) -> None:
    emulator.push.dates_handshakes = True
    async with subscribe(emulator, channels) as websocket:
        assert websocket.response is not None
        assert parsedate_to_datetime(websocket.response.headers["Date"]).timestamp() == 1_800_000_000
    url = subscription_url(emulator.sub_url, channels, WireFormat.PROTOBUF)
    poll = asyncio.create_task(date(session, "GET", url))
    await until(lambda: len(emulator.push.connections) == 1)
    clock.now += 40
    emulator.push.publish(channels, b"{}")
    assert await poll == 1_800_000_040


async def test_what_a_portal_tells_goes_by_its_own_clock(emulator: Emulator, call: Call) -> None:
    emulator.portal.clock_offset_s = 3600
    emulator.portal.server_time_in_config = True
    _, body = await call("pull.application.config.get")
    assert body["time"]["start"] == 1_800_003_600
    assert body["result"]["serverTime"] == "2027-01-15T12:00:00+03:00"
    assert body["result"]["exp"] == 1_800_003_600 + 86_400
    for kind in ("private", "shared"):
        assert body["result"]["channels"][kind]["start"] == "2027-01-15T12:00:00+03:00"
        assert body["result"]["channels"][kind]["end"] == "2027-01-16T00:00:05+03:00"


async def test_what_expires_on_a_portal_goes_by_its_own_clock(
    emulator: Emulator, clock: Clock, call: Call
) -> None:
    emulator.portal.clock_offset_s = -3600
    token = emulator.portal.issue_token(expires_in_s=7200)
    clock.now += 7200 + 3599
    emulator.portal.clock_offset_s = -3600 - 3599.5
    assert (await call("server.time", token=token))[0] == 200
    emulator.portal.clock_offset_s = -3599
    assert (await call("server.time", token=token))[1]["error"] == "expired_token"


async def test_the_push_server_keeps_the_true_time(
    emulator: Emulator, clock: Clock, session: aiohttp.ClientSession, channels: list[str]
) -> None:
    emulator.portal.clock_offset_s = 86_400
    async with session.post(publication_url(emulator.pub_url, channels), data=b"{}") as answer:
        assert answer.status == 200
    async with session.get(emulator.stat_url) as answer:
        (stats,) = await answer.json(content_type=None)
    assert stats["date"] == int(clock.now * 1000)
