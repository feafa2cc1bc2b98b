"""Every exchange recorded from a real push server, replayed against the emulator.

The emulator runs on the recording's clock and counts its messages to the recorded mid,
so nothing has to be left out of a comparison: frames are equal byte for byte.
"""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bitrix_pull.emulator import Emulator
from bitrix_pull.wire import push_pb2
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.protobuf import Publication, encode_publications
from bitrix_pull.wire.text import CLOSING, OPENING
from bitrix_pull.wire.urls import publication_url, subscription_url
from tests.emulator.conftest import Clock, until

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "traffic.json").read_text())
MORE = json.loads((Path(__file__).parents[1] / "reference" / "traffic_more.json").read_text())
FIRST = {exchange["name"]: exchange for exchange in REFERENCE["exchanges"]}
SECOND = {exchange["name"]: exchange for exchange in MORE["exchanges"]}
EXCHANGES = FIRST | SECOND
RECORDING_STARTED = 1_795_313_001.0
MORE_RECORDING_STARTED = 1_795_734_827.0

PRIVATE = REFERENCE["channels"]["private"]["id"]
SHARED = REFERENCE["channels"]["shared"]["id"]
OTHER_PRIVATE = REFERENCE["channels"]["private_other_user"]["id"]
PUBLIC = PublicChannel.parse(REFERENCE["channels"]["private"]["public_id"])
BADLY_SIGNED = PRIVATE[:-1] + ("0" if PRIVATE[-1] != "0" else "1")

# What an HTTP server sets as it likes.
TRANSPORT_HEADERS = {"Date", "Server", "Connection", "Keep-Alive", "Transfer-Encoding", "Content-Length"}

Exchange = Mapping[str, Any]


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Message:
    """One message as the recording holds it."""

    mid: str
    body: bytes
    sent_at: float


@dataclass
class Replay:
    emulator: Emulator
    clock: Clock
    session: aiohttp.ClientSession

    def subscribe(self, wire_format: WireFormat, *channels: str, mid: str | None = None) -> connect:
        return connect(subscription_url(self.emulator.subws_url, channels, wire_format, mid=mid))

    async def poll(self, wire_format: WireFormat, *channels: str, mid: str | None = None) -> Answer:
        return await self.get(subscription_url(self.emulator.sub_url, channels, wire_format, mid=mid))

    async def get(self, url: str) -> Answer:
        async with self.session.get(url) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def post(self, request: bytes, query: str) -> Answer:
        async with self.session.post(f"{self.emulator.rest_url}?{query}", data=io.BytesIO(request)) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    def count_to(self, mid: str) -> None:
        """Let the next message, the first that a test looks at, get this mid."""
        for _ in range(int(mid[10:]) - 1):
            self.emulator.push.publish([OTHER_PRIVATE], b"{}")

    def publish(self, channel: str, *messages: Message, expiry_s: int = 3600) -> None:
        """Publish messages as they were when they were recorded."""
        for message in messages:
            self.clock.now = message.sent_at
            assert self.emulator.push.publish([channel], message.body, expiry_s) == message.mid

    def publish_in_turn(self, messages: list[Message]) -> None:
        """Publish messages on the private and the shared channel, one after the other."""
        self.count_to(messages[0].mid)
        for number, message in enumerate(messages):
            self.publish([PRIVATE, SHARED][number % 2], message)


@pytest.fixture
async def replay(clock: Clock, name: str) -> AsyncIterator[Replay]:
    clock.now = RECORDING_STARTED if name in FIRST else MORE_RECORDING_STARTED
    key, epoch = REFERENCE["security_key"], int(clock.now)
    async with Emulator(security_key=key, clock=clock, epoch=epoch) as emulator:
        emulator.push.gather_s = 0.05
        emulator.push.poll_timeout_s = 0.1
        async with aiohttp.ClientSession() as session:
            yield Replay(emulator, clock, session)


Recipe = Callable[[Replay, Exchange], Awaitable[None]]
RECIPES: dict[str, Recipe] = {}


def replays(beginning: str) -> Callable[[Recipe], Recipe]:
    """Make a function the recipe for the one exchange whose name begins so."""
    (name,) = [beginning] if beginning in EXCHANGES else [n for n in EXCHANGES if n.startswith(beginning)]

    def register(recipe: Recipe) -> Recipe:
        assert name not in RECIPES
        RECIPES[name] = recipe
        return recipe

    return register


@pytest.mark.parametrize("name", EXCHANGES)
async def test_emulator_does_what_was_recorded(replay: Replay, name: str) -> None:
    await RECIPES[name](replay, EXCHANGES[name])


# -- the recording, read ------------------------------------------------------------


def payload(recorded: str) -> bytes:
    return recorded.encode() if recorded.startswith("#!") else base64.b64decode(recorded)


