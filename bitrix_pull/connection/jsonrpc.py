"""JSON-RPC over an open WebSocket (protocol §4.3): pings, acknowledgements, our own calls."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from bitrix_pull.connection.disconnects import Ended, Sign
from bitrix_pull.connection.websocket import WebSocketConnection, first_frame
from bitrix_pull.errors import CallRefused, CallTimeout, PublishTooLarge, RouteUnavailable
from bitrix_pull.redaction import quoted
from bitrix_pull.wire import jsonrpc
from bitrix_pull.wire.messages import Incoming, Ping, Reply, UnknownRequest

PING_DEADLINE_S = 20.0
"""After the server's first ``ping``, the longest time without another (protocol §4.3)."""

BUSY_GRACE_S = 2.0
"""How long to look for a ping at least, after a time without reading."""

CALL_TIMEOUT_S = 5.0
"""How long the server may take to answer one of our calls (protocol §4.3)."""

CALL_MAX_BYTES = 1_048_576
"""A server drops the connection over a larger one (protocol §7)."""


_OURS = frozenset((Ping, Reply, UnknownRequest))
"""What is between the server and us alone."""


class JsonRpcConnection:
    """Answers what the server asks on its own, and hands on the rest."""

    def __init__(self, websocket: WebSocketConnection) -> None:
        """Speak JSON-RPC over an open WebSocket."""
        self._websocket = websocket
        self.server_unix: float | None = websocket.server_unix
        self._ids = itertools.count(1)
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._ping_timer: asyncio.TimerHandle | None = None
        self._has_stopped = False

    async def receive(self) -> list[Incoming]:
        """Return what has come for the client; see ``Connection.receive``."""
        while True:
            is_rest = self._websocket.amid_frame
            try:
                messages = await self._websocket.receive()
            except Ended:
                if self._has_stopped:
                    raise self._websocket.dead("the push server has stopped sending pings") from None
                raise
            rest = messages
            if not _OURS.isdisjoint(map(type, messages)):
                rest = [message for message in messages if type(message) not in _OURS]
                # Who takes no answer any more has still sent the rest; the next call tells the end.
                with contextlib.suppress(Ended):
                    for message in messages:
                        await self._answer(message)
            if rest or is_rest:
                return rest

    async def answered(self) -> bool:
        """Ping the server, and wait for its answer; see ``Connection.answered``."""
        return await self._websocket.answered()

    def replay(self) -> AsyncIterator[Sequence[Incoming]]:
        """Yield what the server sends at once; see ``Connection.replay``."""
        return first_frame(self)

    def resume_after(self, mid: str) -> None:
        """Do nothing: the server goes on by itself."""

    @property
    def heard_at(self) -> float:
        """When the server was heard from last; see ``Connection``."""
        return self._websocket.heard_at

    @property
    def amid_frame(self) -> bool:
        """True if there is more of the frame; see ``Connection``."""
        return self._websocket.amid_frame

    async def _answer(self, message: Incoming) -> None:
        """Deal with what is between the server and us alone."""
        match message:
            case Ping():
                self._expect_ping(PING_DEADLINE_S)
                await self._websocket.send_text(jsonrpc.PONG)
            case Reply():
                self._settle(message)
            case UnknownRequest():
                # Without an id it is a notification, which gets no answer.
                if message.id is not None:
                    await self._websocket.send_text(jsonrpc.encode_unknown(message.id))
            case _:
                pass

    def _expect_ping(self, within_s: float) -> None:
        if self._ping_timer is not None:
            self._ping_timer.cancel()
        self._ping_timer = asyncio.get_running_loop().call_later(within_s, self._ping_missed)

    def _ping_missed(self) -> None:
        if self._websocket.drained:
            self._has_stopped = True
            self._websocket.abort()
        else:
            # Whoever was too busy to read must first see the pings that have come.
            self._expect_ping(BUSY_GRACE_S)

    async def acknowledge(self, mids: Sequence[str]) -> None:
        """Tell the server that messages are safe with us."""
        await self._websocket.send_texts(map(jsonrpc.acknowledgement, mids))

    async def send(self, frame: bytes) -> None:
        """Refuse: this protocol publishes by calls."""
        raise RouteUnavailable("a push server of version 5 takes no protobuf frames")

    async def close(self, code: int) -> None:
        """Close the WebSocket; our calls that are under way end with the connection."""
        if self._ping_timer is not None:
            self._ping_timer.cancel()
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(
                    Ended(Sign.UNANSWERED, "the connection was closed before the answer came")
                )
        await self._websocket.close(code)

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """Call one of the server's methods and return its result.

        Raises:
            CallRefused: The server answered with an error.
            CallTimeout: It did not answer within 5 s; it may have acted or not.
            Ended: The connection broke; it may have acted or not.
            Unreachable: The connection was over before; nothing was sent.
            PublishTooLarge: The server takes no call of this size; nothing was sent.
        """
        call_id = next(self._ids)
        frame = jsonrpc.encode_call(call_id, method, params)
        if len(frame) > CALL_MAX_BYTES:
            raise PublishTooLarge(f"{method} takes {len(frame)} bytes; a call may hold {CALL_MAX_BYTES}")
        self._websocket.require_open()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[call_id] = answer
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._websocket.send_text(frame)
                return await answer
        except TimeoutError:
            raise CallTimeout(
                f"the push server did not answer {method} within {CALL_TIMEOUT_S:g} s"
            ) from None
        finally:
            del self._calls[call_id]

    def _settle(self, reply: Reply) -> None:
        answer = None if reply.id is None else self._calls.get(reply.id)
        if answer is None or answer.done():
            return  # It came too late, or is the answer to nothing of ours.
        if reply.error_code is None:
            answer.set_result(reply.result)
        else:
            answer.set_exception(
                CallRefused(
                    f"the push server refused it: {quoted(reply.error_text) or 'no text'}",
                    code=reply.error_code,
                )
            )
