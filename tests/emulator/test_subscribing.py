import asyncio
import json
from collections.abc import Callable

import aiohttp
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.subscribers import Subscriber
from bitrix_pull.wire import push_pb2, text
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.protobuf import Publication, encode_publications, encode_status_request
from bitrix_pull.wire.urls import START_OF_HISTORY, publication_url, subscription_url
from tests.emulator.conftest import Clock, Launch, channel_ids, frame, mids, subscribe, until

pytestmark = pytest.mark.every_loop

Poll = Callable[..., "asyncio.Task[tuple[int, bytes]]"]


@pytest.fixture
def poll(emulator: Emulator, session: aiohttp.ClientSession, channels: list[str]) -> Poll:
    """Start a poll of user 1's channels: status and body."""

    async def get(url: str) -> tuple[int, bytes]:
        async with session.get(url) as answer:
            return answer.status, await answer.read()

    def poll(*, mid: str | None = None, endpoint: str | None = None) -> "asyncio.Task[tuple[int, bytes]]":
        url = subscription_url(endpoint or emulator.sub_url, channels, WireFormat.PROTOBUF, mid=mid)
        return asyncio.create_task(get(url))

    return poll


def poll_mids(body: bytes) -> list[str]:
    batch = push_pb2.ResponseBatch.FromString(body)
    return [
        message.id.hex() for response in batch.responses for message in response.outgoingMessages.messages
    ]


# -- both ways to subscribe, at both addresses ------------------------------------------


async def test_every_address_takes_polls_and_websockets(
    emulator: Emulator, channels: list[str], poll: Poll
) -> None:
    http = [emulator.sub_url, emulator.subws_url.replace("ws:", "http:")]
    polls = [poll(endpoint=url) for url in http]
    await until(lambda: len(emulator.push.connections) == 2)
    url = subscription_url(emulator.sub_url.replace("http:", "ws:"), channels, WireFormat.PROTOBUF)
    async with subscribe(emulator, channels) as first, connect(url) as second:
        mid = emulator.push.publish(channels[:1], b"{}")
        assert await mids(first) == await mids(second) == [mid]
    assert [poll_mids(body) for _, body in await asyncio.gather(*polls)] == [[mid], [mid]]


async def test_nothing_is_missed_from_the_moment_of_being_connected(
    emulator: Emulator, channels: list[str]
) -> None:
    for _ in range(20):
        async with subscribe(emulator, channels) as websocket:
            mid = emulator.push.publish(channels[1:], b"{}")
            assert await mids(websocket) == [mid]


async def test_after_a_quiet_time_a_message_goes_out_at_once(emulator: Emulator, channels: list[str]) -> None:
    emulator.push.gather_s = 0.02
    async with subscribe(emulator, channels) as websocket:
        first = emulator.push.publish(channels, b"{}")
        await asyncio.sleep(0.05)
        second, third = (emulator.push.publish(channels, b"{}") for _ in range(2))
        assert [await mids(websocket) for _ in range(3)] == [[first], [second], [third]]


async def test_old_and_new_channels_in_one_connection(
    emulator: Emulator, clock: Clock, channels: list[str]
) -> None:
    clock.now += 50_000
    config = emulator.portal.config("application", 1)
    new = [config["channels"][kind]["id"] for kind in ("private", "shared")]
    async with subscribe(emulator, [*channels, *new]) as websocket:
        sent = [emulator.push.publish([channel], b"{}") for channel in (*channels, *new)]
        assert [*await mids(websocket), *await mids(websocket)] == sent


async def test_a_public_channel_cannot_be_subscribed_to(
    emulator: Emulator, public_channel: PublicChannel, channels: list[str]
) -> None:
    public = f"{public_channel.id.hex()}.{public_channel.signature.hex()}"
    with pytest.raises(InvalidStatus) as refusal:
        await subscribe(emulator, [channels[0], public])
    assert (refusal.value.response.status_code, refusal.value.response.body) == (400, b"Wrong Channel Id.")
    assert emulator.push.connections == []


# -- history ----------------------------------------------------------------------------


async def test_replay_comes_first_and_what_follows_after_it(emulator: Emulator, channels: list[str]) -> None:
    missed = [emulator.push.publish([channel], b"{}", 60) for channel in (*channels, *channels)]
    emulator.push.publish(channels, b"{}", 0)
    async with subscribe(emulator, channels, mid=missed[0]) as websocket:
        live = emulator.push.publish(channels, b"{}", 60)
        assert await mids(websocket) == missed[1:]
        assert await mids(websocket) == [live]


@pytest.mark.parametrize("mid", ["", "1" * 25, "1" * 27, "a" * 26, "0" * 25 + "\n"])
async def test_what_is_no_mid_is_ignored(emulator: Emulator, channels: list[str], mid: str) -> None:
    emulator.push.publish(channels, b"{}", 60)
    async with subscribe(emulator, channels, mid=mid) as websocket:
        live = emulator.push.publish(channels, b"{}", 60)
        assert await mids(websocket) == [live]