def messages_in(frame: bytes) -> list[Message]:
    """Read the messages of a recorded frame with a reader that is not the client's."""
    if not frame.startswith(OPENING):
        batch = push_pb2.ResponseBatch.FromString(frame)
        return [
            Message(message.id.hex(), message.body, float(message.created))
            for response in batch.responses
            for message in response.outgoingMessages.messages
        ]
    messages: list[Message] = []
    for envelope in frame.removeprefix(OPENING).removesuffix(CLOSING).split(CLOSING + OPENING):
        fields = json.loads(envelope)
        sent_at = parsedate_to_datetime(fields["time"]).timestamp() + int(fields["tag"]) / 1000
        body = envelope.partition(b'"text":')[2][:-1]
        messages.append(Message(fields["mid"], body, sent_at))
    return messages


def assert_same(answer: Answer, exchange: Exchange) -> None:
    assert answer.status == exchange["status"]
    assert answer.body == (payload(exchange["body"]) if answer.status == 200 else exchange["body"].encode())
    if "headers" in exchange:
        assert own_headers(answer.headers) == own_headers(exchange["headers"])


def own_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in TRANSPORT_HEADERS}


# -- WebSocket: what is sent ----------------------------------------------------------


def one_message(wire_format: WireFormat, channel: str) -> Recipe:
    async def recipe(replay: Replay, exchange: Exchange) -> None:
        frame = payload(exchange["frame"])
        (message,) = messages_in(frame)
        replay.count_to(message.mid)
        async with replay.subscribe(wire_format, PRIVATE, SHARED) as websocket:
            replay.publish(channel, message)
            assert await received(websocket) == frame

    return recipe


def burst(wire_format: WireFormat) -> Recipe:
    async def recipe(replay: Replay, exchange: Exchange) -> None:
        frame = payload(exchange["frame"])
        rest = messages_in(frame)
        first = Message(f"{int(rest[0].mid) - 1:026}", rest[0].body, rest[0].sent_at)
        replay.count_to(first.mid)
        async with replay.subscribe(wire_format, PRIVATE, SHARED) as websocket:
            replay.publish(PRIVATE, first, *rest)
            assert [message.mid for message in messages_in(await received(websocket))] == [first.mid]
            assert await received(websocket) == frame

    return recipe


def history(wire_format: WireFormat) -> Recipe:
    async def recipe(replay: Replay, exchange: Exchange) -> None:
        frame = payload(exchange["frame"])
        replay.publish_in_turn(messages_in(frame))
        async with replay.subscribe(wire_format, PRIVATE, SHARED, mid=exchange["mid"]) as websocket:
            assert await received(websocket) == frame

    return recipe


async def received(websocket: ClientConnection) -> bytes:
    frame = await asyncio.wait_for(websocket.recv(), 5)
    if isinstance(frame, bytes):
        return frame
    assert frame.startswith(OPENING.decode()), "only the text format comes in text frames"
    return frame.encode()


for prefix, wire_format in (("ws binary", WireFormat.PROTOBUF), ("ws text", WireFormat.TEXT)):
    replays(f"{prefix}: one message on the private channel")(one_message(wire_format, PRIVATE))
    replays(f"{prefix}: one message on the shared channel")(one_message(wire_format, SHARED))
    replays(f"{prefix}: a burst")(burst(wire_format))
    replays(f"{prefix}: a body that contains the text delimiters")(one_message(wire_format, PRIVATE))
    replays(f"{prefix}: history after mid")(history(wire_format))


@replays("ws binary: a message that a client published")
async def _(replay: Replay, exchange: Exchange) -> None:
    frame = payload(exchange["frame"])
    (message,) = messages_in(frame)
    replay.count_to(message.mid)
    replay.clock.now = message.sent_at
    async with replay.subscribe(WireFormat.PROTOBUF, PRIVATE, SHARED) as websocket:
        await websocket.send(payload(exchange["request"]))
        assert await received(websocket) == frame


@replays("ws binary: channelStats")
async def _(replay: Replay, exchange: Exchange) -> None:
    async with replay.subscribe(WireFormat.PROTOBUF, PRIVATE, SHARED) as websocket:
        await websocket.send(payload(exchange["request"]))
        assert await received(websocket) == payload(exchange["frame"])


# -- long polling -----------------------------------------------------------------------


def poll_history(wire_format: WireFormat) -> Recipe:
    async def recipe(replay: Replay, exchange: Exchange) -> None:
        replay.publish_in_turn(messages_in(payload(exchange["body"])))
        assert_same(await replay.poll(wire_format, PRIVATE, SHARED, mid=exchange["mid"]), exchange)

    return recipe


