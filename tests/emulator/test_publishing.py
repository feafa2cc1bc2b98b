import io
import json
import os
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from bitrix_pull.emulator import Emulator
from bitrix_pull.wire import push_pb2
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.protobuf import Publication, encode_publications, encode_status_request
from bitrix_pull.wire.urls import START_OF_HISTORY, publication_url
from tests.emulator.conftest import Clock, frame, mids, subscribe

Post = Callable[..., Awaitable[tuple[int, bytes]]]


@pytest.fixture
def post(session: aiohttp.ClientSession) -> Post:
    async def post(url: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        async with session.post(url, data=io.BytesIO(body), headers=headers) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            return answer.status, await answer.read()

    return post


def bare(channel: str) -> str:
    return channel.partition(".")[0]


def batch(request: push_pb2.Request) -> bytes:
    return push_pb2.RequestBatch(requests=[request]).SerializeToString()


def publish(*messages: push_pb2.IncomingMessage) -> push_pb2.Request:
    return push_pb2.Request(incomingMessages=push_pb2.IncomingMessagesRequest(messages=messages))


SERVER_STATS = push_pb2.Request(serverStats=push_pb2.ServerStatsRequest())
REGISTRATION = push_pb2.Request(registration=push_pb2.RegisterRequest(verificationQuery="x"))


async def sent_to(emulator: Emulator, channels: list[str]) -> list[push_pb2.OutgoingMessage]:
    """Return the messages that the history of the channels holds; at least one."""
    async with subscribe(emulator, channels, mid=START_OF_HISTORY) as websocket:
        received = push_pb2.ResponseBatch.FromString(await frame(websocket))
        return list(received.responses[0].outgoingMessages.messages)


# -- the portal publishes text --------------------------------------------------------------


async def test_portal_publishes_any_body_to_bare_ids(
    emulator: Emulator, post: Post, channels: list[str]
) -> None:
    url = publication_url(emulator.pub_url, [bare(channel) for channel in channels])
    assert await post(url, b"no json at all", **{"Message-Expiry": "60"}) == (200, b"")
    (message,) = await sent_to(emulator, channels)
    assert (message.body, message.expiry, message.sender.type) == (b"no json at all", 60, push_pb2.BACKEND)


@pytest.mark.parametrize(
    ("header", "expiry"), [("60", 60), ("12 apples", 12), ("100000", 100_000), ("9" * 30, 999_999_999)]
)
async def test_expiry_is_the_number_at_the_beginning_of_the_header(
    emulator: Emulator, post: Post, channels: list[str], header: str, expiry: int
) -> None:
    url = publication_url(emulator.pub_url, channels)
    assert (await post(url, b"{}", **{"Message-Expiry": header}))[0] == 200
    assert [message.expiry for message in await sent_to(emulator, channels)] == [expiry]


@pytest.mark.parametrize(
    "headers", [{}, {"Message-Expiry": "0"}, {"Message-Expiry": "-5"}, {"Message-Expiry": "x"}]
)
async def test_without_an_expiry_nothing_is_kept(
    emulator: Emulator, post: Post, channels: list[str], headers: dict[str, str]
) -> None:
    assert (await post(publication_url(emulator.pub_url, channels), b"{}", **headers))[0] == 200
    async with subscribe(emulator, channels, mid=START_OF_HISTORY) as websocket:
        mid = emulator.push.publish(channels, b"{}")
        assert await mids(websocket) == [mid]


async def test_portal_must_name_sound_channels(emulator: Emulator, post: Post, channels: list[str]) -> None:
    for query in ("", "?CHANNEL_ID=", f"?CHANNEL_ID={channels[0]}/short"):
        assert await post(f"{emulator.pub_url}{query}", b"{}") == (400, b"4010: Wrong Channel Id.")


@pytest.mark.parametrize(("size", "status"), [(1_048_576, 200), (1_048_577, 413)])
async def test_a_mebibyte_is_the_limit(
    emulator: Emulator, post: Post, channels: list[str], size: int, status: int
) -> None:
    assert await post(publication_url(emulator.pub_url, channels), bytes(size)) == (status, b"")


# -- the portal publishes protobuf ----------------------------------------------------------


async def test_portal_publishes_to_private_and_public_channels(
    emulator: Emulator, post: Post, channels: list[str], public_channel: PublicChannel
) -> None:
    private = push_pb2.Receiver(id=bytes.fromhex(channels[0][:32]), isPrivate=True)
    public = push_pb2.Receiver(id=public_channel.id)
    client = push_pb2.Sender(type=push_pb2.CLIENT, id=b"\x01" * 16)
    request = publish(
        push_pb2.IncomingMessage(receivers=[private], body=b"1", expiry=60),
        push_pb2.IncomingMessage(receivers=[public], body=b"2", expiry=60, sender=client),
    )
    assert await post(f"{emulator.pub_url}?binaryMode=true", batch(request)) == (200, b"")
    messages = await sent_to(emulator, channels)
    assert [(message.body, message.sender) for message in messages] == [
        (b"1", push_pb2.Sender(type=push_pb2.BACKEND)),
        (b"2", client),
    ]


async def test_portal_asks_for_the_state_of_private_channels(
    emulator: Emulator, post: Post, channels: list[str]
) -> None:
    ids = [bytes.fromhex(channels[0][:32]), bytes(16)]
    asked = [push_pb2.ChannelId(id=channel_id, isPrivate=True) for channel_id in ids]
    request = push_pb2.Request(channelStats=push_pb2.ChannelStatsRequest(channels=asked))
    async with subscribe(emulator, channels):
        _, body = await post(f"{emulator.pub_url}?binaryMode=true", batch(request))
    (response,) = push_pb2.ResponseBatch.FromString(body).responses
    assert list(response.channelStats.channels) == [
        push_pb2.ChannelStats(id=ids[0], isPrivate=True, isOnline=True),
        push_pb2.ChannelStats(id=ids[1], isPrivate=True, isOnline=False),
    ]


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (publish(push_pb2.IncomingMessage(receivers=[push_pb2.Receiver(id=b"15 bytes short.")])), 4019),
        (publish(push_pb2.IncomingMessage()), 4017),
        (REGISTRATION, 4015),
        (push_pb2.Request(), 4015),
    ],
)
async def test_portal_too_is_refused(
    emulator: Emulator, post: Post, request_: push_pb2.Request, answer: int
) -> None:
    status, body = await post(f"{emulator.pub_url}?binaryMode=true", batch(request_))
    assert (status, body[:5]) == (400, f"{answer}:".encode())


