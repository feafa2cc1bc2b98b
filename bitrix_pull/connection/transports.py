"""Which transport to use: the WebSocket where it works, long polling where it is blocked."""

import asyncio
import contextlib
import math
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence, Set
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from bitrix_pull.connection.connector import Connection
from bitrix_pull.connection.disconnects import Ended, Sign, refused_by
from bitrix_pull.connection.history import first_answer
from bitrix_pull.connection.jsonrpc import JsonRpcConnection
from bitrix_pull.connection.longpoll import LongPollConnection
from bitrix_pull.connection.protobuf import ProtobufConnection
from bitrix_pull.connection.push_clock import PushClock
from bitrix_pull.connection.websocket import WebSocketConnection
from bitrix_pull.errors import InvalidConfig, PullError
from bitrix_pull.options import PullOptions, Transport
from bitrix_pull.portal.http import HttpSession
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.redaction import get_logger
from bitrix_pull.telemetry import log_fields
from bitrix_pull.wire.close_codes import ClientClose
from bitrix_pull.wire.formats import WireFormat, format_of
from bitrix_pull.wire.messages import Incoming, Position
from bitrix_pull.wire.skim import NO_TOPICS, Topic
from bitrix_pull.wire.urls import subscription_url

logger: Final = get_logger("connection")

BLOCKED_AFTER = 2
"""Handshakes in a row that did not succeed, none ever having worked, beside which polling is tried.

Portals' own client waits for the fifth (protocol §8); here a start has a deadline. Polling takes
over only if it works where the WebSocket does not.
"""

HANDSHAKE_S = 4.0
"""How long a first handshake may stay without an answer before polling is tried beside it."""

WEBSOCKET_AGAIN_S = (600.0, 1800.0)
"""Least and longest wait on long polling before the WebSocket is tried again (protocol §8)."""

TIME_WAIT_S = 1.0
"""How long to wait for the push server's time, where the handshake does not tell it."""

SHUT_WITHIN_S = 10.0
"""A first WebSocket that is closed with 1008 sooner than this has not worked."""


