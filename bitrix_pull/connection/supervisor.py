"""The life of a connection, from top to bottom: configure, connect, read, back off, again."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final, NoReturn

from bitrix_pull.connection.channels import RENEWAL_S, ChannelManager
from bitrix_pull.connection.checkpointer import Checkpointer
from bitrix_pull.connection.connection_limiter import ConnectionLimiter, limiter_of
from bitrix_pull.connection.connector import Connection
from bitrix_pull.connection.continuity import Opening, Resumption
from bitrix_pull.connection.cursor import Cursor
from bitrix_pull.connection.cursors import Cursors
from bitrix_pull.connection.disconnects import TABLE, Ended, Sign
from bitrix_pull.connection.history import holds_known
from bitrix_pull.connection.intake import Intake
from bitrix_pull.connection.jsonrpc import JsonRpcConnection
from bitrix_pull.connection.protobuf import ProtobufConnection
from bitrix_pull.connection.recovery import Recovery
from bitrix_pull.connection.resume_point import Beginning
from bitrix_pull.connection.states import Lifecycle
from bitrix_pull.connection.stream import IN_FLIGHT_S, Stream
from bitrix_pull.connection.transports import Transports
from bitrix_pull.errors import (
    NotRunning,
    PresenceUnavailable,
    PullError,
    RouteUnavailable,
    Unreachable,
)
from bitrix_pull.events import Notice, State
from bitrix_pull.options import PullOptions, Transport
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.redaction import get_logger
from bitrix_pull.telemetry import log_fields
from bitrix_pull.wire.channel_ids import PublicChannel, digests_of
from bitrix_pull.wire.close_codes import ClientClose
from bitrix_pull.wire.messages import Control
from bitrix_pull.wire.urls import START_OF_HISTORY

logger: Final = get_logger("connection")

_CHANNELS = "channels"

_LEFT_MAX = 20
"""Channels from before that are listened on once more: a server takes up to 100 in all."""

_LIVE = {State.LIVE, State.PAUSED, State.RENEWING}

_NOT_RUNNING = {State.IDLE, State.FAILED, State.CLOSING, State.CLOSED}


class Supervisor:
    """The one owner of the connection and of its state."""

    def __init__(
        self,
        *,
        channels: ChannelManager,
        transports: Transports,
        intake: Intake,
        checkpointer: Checkpointer,
        lifecycle: Lifecycle,
        options: PullOptions,
        announce: Callable[[Notice], None],
        first_turn: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """Create a supervisor; ``run`` does the work."""
        self._first_turn = first_turn
        self._channels = channels
        self._transports = transports
        self._intake = intake
        self._checkpointer = checkpointer
        self._lifecycle = lifecycle
        self._options = options
        self._announce = announce
        self._recovery = Recovery()
        self._stream: Stream | None = None
        self._cursors = Cursors()
        # That of the stream before, once there was one.
        self._left: Cursor | None = None
        # Since when nothing can have been received, and by which channels until then.
        self._lost_unix: float | None = None
        self._left_ids: tuple[str, ...] = ()
        self._limiter: ConnectionLimiter | None = None
        # By the portal's clock: when the next attempt is due.
        self._next_attempt_unix: float | None = None
        # By the loop's clock: when the last stream that has ended was heard.
        self._heard_at: float | None = None
        self.connects: int = 0
        """Connections opened so far."""

    async def run(self) -> NoReturn:
        """Stay connected until cancelled, which leads to CLOSING.

        Raises:
            PullError: Only a person can help; the state is FAILED.
        """
        try:
            await self._stay_connected()
        except asyncio.CancelledError:
            self._lifecycle.move(State.CLOSING)
            raise
        except Exception as error:
            # A fault of our own included: deaf must never look alive.
            self._lifecycle.move(State.FAILED, error=error)
            raise

    # -- the life of a connection ---------------------------------------------

    async def _stay_connected(self) -> NoReturn:
        failure: PullError | None = None
        while True:
            if failure is not None:
                await self._back_off(failure)
            try:
                stream = await self._connect(again=failure is not None)
            except PullError as error:
                failure = error
            else:
                failure = await self._attend(stream)

    async def _connect(self, *, again: bool) -> Stream:
        """Make one attempt, with a new configuration if the present one is no good.

        Args:
            again: True after a failure, which all other clients of the server may have
                seen at the same moment.
        """
        if not self._channels.known:
            self._lifecycle.move(State.CONFIGURING)
        config = await self._channels.config()
        if not self._checkpointer.loaded:
            self._cursors = await self._checkpointer.load(config)
        self._lifecycle.move(State.CONNECTING)
        server = config.websocket_url or config.polling_url or ""
        self._limiter = limiter_of(server)
        self._limiter.join(self)
        if self._first_turn is not None and not again:
            await self._first_turn(server)
        async with self._limiter.turn() if again else contextlib.nullcontext():
            return await self._open(config, reconnect=True)

    async def _attend(self, stream: Stream) -> Ended:
        """Follow a stream, and those that take its place, to the end; say what ended it."""
        self._stream = stream
        code = ClientClose.NORMAL
        try:
            if stream.catching_up:
                self._lifecycle.move(State.CATCHING_UP)
                await stream.caught_up()
            while not stream.reader.done():
                self._channels.accepted()
                self._show(stream)
                transport = await self._until_replacement(stream)
                if transport is not None:
                    stream = self._stream = await self._replace(stream, transport)
            ended = self._transports.ended(stream.reader.result(), stream.age_s)
            self._lose(stream.config, for_s=self._channels.clock.away_s())
            code = TABLE[ended.sign].close_code
            # What polling begins with says little: a poll that brings something is its success.
            opened = stream.brought or self._transports.current == "websocket"
            self._recovery.ended(ended.sign, age_s=stream.age_s, opened=opened, brought=stream.brought)
            if ended.sign is Sign.SILENT and stream.config.jwt:
                # All of this machine's clocks may have stood still, and no poll tells the time here.
                self._channels.look()
            return ended
        finally:
            self._heard_at = self._stream.connection.heard_at
            self._stream = None
            await stream.close(code)

    async def _until_replacement(self, stream: Stream) -> Transport | None:
        """Wait until the stream ended (None), or say what transport should take its place.

        Raises:
            PullError: The channels cannot be renewed, and only a person can help.
        """
        channels = self._channels
        while not stream.reader.done():
            if channels.replaced(stream.config):
                return "auto"
            websocket_again_s = self._transports.websocket_again_s()
            if websocket_again_s == 0:
                return "websocket"
            self._show(stream)
            if channels.due:
                await self._ask(stream, websocket_again_s)
            else:
                await channels.until_next(stream.reader, websocket_again_s)
        return None

    async def _ask(self, stream: Stream, within_s: float | None) -> None:
        """Ask for another configuration, until the stream ends; show meanwhile what it is worth.

        Raises:
            PullError: The portal refuses for good to tell one.
        """
        asking = asyncio.create_task(self._channels.ask(), name="bitrix_pull renewal")
        late = asyncio.get_running_loop().call_later(RENEWAL_S, self._show, stream)
        try:
            await asyncio.wait({stream.reader, asking}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
            if asking.done() and not stream.reader.done():
                asking.result()
        finally:
            late.cancel()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    def _show(self, stream: Stream) -> None:
        """Show in the state what an open stream is worth: nothing, if its channels have ended."""
        channels, state = self._channels, self._lifecycle.state
        self._hold_place(stream.config)
        ended_for_s = channels.ended_for_s(stream.config)
        if ended_for_s < 0:
            self._recovery.was_live = True
            self._lost_unix, self._left_ids = None, ()
            self._lifecycle.move(State.PAUSED if stream.paused else State.LIVE)
        elif ended_for_s < RENEWAL_S and channels.asked_ago_s > ended_for_s and state in _LIVE:
            # As it should be: the portal tells new ones only when the old ones have ended.
            self._lifecycle.move(State.PAUSED if stream.paused else State.RENEWING)
        else:
            self._lose(stream.config, for_s=max(ended_for_s, channels.clock.away_s()))
            if channels.trouble is None:
                self._lifecycle.move(State.CONFIGURING)
            else:
                self._lifecycle.move(State.BACKOFF, error=channels.trouble, retry_in_s=channels.due_in_s)

    def _show_pause(self) -> None:
        """Show in the state that handlers have begun, or ceased, to hold up the reading."""
        stream = self._stream
        if stream is not None and not stream.catching_up and not stream.reader.done():
            self._show(stream)

    def _lose(self, config: PullConfig, *, for_s: float) -> None:
        """Take note since when nothing can have been received, if it could until then."""
        if self._lost_unix is None:
            self._lost_unix = self._channels.clock.now() - for_s
        self._left_ids = tuple(dict.fromkeys((*config.channel_ids, *self._left_ids)))[:_LEFT_MAX]

    def _hold_place(self, config: PullConfig) -> None:
        """Hold the resume point while something may wait in channels that nobody listens on."""
        if self._channels.bring_all(config):
            self._cursors.current.release(_CHANNELS)
        else:
            self._cursors.current.hold(_CHANNELS)

    async def _replace(self, old: Stream, transport: Transport) -> Stream:
        """Make before break: return the new stream, or the old one if there is none to be had."""
        is_live = self._lifecycle.state in _LIVE
        if self._lifecycle.state is not State.PAUSED:
            self._lifecycle.move(State.RENEWING if is_live else State.CONNECTING)
        try:
            new = await self._open(await self._channels.config(), prefer=transport, reconnect=not is_live)
        except PullError as error:
            step = self._recovery.aside(error)
            if step.new_config:
                self._channels.refuse()
            logger.warning(
                "the connection could not be replaced and goes on as it is: %s",
                error,
                extra=log_fields(error),
            )
            if is_live:
                self._show(old)
            else:
                self._lifecycle.move(State.BACKOFF, error=error, retry_in_s=step.delay_s)
            if transport == "auto":
                await asyncio.wait({old.reader}, timeout=step.delay_s)
            return old
        try:
            await new.caught_up()
            # From here on we publish over the new one; the old one still brings the answers
            # to what we have, and what others published to the old channels a moment ago.
            self._stream = new
            await asyncio.wait({old.reader}, timeout=IN_FLIGHT_S)
            await old.close(ClientClose.CHANNEL_EXPIRED)
        except asyncio.CancelledError:
            await new.close(ClientClose.NORMAL)
            raise
        return new

    async def _open(self, config: PullConfig, *, prefer: Transport = "auto", reconnect: bool) -> Stream:
        """Open a connection and begin to read it.

        Args:
            config: Where to.
            prefer: See ``Transports.open``.
            reconnect: True if there was no connection until now: its continuity is judged.
        """
        left, server = self._left or self._cursors.current, config.push_server
        renamed = self._cursors.would_move(server) and await holds_known(
            partial(self._transports.history, config), self._cursors.current
        )
        cursor = self._cursors.at(server, renamed=renamed)
        resume_point, newest = cursor.resume_point, cursor.newest
        if reconnect and not config.jwt and config.server.version >= 3:
            # What was sent to other channels while these were not listened on.
            config = config.with_former(self._left_ids)
        connection = await self._transports.open(config, resume_point, cursor.position, prefer=prefer)
        self.connects += 1
        try:
            moment = await self._moment(config, is_first=resume_point is None)
        except BaseException:
            await connection.close(ClientClose.NORMAL)
            raise
        cursor.connected(moment)
        self._left = cursor
        self._checkpointer.connected()
        self._hold_place(config)
        cursor.listens_on(digests_of(config.subscribed_ids))
        polling = self._transports.current == "long_polling"
        resumption = None
        if resume_point is not None or polling:
            # What the one server had to keep, the other one never had.
            kept = cursor.kept(moment.server_unix or self._channels.clock.now()) if left is cursor else None
            from_start = resume_point in (None, START_OF_HISTORY)
            lost_unix = self._lost_unix
            resumption = Resumption(
                Opening(cursor, left, kept, from_start, moment, newest, cursor.numbering),
                self._announce,
                reconnect=reconnect and resume_point is not None,
                offline_s=None if lost_unix is None else self._channels.clock.now() - lost_unix,
                in_reach=config.reaches(self._left_ids),
            )
        return Stream(
            connection,
            config,
            self._intake,
            cursor,
            self._obey,
            self._announce,
            partial(self._transports.history, config),
            resumption,
            self._show_pause,
            repeats=polling,
            catch_up_s=self._options.catch_up_s,
        )

    async def _moment(self, config: PullConfig, *, is_first: bool) -> Beginning:
        """Return the present one by the clocks of the push server and the portal.

        Args:
            config: Names the push server.
            is_first: True if it has to be known what is older than this client.
        """
        opened_at = asyncio.get_running_loop().time()
        portal_unix = self._channels.clock.now()
        server_unix = self._transports.server_now(config)
        if server_unix is None and is_first:
            server_unix = await self._transports.ask_time(config)
            if server_unix is not None:
                server_unix -= asyncio.get_running_loop().time() - opened_at
        return Beginning(server_unix, portal_unix)

    def _obey(self, control: Control) -> None:
        """Do what the server asks of its clients (protocol §5).

        Raises:
            Ended: It asks to disconnect.
        """
        match control.command:
            case "channel_expire":
                if self._channels.expire(control.params):
                    self._cursors.current.hold(_CHANNELS)
            case "config_expire":
                raise Ended(Sign.CONFIG_EXPIRED, "the push server says that the configuration has expired")
            case "server_restart":
                raise Ended(Sign.SERVER_RESTART, "the push server says that it will restart")
            case _:
                logger.info("the push server sent the control message %.40r", control.command)

    async def _back_off(self, failure: PullError) -> None:
        """Wait as the failure demands.

        Raises:
            PullError: The failure itself, if waiting does not help.
        """
        step = self._recovery.after(failure)
        if isinstance(failure, Ended) and failure.sign is Sign.CHANNEL_REFUSED:
            # Maybe because of those from before: without them, then.
            self._left_ids = ()
        if step.new_config:
            self._channels.refuse()
        if step.delay_s:
            logger.warning(
                "not connected, next attempt in %.1f s: %s",
                step.delay_s,
                failure,
                extra=log_fields(retry_in_s=step.delay_s, error=failure),
            )
            self._lifecycle.move(State.BACKOFF, error=failure, retry_in_s=step.delay_s)
            self._next_attempt_unix = self._channels.clock.now() + step.delay_s
            await self._channels.clock.sleep(step.delay_s)
            self._next_attempt_unix = None
        else:
            self._lifecycle.blame(failure)
            logger.warning("not connected, reconnecting at once: %s", failure, extra=log_fields(failure))

    # -- how it is doing ------------------------------------------------------

    @property
    def heard_at(self) -> float | None:
        """When the push server was heard from last, by the loop's clock; None if it never was."""
        return self._heard_at if self._stream is None else self._stream.connection.heard_at

    @property
    def next_attempt_in_s(self) -> float | None:
        """Seconds until the next attempt to be live; None where none is waited for."""
        if self._lifecycle.state is not State.BACKOFF:
            return None
        if self._next_attempt_unix is None:
            # The stream is open, and its channels have ended.
            return self._channels.due_in_s
        return max(self._next_attempt_unix - self._channels.clock.now(), 0.0)

    async def acknowledge(self, mids: Sequence[str]) -> None:
        """Tell the server that messages are safe with us, if it is connected and wants to know."""
        if self._stream is not None:
            with contextlib.suppress(Ended):
                await self._stream.connection.acknowledge(mids)

    # -- for publishing -------------------------------------------------------

    async def send(self, frame: bytes) -> None:
        """Send a frame over the open connection, and return when the server has read it.

        Raises:
            NotRunning: The client is not started.
            Unreachable: It is not connected just now; nothing was sent.
            PublishRefused: The server closed the connection because of this frame.
            Ended: The connection broke; the server may have read the frame or not.
            RouteUnavailable: It cannot send.
        """
        await self.require_connection().send(frame)

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """Call one of the push server's own methods over the open connection.

        Raises:
            NotRunning: The client is not started.
            Unreachable: It is not connected just now; nothing was sent.
            RouteUnavailable: It does not speak JSON-RPC.
            CallRefused: The server answered with an error.
            CallTimeout: It did not answer; it may have acted or not.
            Ended: The connection broke; the server may have acted or not.
        """
        connection = self.require_connection()
        if not isinstance(connection, JsonRpcConnection):
            raise RouteUnavailable("only a push server of version 5 or newer can be called")
        return await connection.call(method, params)

    async def online(self, channels: Sequence[PublicChannel]) -> Collection[bytes]:
        """Ask over the open connection to which of these channels anybody is connected.

        Raises:
            NotRunning: The client is not started.
            PresenceUnavailable: The connection is none that can be asked.
            CallTimeout: The server did not answer.
            PublishRefused: The server closed the connection because of the question.
            Ended: The connection broke.
            Unreachable: It is not connected just now.
        """
        connection = self.require_connection()
        if not isinstance(connection, ProtobufConnection):
            raise PresenceUnavailable(
                "a push server of version 4 tells who is online over a WebSocket in protobuf only",
                advice='Let WebSockets through, and set neither protobuf=False nor transport="long_polling".',
            )
        return await connection.online(channels)

    @property
    def stream(self) -> object | None:
        """The open connection, to be told from others only; None if there is none."""
        return self._stream

    async def live_by_another(self, stream: object | None) -> None:
        """Wait until the client is live by another connection than that one."""
        while self._stream in (None, stream) or self._lifecycle.state is not State.LIVE:
            await self._lifecycle.changed()

    def require_connection(self) -> Connection:
        """Return the open connection.

        Raises:
            NotRunning: The client is not started.
            Unreachable: It is not connected just now.
        """
        if self._stream is not None:
            return self._stream.connection
        if self._lifecycle.state in _NOT_RUNNING:
            raise NotRunning("the client is not live, so it has no connection to the push server")
        raise Unreachable("the client is not connected to the push server just now", unsent=True)
