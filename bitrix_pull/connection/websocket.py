"""The WebSocket transport, over the ``websockets`` library."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence, Set
from functools import partial
from typing import Any, cast

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException

from bitrix_pull.connection.connector import Connection
from bitrix_pull.connection.disconnects import Ended, Sign, ended_by_close, ended_by_status
from bitrix_pull.connection.frame_reader import FrameReader, Part
from bitrix_pull.connection.frame_socket import FrameSocket
from bitrix_pull.connection.sent_frames import SentFrames, require_open
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.destinations import AddressRefused, named_server
from bitrix_pull.portal.http import HttpSession
from bitrix_pull.portal.portal_clock import date_of
from bitrix_pull.redaction import quiet_logger
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.messages import Incoming, Ping
from bitrix_pull.wire.skim import NO_TOPICS, Topic

# The addresses in its requests hold channel ids.
_logger = quiet_logger("connection.websockets")

OWN_PINGS_S = 90.0
"""Longest silence after a ping of ours of a server that answers none: it sends its own every
40 s (protocol §4.1), and one of them may be late."""

_READ_WITHIN_S = 12.0
"""How long the server may take to read its history, before its silence says that there is none."""


class _Connect(connect):
    """``connect`` that follows no redirect: the address holds secrets meant for one host."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class WebSocketConnection:
    """An open WebSocket to the push server."""

    def __init__(
        self,
        socket: FrameSocket,
        wire_format: WireFormat,
        options: PullOptions,
        *,
        answers_pings: bool = True,
        unwanted: Set[Topic] = NO_TOPICS,
    ) -> None:
        """Wrap a socket whose handshake is done; use ``open`` instead."""
        self._socket = socket
        self._reader = FrameReader(wire_format, options.max_message_bytes, unwanted)
        self._awaits_first = True
        self._options = options
        self._sent = SentFrames(socket, _ended, write_timeout_s=options.ping_timeout_s)
        timeout_s = options.ping_timeout_s if answers_pings else max(options.ping_timeout_s, OWN_PINGS_S)
        socket.watch(interval_s=options.ping_interval_s, timeout_s=timeout_s)
        response = socket.response
        self.server_unix: float | None = None if response is None else date_of(response.headers)

    @classmethod
    async def open(
        cls,
        http: HttpSession,
        url: str,
        wire_format: WireFormat,
        options: PullOptions,
        *,
        answers_pings: bool = True,
        unwanted: Set[Topic] = NO_TOPICS,
    ) -> "WebSocketConnection":
        """Connect and shake hands, within ``options.connect_timeout_s``.

        Args:
            http: Knows where connections may go, through which proxy, and what TLS trusts.
            url: A ``ws`` or ``wss`` address.
            wire_format: What the frames are written in.
            options: Deadlines and limits.
            answers_pings: False for a server that does not: only its own pings show that it lives.
            unwanted: See ``FrameReader``.

        Raises:
            Ended: The server refused, or nothing answered.
        """
        proxy, server = http.proxy_for(url), named_server(url)
        tls_to_proxy: dict[str, Any] = {"proxy_ssl": http.tls} if proxy and proxy.startswith("https:") else {}
        try:
            async with asyncio.timeout(options.connect_timeout_s):
                # A proxy resolves names itself; else the connection goes to a checked address.
                tcp = None if proxy is not None else await http.destinations.connect(url)
                socket = await _Connect(
                    url,
                    sock=tcp,
                    ssl=http.tls if url.startswith("wss:") else None,
                    proxy=proxy,
                    compression=None,
                    # The library gets no more of a message than its head.
                    max_size=options.max_message_bytes,
                    open_timeout=None,
                    close_timeout=options.close_timeout_s,
                    ping_interval=None,
                    logger=_logger,
                    create_connection=cast(
                        Any, partial(FrameSocket, max_whole_bytes=options.max_message_bytes)
                    ),
                    **tls_to_proxy,
                )
        except InvalidStatus as error:
            raise ended_by_status(error.response.status_code) from None
        except TimeoutError:
            text = f"the push server at {server} did not answer the handshake in time"
            raise Ended(Sign.UNANSWERED, text) from None
        except AddressRefused as refused:
            raise Ended(
                Sign.UNANSWERED, f"no connection to the push server at {server}: {refused.text}"
            ) from None
        except OSError as error:
            text = f"no connection to the push server at {server} ({_cause(error)})"
            raise Ended(Sign.UNANSWERED, text) from None
        except ConnectionClosed:
            raise Ended(Sign.UNANSWERED, "the connection was cut during the handshake") from None
        except InvalidHandshake as error:
            # An end of file in the middle of the handshake is no answer.
            cut = isinstance(error.__cause__, EOFError)
            sign = Sign.UNANSWERED if cut else Sign.SERVER_TROUBLE
            raise Ended(sign, f"the WebSocket handshake failed ({type(error).__name__})") from None
        assert isinstance(socket, FrameSocket)
        if socket.response is not None:
            http.note_date(url, socket.response.headers)
        connection = cls(socket, wire_format, options, answers_pings=answers_pings, unwanted=unwanted)
        for handshake in (socket.request, socket.response):
            if handshake is not None:
                # The library keeps them for whoever asks, and nobody does: 3 KB for each connection.
                handshake.headers.clear()
        return connection

    async def receive(self) -> list[Incoming]:
        """Return what has come, a turn's worth at most; see ``Connection.receive``."""
        reader, socket = self._reader, self._socket
        if reader.is_due:
            await reader.turn()
        if reader.has_rest:
            return reader.go_on()
        is_alone = self._awaits_first or reader.amid_frame
        frame = socket.take_frame()
        messages = reader.take(await self._next_frame() if frame is None else frame)
        if self._awaits_first:
            # A server of version 5 may ask whether we are there before it replays.
            self._awaits_first = not reader.amid_frame and all(type(message) is Ping for message in messages)
        if not (is_alone or reader.amid_frame):
            reader.take_more(messages, socket.take_frame)
        return messages

    async def _next_frame(self) -> bytes | Part:
        try:
            return await self._socket.next_frame()
        except ConnectionClosed as closed:
            if self._socket.silent:
                raise self.dead("the push server did not answer a ping") from None
            raise _ended(closed) from None

    async def answered(self) -> bool:
        """Ping the server, and wait for its answer; see ``Connection.answered``."""
        socket = self._socket
        try:
            pong = asyncio.ensure_future(await socket.ping())
            while not pong.done():
                heard_at = socket.heard_at
                await asyncio.wait({pong}, timeout=self._options.ping_timeout_s)
                if not pong.done() and socket.heard_at == heard_at:
                    return True  # It sends nothing at all; whether the link is dead is told elsewhere.
            await pong
        except ConnectionClosed as closed:
            raise _ended(closed) from None
        # Who waits for a frame takes it first.
        await asyncio.sleep(0)
        return not (self._socket.unread or self._reader.amid_frame)

    def replay(self) -> AsyncIterator[Sequence[Incoming]]:
        """Yield what the server sends at once; see ``Connection.replay``."""
        return first_frame(self)

    def resume_after(self, mid: str) -> None:
        """Do nothing: the server goes on by itself."""

    @property
    def heard_at(self) -> float:
        """When the server was heard from last; see ``Connection``."""
        return self._socket.heard_at

    @property
    def amid_frame(self) -> bool:
        """True if there is more of the frame; see ``Connection``."""
        return self._reader.amid_frame

    async def send(self, frame: bytes) -> None:
        """Send one binary frame, and wait until the server has read it; see ``Connection.send``."""
        await self._sent.send(frame)

    def require_open(self) -> None:
        """Refuse to send where nothing would go out any more.

        Raises:
            Unreachable: The socket is closed or closing.
        """
        require_open(self._socket)

    async def acknowledge(self, mids: Sequence[str]) -> None:
        """Do nothing: only JSON-RPC has acknowledgements."""

    async def send_text(self, text: bytes) -> None:
        """Send one text frame, within ``options.ping_timeout_s``, and expect no word of it.

        Raises:
            Ended: The socket is closed, or takes no more data.
        """
        try:
            async with asyncio.timeout(self._options.ping_timeout_s):
                await self._socket.send(text, text=True)
        except TimeoutError:
            raise self.dead("the push server takes no more data") from None
        except ConnectionClosed as closed:
            raise _ended(closed) from None

    async def send_texts(self, texts: Iterable[bytes]) -> None:
        """Send text frames together; as ``send_text``.

        Raises:
            Ended: The socket is closed, or takes no more data.
        """
        try:
            async with asyncio.timeout(self._options.ping_timeout_s):
                await self._socket.send_all(texts)
        except TimeoutError:
            raise self.dead("the push server takes no more data") from None
        except ConnectionClosed as closed:
            raise _ended(closed) from None

    @property
    def drained(self) -> bool:
        """True if all that has come was read, and somebody waits for more."""
        return self._socket.drained

    def abort(self) -> None:
        """Cut the connection; whoever reads or sends then gets ``Ended``."""
        self._socket.transport.abort()

    def dead(self, what: str) -> Ended:
        """Give up the link at once: nobody is there to say goodbye to."""
        self._socket.transport.abort()
        return Ended(Sign.SILENT, f"{what}: the link is dead")

    async def close(self, code: int) -> None:
        """Close with a code; abort if the server does not answer that in time."""
        try:
            async with asyncio.timeout(self._options.close_timeout_s):
                await self._socket.close(code)
        except (TimeoutError, OSError, WebSocketException):
            self._socket.transport.abort()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._options.close_timeout_s):
                    await self._socket.wait_closed()


async def first_frame(connection: Connection) -> AsyncIterator[Sequence[Incoming]]:
    """Yield the parts of what a server sends at once to who resumes; none if it sends nothing.

    Raises:
        Ended: The connection ended before that was known.
        MalformedFrame: The frame cannot be read.
    """
    first = asyncio.ensure_future(connection.receive())
    try:
        await asyncio.wait({first}, timeout=_READ_WITHIN_S)
        if not first.done() and await connection.answered() and not first.done():
            return
        yield await first
        while connection.amid_frame:
            yield await connection.receive()
    finally:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


def _ended(closed: ConnectionClosed) -> Ended:
    if closed.sent is not None and closed.rcvd is None:
        # The library found a protocol error, and said so.
        text = f"unusable data (close code {closed.sent.code}) from the push server"
        return Ended(Sign.GARBLED, text)
    if closed.rcvd is None:
        return ended_by_close(None)
    return ended_by_close(closed.rcvd.code, closed.rcvd.reason)


def _cause(error: OSError) -> str:
    return error.strerror or type(error).__name__