class Transports:
    """Opens connections, and remembers which kind works here."""

    def __init__(self, http: HttpSession, options: PullOptions, unwanted: Set[Topic] = NO_TOPICS) -> None:
        """Create it without any experience.

        Args:
            http: Makes the connections.
            options: Which are wanted, and their deadlines.
            unwanted: What nobody wants at present; see ``FrameReader``.
        """
        self._http = http
        self._options = options
        self._unwanted = unwanted
        self._server: str | None = None
        # Of the WebSocket: failures in a row, whether it works, and whether it did before the last one.
        self._failures = 0
        self._works = False
        self._worked = False
        self._again_at = math.inf
        self._polls_fail = False
        self._clocks: dict[str, PushClock] = {}
        self.current: Transport | None = None
        """The kind that was opened last."""

    @property
    def blocked(self) -> bool:
        """True if the WebSocket seems to be blocked on the way."""
        return self._options.transport == "auto" and not self._works and self._failures >= BLOCKED_AFTER

    def websocket_again_s(self) -> float | None:
        """Return when to try the WebSocket again, in seconds; None if it is not called for."""
        if self.current != "long_polling" or not self.blocked:
            return None
        left_s = self._again_at - asyncio.get_running_loop().time()
        # Who waits for it goes by unix time: a float of that tells no times apart that are as near as a
        # microsecond, and the wait would be over before it began, again and again.
        return left_s if left_s > 0.001 else 0.0

    async def open(
        self,
        config: PullConfig,
        mid: str | None,
        position: Position | None = None,
        *,
        prefer: Transport = "auto",
    ) -> Connection:
        """Open a connection.

        Args:
            config: Where to.
            mid: The resume point.
            position: The same for a server without mids.
            prefer: "websocket" to try that though it seemed blocked.

        Raises:
            Ended: It could not be opened.
            InvalidConfig: The portal offers no transport that may be used.
        """
        if config.websocket_url != self._server:
            # Of another server, or another way to it, nothing is known yet.
            self._server, self._failures, self._works = config.websocket_url, 0, False
        chosen = self._choose(config, prefer)
        if chosen == "long_polling":
            return await self._poll(config, mid, position)
        # Where the WebSocket has never worked, polling may have to take its place.
        is_unproven = prefer == self._options.transport == "auto" and not self._works
        try:
            if is_unproven and self._can_poll(config):
                return await self._open_either(config, mid, position)
            return self._opened(await self._open(config, mid, position, "websocket"))
        except Ended as ended:
            raise self._failed(ended) from None

    async def _open_either(
        self, config: PullConfig, mid: str | None, position: Position | None
    ) -> Connection:
        """Open a WebSocket; or, beside one that does not come about, a poll."""
        handshake = asyncio.create_task(
            self._open(config, mid, position, "websocket"), name="bitrix_pull handshake"
        )
        connection: Connection | None = None
        try:
            await asyncio.wait({handshake}, timeout=HANDSHAKE_S)
            if not handshake.done() or (handshake.exception() and self._failures + 1 >= BLOCKED_AFTER):
                with contextlib.suppress(Ended):
                    connection = await self._poll(config, mid, position)
            if connection is None or (handshake.done() and not handshake.exception()):
                connection = self._opened(await handshake)
            else:
                self._give_up_websocket()
            return connection
        finally:
            handshake.cancel()
            await asyncio.wait({handshake})
            if connection is None and not handshake.cancelled() and not handshake.exception():
                await handshake.result().close(ClientClose.NORMAL)

    async def _poll(self, config: PullConfig, mid: str | None, position: Position | None) -> Connection:
        try:
            connection = await self._open(config, mid, position, "long_polling")
        except Ended:
            # Neither works just now: it is the WebSocket's turn again.
            self._failures = min(self._failures, BLOCKED_AFTER - 1)
            raise
        self.current = "long_polling"
        return connection

    def _opened(self, websocket: Connection) -> Connection:
        self.current = "websocket"
        self._worked, self._works = self._works, True
        return websocket

    def _give_up_websocket(self) -> None:
        self._failures = max(self._failures + 1, BLOCKED_AFTER)
        self._again_at = asyncio.get_running_loop().time() + random.uniform(*WEBSOCKET_AGAIN_S)
        logger.warning(
            "the WebSocket seems to be blocked: on long polling for at least 10 minutes",
            extra=log_fields(transport="long_polling"),
        )

    def _failed(self, ended: Ended) -> Ended:
        """Judge a handshake that did not succeed; return what it means here."""
        if ended.sign is Sign.CHANNEL_REFUSED:
            # Whoever says so is the push server.
            self._failures = 0
        elif ended.code == 403 and self._works:
            return refused_by(ended)
        else:
            self._failures += 1
            self._again_at = asyncio.get_running_loop().time() + random.uniform(*WEBSOCKET_AGAIN_S)
        return ended

    def ended(self, ended: Ended, age_s: float) -> Ended:
        """Judge what ended a stream that was opened; return what it means here.

        Args:
            ended: What was seen.
            age_s: How long the stream lived.
        """
        if self.current != "websocket":
            return ended
        if ended.sign is not Sign.BLOCKED:
            self._failures = 0
            return ended
        if self._worked or age_s >= SHUT_WITHIN_S:
            return refused_by(ended)
        self._works = False
        self._failures += 1
        self._again_at = asyncio.get_running_loop().time() + random.uniform(*WEBSOCKET_AGAIN_S)
        return ended

    def server_now(self, config: PullConfig) -> float | None:
        """Return the push server's time (unix), or None where no answer has told it yet."""
        return self._clock(config).now()

    async def ask_time(self, config: PullConfig) -> float | None:
        """Ask the push server for its time, and return it (unix); None if it does not answer at once."""
        if self._can_poll(config):
            with contextlib.suppress(PullError, TimeoutError):
                async with asyncio.timeout(TIME_WAIT_S):
                    await self._open(config, None, None, "long_polling")
        return self.server_now(config)

    @asynccontextmanager
    async def history(
        self, config: PullConfig, mid: str
    ) -> AsyncGenerator[AsyncIterator[Sequence[Incoming]]]:
        """Ask for what the history holds after a mid, over a connection of its own.

        By a poll; where that is slow or fails, by a second WebSocket too, and by that first from
        then on.

        Raises:
            PullError: The server could not be asked.
        """
        ways: list[Transport] = ["long_polling"] if self._can_poll(config) else []
        if config.websocket_url is not None and self._options.transport != "long_polling":
            ways.insert(0 if self._polls_fail else len(ways), "websocket")
        answer = await first_answer([partial(self._open, config, mid, None, way) for way in ways])
        self._polls_fail = not isinstance(answer.connection, LongPollConnection)
        try:
            yield answer.parts()
        finally:
            await answer.close()

    def _clock(self, config: PullConfig) -> PushClock:
        return self._clocks.setdefault(config.push_server, PushClock())

    async def _open(
        self, config: PullConfig, mid: str | None, position: Position | None, transport: Transport
    ) -> Connection:
        connection = await self._connect(config, mid, position, transport)
        if connection.server_unix is not None:
            self._clock(config).learn(connection.server_unix)
        return connection

    async def _connect(
        self, config: PullConfig, mid: str | None, position: Position | None, transport: Transport
    ) -> Connection:
        wire_format = self._format(config)
        polling = transport == "long_polling"
        base = self._http.destinations.admit(config.server, "long_polling" if polling else "websocket")

        def url(mid: str | None, position: Position | None) -> str:
            return subscription_url(
                base,
                config.subscribed_ids,
                wire_format,
                mid=mid,
                position=position,
                client_id=config.client_id,
                jwt=config.jwt,
            )

        if polling:
            return await LongPollConnection.open(
                self._http, url, mid, position, wire_format, self._options, self._unwanted
            )
        websocket = await WebSocketConnection.open(
            self._http,
            url(mid, position),
            wire_format,
            self._options,
            answers_pings=config.server.version >= 3,
            unwanted=self._unwanted,
        )
        match wire_format:
            case WireFormat.JSONRPC:
                return JsonRpcConnection(websocket)
            case WireFormat.PROTOBUF:
                return ProtobufConnection(websocket)
            case _:
                return websocket

    def _format(self, config: PullConfig) -> WireFormat:
        return format_of(config.server.version, protobuf=self._options.protobuf)

    def _can_poll(self, config: PullConfig) -> bool:
        # JSON-RPC is spoken over WebSockets only (protocol §4.3).
        return config.polling_url is not None and self._format(config) is not WireFormat.JSONRPC

    def _choose(self, config: PullConfig, prefer: Transport) -> Transport:
        polling = self._can_poll(config)
        websocket = config.websocket_url is not None
        wanted = self._options.transport if self._options.transport != "auto" else prefer
        if wanted == "auto":
            wanted = "long_polling" if (self.blocked and polling) or not websocket else "websocket"
        if wanted == "websocket" and not websocket:
            raise InvalidConfig("the portal offers no WebSocket (server.websocket_secure, websocket_enabled)")
        if wanted == "long_polling" and not polling:
            raise InvalidConfig(
                "the portal offers no long polling "
                f"(server.long_polling_secure, server.version {config.server.version})"
            )
        return wanted