async def test_a_message_on_two_channels_of_a_connection_comes_once(
    emulator: Emulator, channels: list[str]
) -> None:
    async with subscribe(emulator, channels) as websocket:
        mid = emulator.push.publish(channels, b"{}", 60)
        after = emulator.push.publish(channels, b"{}", 60)
        assert await mids(websocket) == [mid]
        assert await mids(websocket) == [after]
    async with subscribe(emulator, channels, mid=START_OF_HISTORY) as websocket:
        assert await mids(websocket) == [mid, after]


async def test_what_clients_sent_is_in_the_history_of_the_private_channel(
    emulator: Emulator, session: aiohttp.ClientSession, channels: list[str], public_channel: PublicChannel
) -> None:
    request = encode_publications([Publication([public_channel], b"{}", 60)])
    async with session.post(publication_url(emulator.rest_url, channels), data=request) as answer:
        assert answer.status == 200
    async with subscribe(emulator, channels[:1], mid=START_OF_HISTORY) as websocket:
        assert len(await mids(websocket)) == 1


async def test_a_poll_with_a_mid_is_answered_from_history_at_once(
    emulator: Emulator, channels: list[str], poll: Poll
) -> None:
    missed = [emulator.push.publish(channels[:1], b"{}", 60) for _ in range(3)]
    status, body = await poll(mid=missed[0])
    assert (status, poll_mids(body)) == (200, missed[1:])
    assert emulator.push.connections == []


async def test_between_two_polls_without_a_mid_messages_are_lost(
    emulator: Emulator, channels: list[str], poll: Poll
) -> None:
    first = poll()
    await until(lambda: len(emulator.push.connections) == 1)
    sent = [emulator.push.publish(channels[:1], b"{}", 60) for _ in range(2)]
    assert poll_mids((await first)[1]) == sent[:1]
    second = poll()
    await until(lambda: len(emulator.push.connections) == 1)
    sent.append(emulator.push.publish(channels[:1], b"{}", 60))
    assert poll_mids((await second)[1]) == sent[2:]


async def test_without_history_an_idle_poll_names_no_mid(
    emulator: Emulator, session: aiohttp.ClientSession, channels: list[str]
) -> None:
    emulator.push.poll_timeout_s = 0.01
    async with session.get(subscription_url(emulator.sub_url, channels, WireFormat.PROTOBUF)) as answer:
        assert (answer.status, answer.headers["Last-Message-Id"]) == (304, "")


# -- formats ------------------------------------------------------------------------------


async def test_the_cloud_knows_json_an_array_of_the_same_envelopes(launch: Launch) -> None:
    emulator = await launch(mode="shared")
    channels = channel_ids(emulator)
    url = subscription_url(
        emulator.subws_url, channels, WireFormat.JSON, client_id=emulator.push.client_id, mid=START_OF_HISTORY
    )
    bodies = [f'{{"n":{n}}}' for n in range(4)]
    old = [emulator.push.publish(channels, body, 60) for body in bodies[:2]]
    async with connect(url) as websocket:
        new = [emulator.push.publish(channels, body, 60) for body in bodies[2:]]
        frames = [json.loads(await frame(websocket)) for _ in range(2)]
    assert [[envelope["mid"] for envelope in envelopes] for envelopes in frames] == [old, new]
    assert [envelope["text"]["n"] for envelopes in frames for envelope in envelopes] == [0, 1, 2, 3]


@pytest.mark.parametrize("wire_format", [WireFormat.TEXT, WireFormat.JSON])
async def test_text_formats_name_a_sending_client(
    emulator: Emulator, channels: list[str], public_channel: PublicChannel, wire_format: WireFormat
) -> None:
    request = encode_publications([Publication([public_channel], b'{"module_id":"m","command":"c"}', 0)])
    async with subscribe(emulator, channels, wire_format) as reader, subscribe(emulator, channels) as writer:
        await writer.send(request)
        envelope = (await frame(reader)).decode().strip("#!NGIXMSE[]")
    assert json.loads(envelope)["extra"] == {"sender": {"type": 1, "id": public_channel.id.hex()}}


async def test_a_body_that_is_no_json_is_pasted_as_it_is(emulator: Emulator, channels: list[str]) -> None:
    async with (
        subscribe(emulator, channels) as binary,
        subscribe(emulator, channels, WireFormat.TEXT) as delimited,
    ):
        emulator.push.publish(channels, b"{no json \xff")
        batch = push_pb2.ResponseBatch.FromString(await frame(binary))
        assert batch.responses[0].outgoingMessages.messages[0].body == b"{no json \xff"
        assert (await frame(delimited)).endswith('"text":{no json \ufffd}'.encode() + text.CLOSING)


async def test_an_answer_is_gathered_with_messages(
    emulator: Emulator, channels: list[str], public_channel: PublicChannel
) -> None:
    async with subscribe(emulator, channels) as websocket:
        first = emulator.push.publish(channels, b"{}")
        await websocket.send(encode_status_request([public_channel]))
        assert await mids(websocket) == [first]
        (response,) = push_pb2.ResponseBatch.FromString(await frame(websocket)).responses
        assert response.channelStats.channels[0].isOnline


