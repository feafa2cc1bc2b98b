"""The push server: subscribing, publishing, history and statistics over HTTP (protocol §3 to §9)."""

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import orjson
from aiohttp import WSMsgType, web

from bitrix_pull.emulator.channels import MAX_CHANNELS, Refused, Signer, Subscription
from bitrix_pull.emulator.frames import Outgoing, channel_stats, server_stats
from bitrix_pull.emulator.history import History
from bitrix_pull.emulator.publications import (
    MAX_MESSAGES,
    MAX_REQUEST_BYTES,
    ChannelStats,
    Publish,
    Request,
    ServerStats,
    read_trusted,
    read_untrusted,
)
from bitrix_pull.emulator.subscribers import PollSubscriber, Registry, Subscriber, WebSocketSubscriber
from bitrix_pull.events import BACKEND_SENDER, Sender
from bitrix_pull.wire.close_codes import ServerClose
from bitrix_pull.wire.formats import WireFormat

SUBSCRIBE_PATHS = ("/bitrix/sub/", "/bitrix/subws/")
PUBLISH_PATH = "/bitrix/pub/"
CLIENT_PUBLISH_PATH = "/bitrix/rest/"
STAT_PATH = "/server-stat/"

_MID = re.compile(r"[0-9]{26}")
_EXPIRY = re.compile(r"[0-9]{1,9}")
_CORS = {"Access-Control-Allow-Origin": "*"}
_CLOSE_TIMEOUT_S = 1.0


@dataclass(slots=True)
class Counters:
    """What a push server has done since it was made, over all its restarts."""

    websockets: int = 0
    pollings: int = 0
    refused: int = 0
    requests: int = 0
    messages: int = 0