replays("long poll binary: history after mid")(poll_history(WireFormat.PROTOBUF))
replays("long poll text: history after mid")(poll_history(WireFormat.TEXT))


@replays("long poll binary: a live message ends the request")
async def _(replay: Replay, exchange: Exchange) -> None:
    replay.emulator.push.poll_timeout_s = 5
    (message,) = messages_in(payload(exchange["body"]))
    replay.count_to(message.mid)
    poll = asyncio.create_task(replay.poll(WireFormat.PROTOBUF, PRIVATE, SHARED))
    await until(lambda: len(replay.emulator.push.connections) == 1)
    replay.publish(PRIVATE, message)
    assert_same(await poll, exchange)


@replays("long poll: wrong channel signature")
async def _(replay: Replay, exchange: Exchange) -> None:
    assert_same(await replay.poll(WireFormat.PROTOBUF, BADLY_SIGNED, SHARED), exchange)


@replays("long poll: no channel")
async def _(replay: Replay, exchange: Exchange) -> None:
    assert_same(await replay.get(replay.emulator.sub_url), exchange)


@replays("long poll: idle for 40 s, no mid given")
async def _(replay: Replay, exchange: Exchange) -> None:
    newest = exchange["headers"]["Last-Message-Id"]
    replay.count_to(newest)
    replay.publish(PRIVATE, Message(newest, b"{}", RECORDING_STARTED))
    # A message for another user that came after it does not count.
    replay.emulator.push.publish([OTHER_PRIVATE], b"{}", 3600)
    assert_same(await replay.poll(WireFormat.PROTOBUF, PRIVATE, SHARED), exchange)


@replays("long poll: idle for 40 s, mid given")
async def _(replay: Replay, exchange: Exchange) -> None:
    mid = exchange["headers"]["Last-Message-Id"]
    assert_same(await replay.poll(WireFormat.PROTOBUF, PRIVATE, SHARED, mid=mid), exchange)


# -- WebSocket: what is refused at the handshake -------------------------------------------


def refused_handshake(query: str) -> Recipe:
    async def recipe(replay: Replay, exchange: Exchange) -> None:
        with pytest.raises(InvalidStatus) as refusal:
            await connect(f"{replay.emulator.subws_url}?{query}")
        response = refusal.value.response
        assert_same(Answer(response.status_code, response.headers, bytes(response.body or b"")), exchange)

    return recipe


for case, query in {
    "wrong channel signature": f"CHANNEL_ID={BADLY_SIGNED}",
    "one good channel and one bad": f"CHANNEL_ID={SHARED}/{BADLY_SIGNED}",
    "no channel": "binaryMode=true",
}.items():
    replays(f"ws handshake: {case}")(refused_handshake(query))


# -- publishing: requests and what comes of them ---------------------------------------------


def publish_request(*receivers: PublicChannel, messages: int = 1, body: bytes = b"{}") -> bytes:
    return encode_publications([Publication(receivers, body, 60)] * messages)


def private_receiver() -> bytes:
    request = push_pb2.Request()
    message = request.incomingMessages.messages.add(body=b"{}", expiry=60)
    message.receivers.add(id=PUBLIC.id, isPrivate=True, signature=PUBLIC.signature)
    return push_pb2.RequestBatch(requests=[request]).SerializeToString()


REFUSED_REQUESTS = {
    "wrong receiver signature": publish_request(PublicChannel(PUBLIC.id, bytes(20))),
    "private receiver": private_receiver(),
    "no receivers": publish_request(),
    "101 messages": publish_request(PUBLIC, messages=101),
    "101 receivers": publish_request(*[PUBLIC] * 101),
    "not protobuf": b"\xffnot protobuf",
    "serverStats": push_pb2.RequestBatch(
        requests=[push_pb2.Request(serverStats=push_pb2.ServerStatsRequest())]
    ).SerializeToString(),
    "over 1 MiB": publish_request(PUBLIC, body=bytes(1_048_576)),
}


def endpoint(request: bytes, channels: str = f"{PRIVATE}/{SHARED}") -> Recipe:
    async def recipe(replay: Replay, exchange: Exchange) -> None:
        query = exchange.get("query") or publication_url("", [channels]).lstrip("?")
        recorded = exchange.get("request")
        assert_same(await replay.post(payload(recorded) if recorded else request, query), exchange)

    return recipe


for name, request in REFUSED_REQUESTS.items():
    replays(f"publish endpoint: {name}")(endpoint(request))
for name in (
    "accepted",
    "accepted with private and shared",
    "no signature on the publisher's channel",
    "publisher has no public channel",
    "empty body",
):
    replays(f"publish endpoint: {name}")(endpoint(b"" if name == "empty body" else publish_request(PUBLIC)))