# -- clients publish --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (publish(push_pb2.IncomingMessage(receivers=[push_pb2.Receiver(id=b"17 bytes are long")])), b"4019:"),
        (push_pb2.Request(channelStats=push_pb2.ChannelStatsRequest()), b"4017:"),
        (REGISTRATION, b"4015:"),
        (push_pb2.Request(), b"4015:"),
    ],
)
async def test_refusals_that_were_not_recorded(
    emulator: Emulator, post: Post, channels: list[str], request_: push_pb2.Request, answer: bytes
) -> None:
    status, body = await post(publication_url(emulator.rest_url, channels), batch(request_))
    assert (status, body[:5]) == (400, answer)
    assert emulator.push.counters.refused == 1


async def test_of_a_batch_only_the_first_request_counts(
    emulator: Emulator, post: Post, channels: list[str], public_channel: PublicChannel
) -> None:
    good = encode_publications([Publication([public_channel], b"{}", 60)])
    # Protobuf merges by concatenation: this is one batch of two requests.
    two = good + encode_publications([Publication([], b"{}", 60)])
    assert await post(publication_url(emulator.rest_url, channels), two) == (200, b"")
    assert emulator.push.counters.messages == 1


async def test_nothing_is_sent_of_a_request_with_a_fault(
    emulator: Emulator, post: Post, channels: list[str], public_channel: PublicChannel
) -> None:
    publications = [Publication([public_channel], b"{}", 60), Publication([], b"{}", 60)]
    status, _ = await post(publication_url(emulator.rest_url, channels), encode_publications(publications))
    assert (status, emulator.push.counters.messages) == (400, 0)


async def test_a_client_cannot_pose_as_another(
    emulator: Emulator, post: Post, channels: list[str], public_channel: PublicChannel
) -> None:
    receiver = push_pb2.Receiver(id=public_channel.id, signature=public_channel.signature)
    backend = push_pb2.Sender(type=push_pb2.BACKEND)
    request = publish(push_pb2.IncomingMessage(receivers=[receiver], body=b"{}", expiry=60, sender=backend))
    assert (await post(publication_url(emulator.rest_url, channels), batch(request)))[0] == 200
    (message,) = await sent_to(emulator, channels)
    assert message.sender == push_pb2.Sender(type=push_pb2.CLIENT, id=public_channel.id)