# -- ends -----------------------------------------------------------------------------------


async def test_over_the_limit_the_oldest_of_a_channel_is_closed(
    emulator: Emulator, channels: list[str], poll: Poll
) -> None:
    emulator.push.max_connections_per_channel = 2
    async with subscribe(emulator, channels) as oldest:
        hanging = poll()
        await until(lambda: len(emulator.push.connections) == 2)
        async with subscribe(emulator, channels), subscribe(emulator, channels) as newest:
            with pytest.raises(ConnectionClosed) as closed:
                await frame(oldest)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4029, "4029: Too many connections")
            assert await hanging == (429, b"4029: Too many connections")
            mid = emulator.push.publish(channels, b"{}")
            assert await mids(newest) == [mid]


async def test_there_is_no_limit_on_a_channel_without_a_public_part(
    emulator: Emulator, channels: list[str]
) -> None:
    emulator.push.max_connections_per_channel = 1
    async with subscribe(emulator, channels[1:]) as first, subscribe(emulator, channels[1:]):
        mid = emulator.push.publish(channels[1:], b"{}")
        assert await mids(first) == [mid]


async def test_who_does_not_answer_pings_is_dropped(emulator: Emulator, channels: list[str]) -> None:
    emulator.push.ping_interval_s = 0.05
    address, port = emulator.portal.address.split(":")
    reader, writer = await asyncio.open_connection(address, int(port))
    path = subscription_url("/bitrix/subws/", channels, WireFormat.PROTOBUF)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101")
    assert b"access-control-allow-origin: *" in head.lower()
    assert b"permessage-deflate" not in head, "the server never compresses"
    async with asyncio.timeout(5):
        assert await reader.readexactly(2) == b"\x89\x00", "a ping"
        assert await reader.read() == b"", "and the end, without a close frame"
    writer.close()
    await writer.wait_closed()
    await until(lambda: emulator.push.connections == [])


async def test_who_answers_pings_stays(emulator: Emulator, channels: list[str]) -> None:
    # A busy machine may let a pong wait for a while.
    emulator.push.ping_interval_s = 0.4
    async with subscribe(emulator, channels) as websocket:
        await asyncio.sleep(1.0)
        mid = emulator.push.publish(channels, b"{}")
        assert await mids(websocket) == [mid]


async def test_who_breaks_the_websocket_protocol_is_closed(emulator: Emulator, channels: list[str]) -> None:
    async with subscribe(emulator, channels) as websocket:
        websocket.transport.write(b"\xff\xff\xff\xff")
        with pytest.raises(ConnectionClosed) as closed:
            await frame(websocket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1002
    await until(lambda: emulator.push.connections == [])


async def test_a_poll_ends_with_its_client(emulator: Emulator, poll: Poll) -> None:
    hanging = poll()
    await until(lambda: len(emulator.push.connections) == 1)
    hanging.cancel()
    await until(lambda: emulator.push.connections == [])
    assert emulator.push.counters.pollings == 1


async def test_a_websocket_ends_with_its_client(emulator: Emulator, channels: list[str]) -> None:
    async with subscribe(emulator, channels) as websocket:
        websocket.transport.abort()
        await until(lambda: emulator.push.connections == [])
    assert emulator.push.counters.websockets == 1


async def test_all_can_be_cut_off_without_a_word(emulator: Emulator, channels: list[str], poll: Poll) -> None:
    hanging = poll()
    await until(lambda: len(emulator.push.connections) == 1)
    async with subscribe(emulator, channels) as websocket:
        await emulator.push.disconnect_all()
        assert emulator.push.connections == []
        with pytest.raises(ConnectionClosed) as closed:
            await frame(websocket)
        assert closed.value.rcvd is None
    # aiohttp's client repeats a GET whose connection was cut.
    await until(lambda: emulator.push.counters.pollings == 2)
    hanging.cancel()


async def test_all_can_be_closed_with_a_code(emulator: Emulator, channels: list[str], poll: Poll) -> None:
    hanging = poll()
    await until(lambda: len(emulator.push.connections) == 1)
    async with subscribe(emulator, channels) as websocket:
        # A message that is still being gathered is lost with the connection.
        emulator.push.publish(channels[1:], b"{}")
        emulator.push.publish(channels[1:], b"{}")
        await emulator.push.disconnect_all(4010, "Wrong Channel Id.")
        assert emulator.push.connections == []
        assert len(await mids(websocket)) == 1
        with pytest.raises(ConnectionClosed) as closed:
            await frame(websocket)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4010, "Wrong Channel Id.")
    assert (await hanging)[0] == 200, "the poll had its message already"


async def test_one_connection_can_be_ended(emulator: Emulator, channels: list[str]) -> None:
    async with subscribe(emulator, channels) as first, subscribe(emulator, channels) as second:
        oldest: Subscriber = emulator.push.connections[0]
        oldest.abort()
        with pytest.raises(ConnectionClosed):
            await frame(first)
        mid = emulator.push.publish(channels, b"{}")
        assert await mids(second) == [mid]
