"""JSON-RPC over WebSockets, as the push server speaks it from version 5 on (protocol §4.3)."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

import orjson
from aiohttp import web

from bitrix_pull.emulator import json_values
from bitrix_pull.emulator.faults import Line
from bitrix_pull.emulator.frames import join, text_frame
from bitrix_pull.emulator.jwt import Session
from bitrix_pull.emulator.push_server import PushServer
from bitrix_pull.emulator.subscribers import WebSocketSubscriber
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import Sender, SenderType
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.jsonrpc import PING, PONG

_MACK = "mack:"

_PARSE_ERROR = (-32700, "Parse error")
_INVALID_REQUEST = (-32600, "Invalid Request")
_METHOD_NOT_FOUND = (-32601, "Method not found")
_INVALID_PARAMS = (-32602, "Invalid params")


class _InvalidParams(Exception):  # noqa: N818 - what the client gets, not what went wrong here
    """A call's params are no good."""


class RpcSubscriber(WebSocketSubscriber):
    """A WebSocket that speaks JSON-RPC. It is pinged with text, and dropped if it is silent.

    Attributes:
        session: What the token that it came with admits to.
        watched: Ids of the users whose coming and going it wants to know.
    """

    def __init__(
        self,
        session: Session,
        line: Line,
        websocket: web.WebSocketResponse,
        gather_s: float,
        ping_interval_s: float,
    ) -> None:
        super().__init__(session.channels, WireFormat.JSONRPC, line, websocket, gather_s)
        self.session = session
        self.watched: set[int] = set()
        self._ping_interval_s = ping_interval_s
        self._ponged = True
        self._pinging = asyncio.get_running_loop().call_later(ping_interval_s, self._ping)

    def pong(self) -> None:
        """Take note of a sign of life."""
        self._ponged = True

    def stop(self) -> None:
        """Stop pinging, and drop what has not gone out yet."""
        self._pinging.cancel()
        super().stop()

    def _ping(self) -> None:
        if not self._ponged:
            self.abort()
            return
        self._ponged = False
        self.line.write(text_frame(PING))
        self._pinging = asyncio.get_running_loop().call_later(self._ping_interval_s, self._ping)