async def test_a_hundred_messages_to_a_hundred_receivers_are_taken(
    emulator: Emulator, post: Post, channels: list[str], public_channel: PublicChannel
) -> None:
    request = encode_publications([Publication([public_channel] * 100, b"{}", 60)] * 100)
    assert await post(publication_url(emulator.rest_url, channels), request) == (200, b"")
    assert len(await sent_to(emulator, channels)) == 100


async def test_clients_ask_who_is_online_at_the_endpoint(
    emulator: Emulator, post: Post, channels: list[str], public_channel: PublicChannel
) -> None:
    request = encode_status_request([public_channel])
    async with subscribe(emulator, channels):
        _, online = await post(publication_url(emulator.rest_url, channels), request)
    _, offline = await post(publication_url(emulator.rest_url, channels), request)
    for body, is_online in ((online, True), (offline, False)):
        (response,) = push_pb2.ResponseBatch.FromString(body).responses
        assert [status.isOnline for status in response.channelStats.channels] == [is_online]


async def test_a_server_without_a_key_takes_bare_ids(clock: Clock) -> None:
    async with Emulator(security_key="", clock=clock) as emulator, aiohttp.ClientSession() as session:
        described = emulator.portal.config("application", 1)["channels"]
        channels = [described["private"]["id"], described["shared"]["id"]]
        assert "." not in "".join([*channels, described["private"]["public_id"]])
        receiver = PublicChannel.parse(described["private"]["public_id"])
        async with subscribe(emulator, channels) as websocket:
            request = encode_publications([Publication([receiver], b"{}", 60)])
            async with session.post(publication_url(emulator.rest_url, channels), data=request) as answer:
                assert answer.status == 200
            assert len(await mids(websocket)) == 1


# -- statistics -------------------------------------------------------------------------------


async def test_portal_asks_which_channels_are_online(
    emulator: Emulator, session: aiohttp.ClientSession, channels: list[str]
) -> None:
    async with (
        subscribe(emulator, channels[:1]),
        session.get(publication_url(emulator.pub_url, channels)) as answer,
    ):
        assert json.loads(await answer.read()) == {"infos": [{"channel": channels[0][:32], "subscribers": 1}]}
    async with session.get(f"{emulator.pub_url}?CHANNEL_ID=x") as answer:
        assert (answer.status, await answer.text()) == (400, "4010: Wrong Channel Id.")


async def test_server_tells_its_statistics(
    emulator: Emulator, clock: Clock, session: aiohttp.ClientSession, post: Post, channels: list[str]
) -> None:
    async with subscribe(emulator, channels):
        async with session.get(emulator.stat_url) as answer:
            (stats,) = json.loads(await answer.read())
        _, body = await post(f"{emulator.pub_url}?binaryMode=true", batch(SERVER_STATS))
    del stats["daily"]
    assert stats == {
        "pid": os.getpid(),
        "date": int(clock.now * 1000),
        "processUniqueId": str(os.getpid()),
        "channels": 3,
        "limits": {
            "maxPayload": 1_048_576,
            "maxConnPerChannel": 100,
            "maxMessagesPerRequest": 100,
            "maxChannelsPerRequest": 100,
        },
        "clusterMode": False,
        "websockets": 1,
        "pollings": 0,
    }
    (response,) = push_pb2.ResponseBatch.FromString(body).responses
    assert json.loads(response.serverStats.json)[0]["websockets"] == 1


async def test_browsers_may_ask_what_is_allowed(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    async with session.options(emulator.sub_url) as answer:
        assert answer.status == 200
        assert "GET" in answer.headers["Access-Control-Allow-Methods"]
        assert "If-None-Match" in answer.headers["Access-Control-Allow-Headers"]
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    ("verb", "path"), [("DELETE", "/bitrix/sub/"), ("HEAD", "/bitrix/sub/"), ("GET", "/")]
)
async def test_whatever_is_not_served_is_unknown(
    emulator: Emulator, session: aiohttp.ClientSession, verb: str, path: str
) -> None:
    async with session.request(verb, f"{emulator.portal_url}{path}") as answer:
        assert (answer.status, await answer.read()) == (404, b"")