class PushServer:
    """A push server of version 4 in personal mode.

    Every attribute may be changed while it runs; what is connected already keeps its old ways.

    Attributes:
        poll_timeout_s: How long a poll hangs before it is answered with 304.
        ping_interval_s: Seconds between the server's pings; who has not answered one
            after half of that is dropped.
        gather_s: How long messages to a WebSocket are gathered after one has gone out.
        max_connections_per_channel: On a private channel with a public part.
        counters: What it has done so far.
    """

    def __init__(self, security_key: str, clock: Callable[[], float] = time.time) -> None:
        self.poll_timeout_s = 40.0
        self.ping_interval_s = 120.0
        self.gather_s = 0.4
        self.max_connections_per_channel = 100
        self.counters = Counters()
        self.signer = Signer(security_key)
        self._clock = clock
        self._history = History(clock)
        self._registry = Registry()
        self._evictions: set[asyncio.Task[None]] = set()

    def add_routes(self, app: web.Application) -> None:
        """Serve its paths in an application, and 404 on all that nobody else serves."""
        for path in SUBSCRIBE_PATHS:
            app.router.add_get(path, self._subscribe, allow_head=False)
            app.router.add_options(path, self._subscribe_options)
        app.router.add_post(PUBLISH_PATH, self._publish)
        app.router.add_get(PUBLISH_PATH, self._online_channels)
        app.router.add_post(CLIENT_PUBLISH_PATH, self._publish_as_client)
        app.router.add_get(STAT_PATH, self._stat)
        app.router.add_route("*", "/{path:.*}", self._unknown_path)

    # -- what tests and demos do with it ----------------------------------------

    @property
    def connections(self) -> Sequence[Subscriber]:
        """Everyone who is subscribed now, the oldest first."""
        return self._registry.subscribers

    def publish(self, channels: Iterable[str], body: bytes | str, expiry_s: int = 0) -> str:
        """Send a message as the portal's backend does, and return its mid.

        Args:
            channels: Ids as in a ``CHANNEL_ID``; signatures may be there or not.
            body: Anything: JSON that a client can read, or not.
            expiry_s: How long to keep it for replay; 0: not at all.

        Raises:
            Refused: An id is malformed.
        """
        ids = [self.signer.read(channel, trusted=True).id for channel in channels]
        return self._send(ids, body.encode() if isinstance(body, str) else body, expiry_s, BACKEND_SENDER)

    async def disconnect_all(self, code: int | None = None, reason: str = "") -> None:
        """End every connection: with a close code, or without one, as a dying network does.

        Returns when nobody is subscribed any more.
        """
        subscribers = self._registry.subscribers
        for subscriber in subscribers:
            self._registry.remove(subscriber)
            if code is None:
                subscriber.abort()
        if code is not None:
            await asyncio.gather(*(subscriber.close(code, reason) for subscriber in subscribers))

    def begin_epoch(self, *, keep_history: bool) -> None:
        """Count mids from 1 again, with a greater prefix."""
        self._history.begin_epoch(keep=keep_history)

    async def finish(self) -> None:
        """Wait for what still runs once all connections have gone."""
        await asyncio.gather(*self._evictions)

    # -- subscribing ------------------------------------------------------------

    async def _subscribe(self, request: web.Request) -> web.StreamResponse:
        is_websocket = request.headers.get("Upgrade", "").lower() == "websocket"
        try:
            channels = self.signer.read_all(request.query.get("CHANNEL_ID", ""))
        except Refused as refusal:
            self.counters.refused += 1
            return _answer(refusal.code.text if is_websocket else str(refusal), status=400)
        mid = request.query.get("mid", "")
        resume_after = mid if _MID.fullmatch(mid) else None
        wire_format = _wire_format(request.query)
        if is_websocket:
            return await self._serve_websocket(request, channels, wire_format, resume_after)
        return await self._serve_poll(request, channels, wire_format, resume_after)

    async def _serve_websocket(
        self,
        request: web.Request,
        channels: Sequence[Subscription],
        wire_format: WireFormat,
        resume_after: str | None,
    ) -> web.StreamResponse:
        websocket = web.WebSocketResponse(
            timeout=_CLOSE_TIMEOUT_S,
            heartbeat=self.ping_interval_s,
            compress=False,
            # aiohttp would close with 1009; the real server drops the connection.
            max_msg_size=0,
        )
        websocket.headers.update(_CORS)
        transport = _transport(request)
        await websocket.prepare(request)
        subscriber = WebSocketSubscriber(channels, wire_format, transport, websocket, self.gather_s)
        self.counters.websockets += 1
        self._admit(subscriber, resume_after)
        try:
            async for frame in websocket:
                # A broken frame or no answer to our ping comes as ERROR.
                if frame.type is WSMsgType.ERROR or len(frame.data) > MAX_REQUEST_BYTES:
                    subscriber.abort()
                    break
                if wire_format is not WireFormat.PROTOBUF:
                    continue
                self.counters.requests += 1
                try:
                    self._serve_frame(subscriber, frame.data if frame.type is WSMsgType.BINARY else b"")
                except Refused as refusal:
                    self._registry.remove(subscriber)
                    await subscriber.close(refusal.code, str(refusal))
        finally:
            self._registry.remove(subscriber)
            subscriber.stop_gathering()
        return websocket

    def _serve_frame(self, subscriber: WebSocketSubscriber, frame: bytes) -> None:
        publisher = next((channel.public_id for channel in subscriber.channels if channel.public_id), None)
        if publisher is None:
            raise Refused(ServerClose.PUBLIC_CHANNEL_REQUIRED)
        answer = self._serve(read_untrusted(frame, publisher, self.signer))
        if answer:
            subscriber.answer(answer)

    async def _serve_poll(
        self,
        request: web.Request,
        channels: Sequence[Subscription],
        wire_format: WireFormat,
        resume_after: str | None,
    ) -> web.StreamResponse:
        subscriber = PollSubscriber(channels, wire_format, _transport(request))
        self.counters.pollings += 1
        self._admit(subscriber, resume_after)
        try:
            async with asyncio.timeout(self.poll_timeout_s):
                status, body = await subscriber.answered
        except TimeoutError:
            headers = {
                "Access-Control-Expose-Headers": "Last-Message-Id",
                "Last-Message-Id": resume_after or self._history.newest_mid(subscriber.ids),
                "Expires": "Thu, 01 Jan 1973 11:11:01 GMT",
            }
            return _answer(status=304, headers=headers)
        finally:
            self._registry.remove(subscriber)
        is_binary = status == 200 and wire_format is WireFormat.PROTOBUF
        return _answer(
            body, status=status, content_type="application/octet-stream" if is_binary else "text/plain"
        )

    def _admit(self, subscriber: Subscriber, resume_after: str | None) -> None:
        """Replay what the subscriber missed and let it get what is new, with no gap between."""
        if resume_after is not None:
            missed = self._history.since(subscriber.ids, resume_after)
            if missed:
                subscriber.send(Outgoing(missed, self._clock()))
        self._registry.add(subscriber)
        for channel in subscriber.channels:
            if channel.public_id is not None:
                self._evict_beyond_limit(channel.id)

    def _evict_beyond_limit(self, channel_id: bytes) -> None:
        listening = list(self._registry.on(channel_id))
        code = ServerClose.TOO_MANY_CONNECTIONS
        for subscriber in listening[: max(0, len(listening) - self.max_connections_per_channel)]:
            self._registry.remove(subscriber)
            eviction = asyncio.create_task(subscriber.close(code, code.text))
            self._evictions.add(eviction)
            eviction.add_done_callback(self._evictions.discard)

    async def _subscribe_options(self, request: web.Request) -> web.StreamResponse:
        headers = {
            "Access-Control-Allow-Methods": "POST, GET, DELETE, OPTIONS",
            "Access-Control-Allow-Headers": "If-Modified-Since, If-None-Match",
        }
        return _answer(headers=headers)

    # -- publishing and asking ----------------------------------------------------

    async def _publish_as_client(self, request: web.Request) -> web.StreamResponse:
        self.counters.requests += 1
        body = await request.read()
        if len(body) > MAX_REQUEST_BYTES:
            return _answer(status=413)
        try:
            publisher = self.signer.publisher(request.query.get("CHANNEL_ID", ""))
            answer = self._serve(read_untrusted(body, publisher, self.signer))
        except Refused as refusal:
            self.counters.refused += 1
            return _answer(str(refusal), status=400)
        return _answer(answer, content_type="application/octet-stream" if answer else "text/plain")

    async def _publish(self, request: web.Request) -> web.StreamResponse:
        self.counters.requests += 1
        body = await request.read()
        if len(body) > MAX_REQUEST_BYTES:
            return _answer(status=413)
        answer = b""
        try:
            if request.query.get("binaryMode") == "true":
                answer = self._serve(read_trusted(body))
            else:
                channels = self.signer.read_all(request.query.get("CHANNEL_ID", ""), trusted=True)
                expiry = _EXPIRY.match(request.headers.get("Message-Expiry", ""))
                expiry_s = int(expiry[0]) if expiry else 0
                self._send([channel.id for channel in channels], body, expiry_s, BACKEND_SENDER)
        except Refused as refusal:
            self.counters.refused += 1
            return _answer(str(refusal), status=400)
        return _answer(answer, content_type="application/octet-stream" if answer else "text/plain")

    async def _online_channels(self, request: web.Request) -> web.StreamResponse:
        try:
            channels = self.signer.read_all(request.query.get("CHANNEL_ID", ""), trusted=True)
        except Refused as refusal:
            return _answer(str(refusal), status=400)
        online = [channel.id.hex() for channel in channels if self._registry.on(channel.id)]
        return _answer(
            orjson.dumps({"infos": [{"channel": channel, "subscribers": 1} for channel in online]})
        )

    async def _stat(self, request: web.Request) -> web.StreamResponse:
        return _answer(self._server_stats())

    async def _unknown_path(self, request: web.Request) -> web.StreamResponse:
        return _answer(status=404)

    def _serve(self, request: Request) -> bytes:
        """Do what a request asks for; return the answer, empty if there is none."""
        match request:
            case Publish(messages):
                for message in messages:
                    self._send(message.channels, message.body, message.expiry_s, message.sender)
                return b""
            case ChannelStats(channels):
                on = self._registry.on
                return channel_stats(
                    (channel_id, private, bool(on(channel_id))) for channel_id, private in channels
                )
            case ServerStats():
                return server_stats(self._server_stats())

    def _send(self, channels: Sequence[bytes], body: bytes, expiry_s: int, sender: Sender) -> str:
        self.counters.messages += 1
        message = self._history.take(channels, body, expiry_s, sender)
        outgoing = Outgoing([message], message.created)
        for subscriber in self._registry.on_any(channels):
            subscriber.send(outgoing)
        return message.mid

    def _server_stats(self) -> bytes:
        stats = {
            "pid": os.getpid(),
            "date": int(self._clock() * 1000),
            "processUniqueId": str(os.getpid()),
            "channels": self._registry.channels,
            "limits": {
                "maxPayload": MAX_REQUEST_BYTES,
                "maxConnPerChannel": self.max_connections_per_channel,
                "maxMessagesPerRequest": MAX_MESSAGES,
                "maxChannelsPerRequest": MAX_CHANNELS,
            },
            "clusterMode": False,
            "websockets": self._registry.count(WebSocketSubscriber),
            "pollings": self._registry.count(PollSubscriber),
            # What the real server counts here is not known; these are the emulator's own.
            "daily": asdict(self.counters),
        }
        return orjson.dumps([stats])


def _transport(request: web.Request) -> asyncio.Transport:
    # A handler is cancelled when its client goes, so until it first waits there is one.
    assert request.transport is not None
    return request.transport


def _wire_format(query: Mapping[str, str]) -> WireFormat:
    for wire_format in (WireFormat.PROTOBUF, WireFormat.JSON):
        name, value = wire_format.value
        if query.get(name) == value:
            return wire_format
    return WireFormat.TEXT


def _answer(
    body: bytes | str = b"",
    *,
    status: int = 200,
    content_type: str = "text/plain",
    headers: Mapping[str, str] = {},
) -> web.Response:
    if isinstance(body, str):
        body = body.encode()
    return web.Response(status=status, body=body, headers={"Content-Type": content_type, **_CORS, **headers})