class RpcServer:
    """Answers what the clients of one push server ask in JSON-RPC."""

    def __init__(self, push: PushServer) -> None:
        self._push = push
        self._methods: Mapping[str, Callable[[RpcSubscriber, Mapping[str, Any]], Any]] = {
            "publish": self._publish,
            "getUsersLastSeen": self._last_seen,
            "subscribeStatusChange": self._watch,
            "unsubscribeStatusChange": self._unwatch,
            "listChannels": self._list_channels,
            "ping": self._pong,
        }

    def welcome(self, subscriber: RpcSubscriber) -> None:
        """Count the subscriber's user in."""
        if self._push.presence.arrive(subscriber.session.user_id):
            self._tell_watchers(subscriber.session.user_id, online=True)

    def see_off(self, subscriber: RpcSubscriber) -> None:
        """Count the subscriber's user out."""
        if self._push.presence.leave(subscriber.session.user_id):
            self._tell_watchers(subscriber.session.user_id, online=False)

    def receive(self, subscriber: RpcSubscriber, frame: str | bytes) -> None:
        """Do what a frame says: ``pong``, ``mack:MID``, a call or an array of them."""
        text = frame.decode(errors="replace") if isinstance(frame, bytes) else frame
        if text == PONG.decode():
            subscriber.pong()
        elif text.startswith(_MACK):
            self._push.acknowledge(text.removeprefix(_MACK))
        else:
            self._push.counters.requests += 1
            replies = self._replies(subscriber, text)
            if replies:
                subscriber.answer(join(WireFormat.JSONRPC, [orjson.dumps(reply) for reply in replies]))

    def _replies(self, subscriber: RpcSubscriber, text: str) -> list[dict[str, Any]]:
        try:
            content = json_values.loads(text)
        except orjson.JSONDecodeError:
            return [_error(_PARSE_ERROR, None)]
        calls = cast("list[object]", content) if isinstance(content, list) else [content]
        return [reply for call in calls if (reply := self._reply(subscriber, call)) is not None]

    def _reply(self, subscriber: RpcSubscriber, call: object) -> dict[str, Any] | None:
        if not isinstance(call, dict):
            return _error(_INVALID_REQUEST, None)
        fields = cast("dict[str, Any]", call)
        if "id" not in fields or "method" not in fields:
            return None  # A notification, or the reply to a request of ours: we make none.
        call_id, params = fields["id"], fields.get("params", {})
        method = self._methods.get(str(fields["method"]))
        if method is None:
            return _error(_METHOD_NOT_FOUND, call_id)
        try:
            if not isinstance(params, dict):
                raise _InvalidParams
            result = method(subscriber, cast("dict[str, Any]", params))
        except _InvalidParams:
            return _error(_INVALID_PARAMS, call_id)
        return {"jsonrpc": "2.0", "id": call_id, "result": result}

    # -- methods ----------------------------------------------------------------------

    def _publish(self, subscriber: RpcSubscriber, params: Mapping[str, Any]) -> Any:
        push = self._push
        receivers = [push.jwt.address(user_id) for user_id in _user_ids(params.get("userList", []))]
        receivers += self._public_channels(params.get("channelList", []))
        if not 0 < len(receivers) <= push.limits.receivers:
            raise _InvalidParams
        body, expiry_s = params.get("body"), params.get("expiry", 0)
        if not isinstance(body, dict) or type(expiry_s) is not int or expiry_s < 0:
            raise _InvalidParams
        names = [cast("dict[str, Any]", body).get(name) for name in ("module_id", "command")]
        if not all(isinstance(name, str) for name in names):
            raise _InvalidParams
        own = push.jwt.address(subscriber.session.user_id)
        push.send(receivers, json_values.dumps(body), expiry_s, Sender(SenderType.CLIENT, own.hex()))
        return {}

    def _public_channels(self, texts: object) -> list[bytes]:
        if not isinstance(texts, list):
            raise _InvalidParams
        try:
            channels = [PublicChannel.parse(str(text)) for text in cast("list[object]", texts)]
        except InvalidArgument:
            raise _InvalidParams from None
        if not all(self._push.signer.knows(channel.id, channel.signature) for channel in channels):
            raise _InvalidParams
        return [channel.id for channel in channels]

    def _last_seen(self, subscriber: RpcSubscriber, params: Mapping[str, Any]) -> Any:
        found = self._push.presence.last_seen_s(_user_ids(params.get("userList")))
        return {str(user_id): seconds for user_id, seconds in found.items()}

    def _watch(self, subscriber: RpcSubscriber, params: Mapping[str, Any]) -> Any:
        subscriber.watched.update(_user_ids([params.get("userId")]))
        return {}

    def _unwatch(self, subscriber: RpcSubscriber, params: Mapping[str, Any]) -> Any:
        subscriber.watched.difference_update(_user_ids([params.get("userId")]))
        return {}

    def _list_channels(self, subscriber: RpcSubscriber, params: Mapping[str, Any]) -> Any:
        session = subscriber.session
        return [
            {"id": channel.id.hex(), "type": "shared" if channel is session.shared else "private"}
            for channel in session.channels
        ]

    def _pong(self, subscriber: RpcSubscriber, params: Mapping[str, Any]) -> Any:
        return {}

    def _tell_watchers(self, user_id: int, *, online: bool) -> None:
        content = {
            "module_id": "online",
            "command": "userStatusChange",
            "params": {"user_id": user_id, "online": online},
            "extra": {"server_time_unix": self._push.now()},
        }
        watchers = [
            subscriber
            for subscriber in self._push.connections
            if isinstance(subscriber, RpcSubscriber) and user_id in subscriber.watched
        ]
        if watchers:
            self._push.tell(watchers, orjson.dumps(content))


def is_call(frame: str | bytes) -> bool:
    """Tell a call from a bare ``pong`` or ``mack:MID``."""
    text = frame.decode(errors="replace") if isinstance(frame, bytes) else frame
    return not text.startswith((PONG.decode(), _MACK))


def _user_ids(value: object) -> list[int]:
    """Return a list of user ids, checked."""
    if not isinstance(value, list):
        raise _InvalidParams
    ids = [item for item in cast("list[object]", value) if type(item) is int and item > 0]
    if len(ids) < len(cast("list[object]", value)):
        raise _InvalidParams
    return ids


def _error(error: tuple[int, str], call_id: object) -> dict[str, Any]:
    code, message = error
    return {"jsonrpc": "2.0", "id": call_id, "error": {"code": code, "message": message}}
