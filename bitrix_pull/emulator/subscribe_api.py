"""The push server over HTTP: subscribing by WebSocket and by polls (protocol §4)."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import WSMessage, WSMsgType, web

from bitrix_pull.emulator.answers import CORS, answer
from bitrix_pull.emulator.channels import Refused, Subscription
from bitrix_pull.emulator.faults import Line
from bitrix_pull.emulator.jwt import Session
from bitrix_pull.emulator.publications import read_untrusted
from bitrix_pull.emulator.push_faults import ClosedAtOnce
from bitrix_pull.emulator.push_server import SUBSCRIBE_PATHS, PushServer
from bitrix_pull.emulator.rpc import RpcServer, RpcSubscriber, is_call
from bitrix_pull.emulator.subscribers import PollSubscriber, PushStreamSubscriber, WebSocketSubscriber
from bitrix_pull.wire.close_codes import ServerClose
from bitrix_pull.wire.formats import WireFormat

_MID = re.compile(r"[0-9]{26}")
_CLOSE_TIMEOUT_S = 1.0
_EXPOSED = {"Access-Control-Expose-Headers": "Last-Message-Id"}
_NO_CHANNEL = "Subscriber could not create channels."
"""How version 2 says that it does not know a channel."""


@dataclass(slots=True, frozen=True)
class _Wish:
    """What a client asks for in its subscribe address.

    Attributes:
        session: What its token admits to, where there is one.
    """

    channels: tuple[Subscription, ...]
    wire_format: WireFormat
    resume_after: str | None
    session: Session | None


class SubscribeApi:
    """Serves the subscribe endpoints of one push server.

    Version 5 speaks JSON-RPC over WebSockets to who has a token, and serves no polls:
    how real ones answer them is not known, and no client needs it.
    """

    def __init__(self, push: PushServer) -> None:
        self._push = push
        self._rpc = RpcServer(push)

    def add_routes(self, app: web.Application) -> None:
        """Serve their paths in an application."""
        for path in SUBSCRIBE_PATHS:
            app.router.add_get(path, self._subscribe, allow_head=False)
            app.router.add_options(path, self._options)

    async def _subscribe(self, request: web.Request) -> web.StreamResponse:
        push = self._push
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._meet_websocket(request)
        if (status := await push.faults.meet_poll(_line(request))) is not None:
            push.refuse("poll", status)
            return answer(status=status)
        if push.version >= 5:
            return answer(status=404)
        try:
            wish = self._read(request.query)
        except Refused as refusal:
            push.refuse("poll", refusal)
            if push.version < 3:
                return answer(status=403, headers={"X-Nginx-PushStream-Explain": _NO_CHANNEL})
            return answer(str(refusal), status=400, headers=_EXPOSED)
        return await self._serve_poll(request, wish)

    async def _meet_websocket(self, request: web.Request) -> web.StreamResponse:
        push = self._push
        refusal = await push.faults.meet_handshake(_line(request))
        if refusal is None:
            try:
                return await self._serve_websocket(request, self._read(request.query))
            except Refused as refused:
                if push.version >= 3:
                    push.refuse("websocket", refused)
                    return answer(refused.code.text, status=400)
                refusal = ClosedAtOnce(1008, f'{{"http_status": 403, "explain":"{_NO_CHANNEL}"}}')
        push.refuse("websocket", refusal)
        if isinstance(refusal, ClosedAtOnce):
            websocket = web.WebSocketResponse(timeout=_CLOSE_TIMEOUT_S, compress=False)
            await websocket.prepare(request)
            await websocket.close(code=refusal.code, message=refusal.reason.encode())
            return websocket
        location = {"Location": "/"} if 300 <= refusal < 400 else {}
        return answer(status=refusal, headers=location)

    def _read(self, query: Mapping[str, str]) -> _Wish:
        push = self._push
        if push.faults.refuse_channels:
            raise Refused(ServerClose.WRONG_CHANNEL)
        push.check_client_id(query.get("clientId"))
        mid = query.get("mid", "")
        if push.version < 3:
            mid = query.get("tag", "") if "time" in query else ""
        resume_after = mid if _MID.fullmatch(mid) else None
        if push.version >= 5:
            now = 0.0 if push.faults.ignore_token_ends else push.now()
            session = push.jwt.open(query.get("token", ""), now)
            return _Wish(session.channels, WireFormat.JSONRPC, resume_after, session)
        channels = push.signer.read_all(query.get("CHANNEL_ID", ""))
        return _Wish(channels, _wire_format(query, push), resume_after, None)

    async def _serve_websocket(self, request: web.Request, wish: _Wish) -> web.StreamResponse:
        push = self._push
        websocket = web.WebSocketResponse(
            timeout=_CLOSE_TIMEOUT_S,
            heartbeat=push.ping_interval_s if push.version >= 3 else None,
            # Version 2 answers no pings.
            autoping=push.version >= 3,
            compress=False,
            # aiohttp would close with 1009; the real server drops the connection.
            max_msg_size=0,
        )
        websocket.headers.update(CORS)
        line = _line(request)
        await websocket.prepare(request)
        line.faults = push.faults.next_connection()
        push.counters.websockets += 1
        if wish.session is None:
            subscriber = self._subscriber(wish, line, websocket)
            await self._converse(subscriber, wish.resume_after, websocket)
            return websocket
        rpc_subscriber = RpcSubscriber(wish.session, line, websocket, push.gather_s, push.rpc_ping_interval_s)
        self._rpc.welcome(rpc_subscriber)
        try:
            await self._converse(rpc_subscriber, wish.resume_after, websocket)
        finally:
            self._rpc.see_off(rpc_subscriber)
        return websocket

    def _subscriber(self, wish: _Wish, line: Line, websocket: web.WebSocketResponse) -> WebSocketSubscriber:
        push = self._push
        if push.version >= 3:
            return WebSocketSubscriber(wish.channels, wish.wire_format, line, websocket, push.gather_s)
        return PushStreamSubscriber(
            wish.channels, wish.wire_format, line, websocket, push.gather_s, push.ping_interval_s
        )

    async def _converse(
        self, subscriber: WebSocketSubscriber, resume_after: str | None, websocket: web.WebSocketResponse
    ) -> None:
        """Serve one connection to its end."""
        push = self._push
        push.admit(subscriber, resume_after)
        try:
            async for frame in websocket:
                # A broken frame or no answer to our ping comes as ERROR.
                if frame.type is WSMsgType.ERROR or len(frame.data) > push.limits.request_bytes:
                    subscriber.abort()
                    break
                try:
                    self._serve_frame(subscriber, frame)
                except Refused as refusal:
                    push.refuse("publish", refusal)
                    push.dismiss(subscriber, refusal.code)
                    await subscriber.close(refusal.code, str(refusal))
        except ConnectionError:
            pass  # It went while a ping of its was answered.
        finally:
            push.dismiss(subscriber)
            subscriber.stop()

    def _serve_frame(self, subscriber: WebSocketSubscriber, frame: WSMessage) -> None:
        push = self._push
        asks = is_call(frame.data) if isinstance(subscriber, RpcSubscriber) else True
        fault = push.faults.next_publishing() if asks else None
        if fault is None or fault.applied:
            self._obey_frame(subscriber, frame)
        if fault is not None and fault.refusal is not None:
            raise Refused(fault.refusal)
        if fault is not None:
            subscriber.line.end("reset")

    def _obey_frame(self, subscriber: WebSocketSubscriber, frame: WSMessage) -> None:
        push = self._push
        if isinstance(subscriber, RpcSubscriber):
            self._rpc.receive(subscriber, frame.data)
        elif subscriber.wire_format is WireFormat.PROTOBUF:
            push.counters.requests += 1
            ids = (channel.public_id for channel in subscriber.channels)
            publisher = next(filter(None, ids), None)
            if publisher is None:
                raise Refused(ServerClose.PUBLIC_CHANNEL_REQUIRED)
            request = frame.data if frame.type is WSMsgType.BINARY else b""
            answered = push.serve(read_untrusted(request, push.limits, publisher, push.signer))
            if answered:
                subscriber.answer(answered)

    async def _serve_poll(self, request: web.Request, wish: _Wish) -> web.StreamResponse:
        push = self._push
        line = _line(request)
        line.faults = push.faults.next_poll()
        subscriber = PollSubscriber(wish.channels, wish.wire_format, line)
        push.counters.pollings += 1
        push.admit(subscriber, wish.resume_after)
        try:
            async with asyncio.timeout(push.poll_timeout_s):
                status, body = await subscriber.answered
        except TimeoutError:
            newest = wish.resume_after or push.newest_mid(subscriber)
            headers = {
                **_EXPOSED,
                "Last-Message-Id": newest if push.version >= 3 else "",
                "Expires": "Thu, 01 Jan 1973 11:11:01 GMT",
            }
            return answer(status=304, headers=headers)
        finally:
            push.dismiss(subscriber)
        if status != 200:
            return answer(body, status=status, headers=_EXPOSED)
        is_binary = wish.wire_format is WireFormat.PROTOBUF
        return answer(body, content_type="application/octet-stream" if is_binary else "text/plain")

    async def _options(self, request: web.Request) -> web.StreamResponse:
        headers = {
            "Access-Control-Allow-Methods": "POST, GET, DELETE, OPTIONS",
            "Access-Control-Allow-Headers": "If-Modified-Since, If-None-Match",
        }
        return answer(headers=headers)


def _line(request: web.Request) -> Line:
    # A handler is cancelled when its client goes, so until it first waits there is one.
    assert isinstance(request.transport, Line)
    return request.transport


def _wire_format(query: Mapping[str, str], push: PushServer) -> WireFormat:
    # Version 3 knows no other than text, whatever it is asked for, and a box no JSON arrays.
    known = [WireFormat.PROTOBUF] if push.version >= 4 else []
    if push.mode == "shared":
        known.append(WireFormat.JSON)
    for wire_format in known:
        name, value = wire_format.value
        if query.get(name) == value:
            return wire_format
    return WireFormat.TEXT
