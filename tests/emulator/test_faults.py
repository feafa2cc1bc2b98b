import asyncio
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.faults import ConnectionFaults
from bitrix_pull.emulator.push_faults import ClosedAtOnce
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.urls import subscription_url
from tests.emulator.conftest import Call, Clock, Launch, mids, subscribe, until

pytestmark = pytest.mark.every_loop


def handshake(channels: list[str]) -> bytes:
    path = subscription_url("/bitrix/subws/", channels, WireFormat.PROTOBUF)
    return (
        f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    ).encode()


async def connect_raw(emulator: Emulator) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address, port = emulator.portal.address.split(":")
    return await asyncio.open_connection(address, int(port))


async def close_raw(writer: asyncio.StreamWriter) -> None:
    # Without waiting: who was reset has an error to tell there.
    writer.transport.abort()
    await asyncio.sleep(0)


async def assert_polling_works(
    emulator: Emulator, session: aiohttp.ClientSession, channels: list[str]
) -> None:
    first = emulator.push.publish(channels, b"{}", 60)
    emulator.push.publish(channels, b"{}", 60)
    url = subscription_url(emulator.sub_url, channels, WireFormat.PROTOBUF, mid=first)
    async with session.get(url) as answer:
        assert answer.status == 200


# -- WebSockets that are blocked ------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 302, 307, 401, 403, 404, 405, 407, 410, 426, 500, 502])
async def test_handshakes_are_refused_with_a_status(
    emulator: Emulator, session: aiohttp.ClientSession, channels: list[str], status: int
) -> None:
    emulator.push.faults.websocket_refusal = status
    reader, writer = await connect_raw(emulator)
    writer.write(handshake(channels))
    answered = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert int(answered.split()[1]) == status
    assert (b"Location: " in answered) is (300 <= status < 400)
    await close_raw(writer)
    assert emulator.push.counters.refused == 1
    await assert_polling_works(emulator, session, channels)


@pytest.mark.parametrize(
    "refusal", [ClosedAtOnce(), ClosedAtOnce(1008, "blocked"), ClosedAtOnce(4036, "4036: Wrong Client Id")]
)
async def test_handshakes_are_taken_and_closed_at_once(
    emulator: Emulator, session: aiohttp.ClientSession, channels: list[str], refusal: ClosedAtOnce
) -> None:
    emulator.push.faults.websocket_refusal = refusal
    async with subscribe(emulator, channels) as websocket:
        with pytest.raises(ConnectionClosed) as closed:
            await websocket.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (refusal.code, refusal.reason)
    await assert_polling_works(emulator, session, channels)


async def test_handshakes_are_reset(
    emulator: Emulator, session: aiohttp.ClientSession, channels: list[str]
) -> None:
    emulator.push.faults.websocket_refusal = "reset"
    reader, writer = await connect_raw(emulator)
    writer.write(handshake(channels))
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 5)
    await close_raw(writer)
    await assert_polling_works(emulator, session, channels)


async def test_handshakes_vanish_in_a_black_hole(
    emulator: Emulator, session: aiohttp.ClientSession, channels: list[str]
) -> None:
    emulator.push.faults.websocket_refusal = "black_hole"
    reader, writer = await connect_raw(emulator)
    writer.write(handshake(channels))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)
    await close_raw(writer)
    await assert_polling_works(emulator, session, channels)
    # Another one hangs when the emulator stops: it must not hold that up.
    _, writer = await connect_raw(emulator)
    writer.write(handshake(channels))
    await writer.drain()
    async with asyncio.timeout(2):
        await emulator.stop()
    await close_raw(writer)


async def test_a_block_comes_and_goes_and_spares_who_is_connected(
    emulator: Emulator, channels: list[str]
) -> None:
    async with subscribe(emulator, channels) as connected:
        emulator.push.faults.websocket_refusal = 403
        with pytest.raises(InvalidStatus):
            await subscribe(emulator, channels)
        mid = emulator.push.publish(channels, b"{}")
        assert await mids(connected) == [mid]
        emulator.push.faults.websocket_refusal = None
        async with subscribe(emulator, channels):
            assert len(emulator.push.connections) == 2


# -- polls that are blocked -----------------------------------------------------------------


@pytest.mark.parametrize("refusal", [403, 407, 502, "reset", "black_hole"])
async def test_polls_are_blocked_while_the_websocket_works(
    emulator: Emulator, session: aiohttp.ClientSession, channels: list[str], refusal: Any
) -> None:
    first = emulator.push.publish(channels, b"{}", 60)
    emulator.push.publish(channels, b"{}", 60)
    url = subscription_url(emulator.sub_url, channels, WireFormat.PROTOBUF, mid=first)
    emulator.push.faults.poll_refusal = refusal
    if isinstance(refusal, int):
        async with session.get(url) as answer:
            assert answer.status == refusal
    else:
        with pytest.raises(aiohttp.ClientOSError if refusal == "reset" else TimeoutError):
            await session.get(url, timeout=aiohttp.ClientTimeout(total=0.2))
    async with subscribe(emulator, channels) as connected:
        mid = emulator.push.publish(channels, b"{}")
        assert await mids(connected) == [mid]
    emulator.push.faults.poll_refusal = None
    async with session.get(url) as answer:
        assert answer.status == 200