def closed_socket(request: bytes | str, *channels: str) -> Recipe:
    async def recipe(replay: Replay, exchange: Exchange) -> None:
        async with replay.subscribe(WireFormat.PROTOBUF, *channels) as websocket:
            await websocket.send(request)
            with pytest.raises(ConnectionClosed) as closed:
                await received(websocket)
        close_frame = closed.value.rcvd
        assert (close_frame and [close_frame.code, close_frame.reason]) == exchange["close"]

    return recipe


for name, request in REFUSED_REQUESTS.items():
    replays(f"ws publish: {name}")(closed_socket(request, PRIVATE, SHARED))
replays("ws publish: text frame")(closed_socket("hello", PRIVATE, SHARED))
replays("ws publish: publisher subscribed to the shared")(closed_socket(publish_request(PUBLIC), SHARED))


@replays("unknown path")
async def _(replay: Replay, exchange: Exchange) -> None:
    assert_same(await replay.get(f"{replay.emulator.portal_url}/bitrix/unknown/"), exchange)


@replays("ws publish: in text mode a client frame is ignored")
async def _(replay: Replay, exchange: Exchange) -> None:
    async with replay.subscribe(WireFormat.TEXT, PRIVATE, SHARED) as websocket:
        await websocket.send(publish_request(PUBLIC))
        await websocket.send("hello")
        await (await websocket.ping())
        mid = replay.emulator.push.publish([PRIVATE], b"{}")
        assert [message.mid for message in messages_in(await received(websocket))] == [mid]
        assert replay.emulator.push.counters.messages == 1


# -- the second recording ---------------------------------------------------------------------


async def requested(replay: Replay, exchange: Exchange) -> Answer:
    """Send the recorded request to the path that the emulator has for its."""
    request = exchange["request"]
    recorded_path, question, query = request["path"].partition("?")
    url = replay.emulator.portal_url + PATHS[recorded_path] + question + query
    body = base64.b64decode(request.get("body_base64", ""))
    async with replay.session.request(request["method"], url, data=body or None) as answer:
        return Answer(answer.status, answer.headers, await answer.read())


PATHS = {"/pub/": "/bitrix/pub/", "/rest/": "/bitrix/rest/", "/subws/": "/bitrix/subws/", "/api/": "/api/"}

for name in (
    "pub GET: no channels",
    "trusted stats: invalid channel id",
    "trusted message: invalid private receiver",
    "OPTIONS rest",
    "json-rpc api on a version 4 server",
    "subscribe: upper-case channel id",
    "subscribe: channel with a trailing slash",
):

    @replays(name)
    async def _(replay: Replay, exchange: Exchange) -> None:
        assert_same(await requested(replay, exchange), exchange)


def publish_recorded(replay: Replay, frame: bytes) -> None:
    (message,) = messages_in(frame)
    replay.count_to(message.mid)
    replay.publish(PRIVATE, message)


for query in ("format=json", "jsonRpc=true"):

    @replays(f"poll with {query} on a box")
    async def _(replay: Replay, exchange: Exchange) -> None:
        replay.emulator.push.poll_timeout_s = 5
        poll = asyncio.create_task(requested(replay, exchange))
        await until(lambda: len(replay.emulator.push.connections) == 1)
        publish_recorded(replay, payload(exchange["body"]))
        assert_same(await poll, exchange)

    @replays(f"websocket with {query} on a box")
    async def _(replay: Replay, exchange: Exchange) -> None:
        _, _, query = exchange["request"]["path"].partition("?")
        async with connect(f"{replay.emulator.subws_url}?{query}") as websocket:
            publish_recorded(replay, exchange["frame_text"].encode())
            assert await websocket.recv() == exchange["frame_text"]


async def hundred_come(replay: Replay) -> AsyncExitStack:
    stack = AsyncExitStack()
    for _ in range(100):
        await stack.enter_async_context(replay.subscribe(WireFormat.PROTOBUF, PRIVATE))
    return stack


@replays("websocket: the 101st connection evicts the first")
async def _(replay: Replay, exchange: Exchange) -> None:
    async with replay.subscribe(WireFormat.PROTOBUF, PRIVATE) as first, await hundred_come(replay):
        with pytest.raises(ConnectionClosed) as closed:
            await received(first)
    close_frame = closed.value.rcvd
    assert (close_frame and [close_frame.code, close_frame.reason]) == exchange["close"]


@replays("poll: evicted by the 101st")
async def _(replay: Replay, exchange: Exchange) -> None:
    replay.emulator.push.poll_timeout_s = 10
    poll = asyncio.create_task(replay.poll(WireFormat.PROTOBUF, PRIVATE))
    await until(lambda: len(replay.emulator.push.connections) == 1)
    async with await hundred_come(replay):
        assert_same(await poll, exchange)