async def test_the_answer_to_a_poll_trickles(
    emulator: Emulator, session: aiohttp.ClientSession, channels: list[str]
) -> None:
    first = emulator.push.publish(channels, b"{}", 60)
    emulator.push.publish(channels, b"x" * 2_000, 60)
    url = subscription_url(emulator.sub_url, channels, WireFormat.PROTOBUF, mid=first)
    emulator.push.faults.poll_script = lambda number: ConnectionFaults(bytes_per_s=10_000 if number else None)
    loop = asyncio.get_running_loop()
    took: list[float] = []
    for _ in range(2):
        began = loop.time()
        async with session.get(url) as answer:
            assert len(await answer.read()) > 2_000
        took.append(loop.time() - began)
    assert took[1] > 0.15


# -- channels that are refused though they are valid ------------------------------------------


async def test_valid_channels_are_refused(
    emulator: Emulator, session: aiohttp.ClientSession, channels: list[str]
) -> None:
    emulator.push.faults.refuse_channels = True
    with pytest.raises(InvalidStatus) as refusal:
        await subscribe(emulator, channels)
    assert (refusal.value.response.status_code, refusal.value.response.body) == (400, b"Wrong Channel Id.")
    async with session.get(subscription_url(emulator.sub_url, channels, WireFormat.PROTOBUF)) as answer:
        assert (answer.status, await answer.text()) == (400, "4010: Wrong Channel Id.")
    emulator.push.faults.refuse_channels = False
    async with subscribe(emulator, channels):
        await until(lambda: len(emulator.push.connections) == 1)


async def test_ended_channels_are_taken_as_the_reference_server_takes_them(
    emulator: Emulator, channels: list[str], clock: Clock
) -> None:
    clock.now += 60 * 3600
    async with subscribe(emulator, channels):
        await until(lambda: len(emulator.push.connections) == 1)


async def test_an_ended_token_of_version_5_is_refused_unless_told_otherwise(
    launch: Launch, clock: Clock
) -> None:
    emulator = await launch(version=5)
    jwt = emulator.portal.config("application", 1)["jwt"]
    clock.now += 60 * 3600
    url = subscription_url(emulator.subws_url, [], WireFormat.JSONRPC, jwt=jwt)
    with pytest.raises(InvalidStatus):
        await connect(url)
    emulator.push.faults.ignore_token_ends = True
    async with connect(url):
        await until(lambda: len(emulator.push.connections) == 1)


async def test_a_push_server_with_another_key_than_the_portals(
    emulator: Emulator, session: aiohttp.ClientSession, channels: list[str], launch: Launch
) -> None:
    emulator.push.change_security_key("another")
    with pytest.raises(InvalidStatus) as refusal:
        await subscribe(emulator, channels)
    assert refusal.value.response.body == b"Wrong Channel Id."
    # The portal goes on signing with its own: what it tells is good for that alone.
    told = emulator.portal.config("application", 1)["channels"]["private"]["id"]
    assert told == channels[0]
    newer = await launch(version=5)
    newer.push.change_security_key("another")
    jwt = newer.portal.config("application", 1)["jwt"]
    with pytest.raises(InvalidStatus):
        await connect(subscription_url(newer.subws_url, [], WireFormat.JSONRPC, jwt=jwt))


async def test_a_history_that_keeps_nothing_still_hands_on(emulator: Emulator, channels: list[str]) -> None:
    first = emulator.portal.send("kept")
    emulator.push.faults.keeps_nothing = True
    async with subscribe(emulator, channels) as websocket:
        await until(lambda: len(emulator.push.connections) == 1)
        lost = emulator.portal.send("lost")
        assert await mids(websocket) == [lost]
    async with subscribe(emulator, channels, mid="0" * 26) as websocket:
        assert await mids(websocket) == [first]


# -- a portal that is shut ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status"), [("PORTAL_DELETED", 403), ("PAYMENT_REQUIRED", 402), ("SERVER_ERROR", 500)]
)
async def test_a_portal_is_shut_for_a_while(emulator: Emulator, call: Call, code: Any, status: int) -> None:
    emulator.portal.faults.maintenance = code
    for method in ("pull.application.config.get", "server.time"):
        answered, body = await call(method)
        assert (answered, body["error"]) == (status, code)
    emulator.portal.faults.maintenance = None
    assert (await call("server.time"))[0] == 200


# -- REST ---------------------------------------------------------------------------------------


async def test_rest_calls_fail_as_often_as_told(
    emulator: Emulator, session: aiohttp.ClientSession, call: Call
) -> None:
    emulator.portal.faults.fail_rest(2)
    emulator.portal.faults.fail_rest(1, 503, '{"error":"QUERY_LIMIT_EXCEEDED"}', "application/json")
    for _ in range(2):
        async with session.post(f"{emulator.portal_url}/rest/server.time") as answer:
            assert (answer.status, answer.content_type) == (502, "text/html")
            assert "Bad Gateway" in await answer.text()
    assert await call("server.time") == (503, {"error": "QUERY_LIMIT_EXCEEDED"})
    assert (await call("server.time"))[0] == 200
    assert emulator.portal.calls == {"server.time": 4}


# -- a slow portal ----------------------------------------------------------------------------


async def test_rest_is_slow(emulator: Emulator, call: Call) -> None:
    emulator.portal.faults.delay_s = 0.1
    began = asyncio.get_running_loop().time()
    status, _ = await call("pull.application.config.get")
    assert status == 200
    assert asyncio.get_running_loop().time() - began >= 0.1
