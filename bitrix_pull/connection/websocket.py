"""The WebSocket transport, over the ``websockets`` library."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException

from bitrix_pull.connection.endings import Ended, Sign, ended_by_close, ended_by_status
from bitrix_pull.connection.sent_frames import SentFrames, require_open
from bitrix_pull.connection.server_clock import date_of
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.destinations import AddressRefused
from bitrix_pull.portal.http import HttpSession
from bitrix_pull.redaction import quiet_logger
from bitrix_pull.wire.formats import Decode
from bitrix_pull.wire.messages import Incoming

# The addresses in its requests hold channel ids.
_logger = quiet_logger("connection.websockets")

_TOO_BIG = 1009

SHARE_S = 0.01
"""How long to read what has come already without letting other tasks run."""

_READ_BYTES = 8 * 1024


class _Socket(ClientConnection, asyncio.BufferedProtocol):
    """Takes little from the network at a time.

    asyncio would hand over 256 KiB at once, and as many tiny frames as fit into that hold
    up the event loop for half a second.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        """Begin; called by websockets."""
        super().__init__(*args, **settings)
        # Behind a proxy, asyncio asks for it before it says that the connection is made.
        self._buffer = bytearray(_READ_BYTES)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Say where to put what comes; called by asyncio."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what has come; called by asyncio."""
        self.data_received(bytes(memoryview(self._buffer)[:nbytes]))


class _Connect(connect):
    """``connect`` that follows no redirect: the address holds secrets meant for one host."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class WebSocketConnection:
    """An open WebSocket to the push server."""

    def __init__(self, socket: ClientConnection, decode: Decode, options: PullOptions) -> None:
        """Wrap a socket whose handshake is done; use ``open`` instead."""
        self._socket = socket
        self._decode = decode
        self._options = options
        self._sent = SentFrames(socket, _ended, write_timeout_s=options.ping_timeout_s)
        self._shared_at = 0.0
        response = socket.response
        self.server_unix = None if response is None else date_of(response.headers)

    @classmethod
    async def open(
        cls, http: HttpSession, url: str, decode: Decode, options: PullOptions
    ) -> "WebSocketConnection":
        """Connect and shake hands, within ``options.connect_timeout_s``.

        Args:
            http: Knows where connections may go, through which proxy, and what TLS trusts.
            url: A ``ws`` or ``wss`` address.
            decode: Reads the frames.
            options: Deadlines and limits.

        Raises:
            Ended: The server refused, or nothing answered.
        """
        proxy = http.proxy_for(url)
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
                    max_size=options.max_frame_bytes,
                    # A frame can hold all that came in 0.4 s: what waits unread shall be little.
                    max_queue=2,
                    open_timeout=None,
                    close_timeout=options.close_timeout_s,
                    ping_interval=None,
                    logger=_logger,
                    create_connection=_Socket,
                    **tls_to_proxy,
                )
        except InvalidStatus as error:
            raise ended_by_status(error.response.status_code) from None
        except TimeoutError:
            raise Ended(Sign.UNANSWERED, "the push server did not answer the handshake in time") from None
        except AddressRefused as refused:
            raise Ended(Sign.UNANSWERED, f"no connection to the push server: {refused.text}") from None
        except OSError as error:
            raise Ended(Sign.UNANSWERED, f"no connection to the push server ({_cause(error)})") from None
        except ConnectionClosed:
            raise Ended(Sign.UNANSWERED, "the connection was cut during the handshake") from None
        except InvalidHandshake as error:
            # An end of file in the middle of the handshake is no answer.
            cut = isinstance(error.__cause__, EOFError)
            sign = Sign.UNANSWERED if cut else Sign.SERVER_TROUBLE
            raise Ended(sign, f"the WebSocket handshake failed ({type(error).__name__})") from None
        return cls(socket, decode, options)

    async def receive(self) -> list[Incoming]:
        """Return what the next frame holds; see ``Connection.receive``."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._shared_at > SHARE_S:
            # What has come already is read without waiting: let others run too.
            await asyncio.sleep(0)
            self._shared_at = loop.time()
        try:
            try:
                async with asyncio.timeout(self._options.ping_interval_s):
                    frame = await self._socket.recv(decode=False)
            except TimeoutError:
                frame = await self._probe()
        except ConnectionClosed as closed:
            raise _ended(closed) from None
        return self._decode(frame)

    async def _probe(self) -> bytes:
        """Ping the server until a frame comes; each pong proves that the link is alive."""
        receiving = asyncio.create_task(self._socket.recv(decode=False))
        try:
            while True:
                try:
                    async with asyncio.timeout(self._options.ping_timeout_s):
                        pong = asyncio.ensure_future(await self._socket.ping())
                        # A frame is an answer too, and the pong may be stuck behind many.
                        await asyncio.wait({receiving, pong}, return_when=asyncio.FIRST_COMPLETED)
                except TimeoutError:
                    raise self.dead("the push server did not answer a ping") from None
                await asyncio.wait({receiving}, timeout=self._options.ping_interval_s)
                if receiving.done():
                    return await receiving
        finally:
            receiving.cancel()

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


def _ended(closed: ConnectionClosed) -> Ended:
    if closed.sent is not None and closed.rcvd is None:
        # The library found a protocol error or a frame over the limit, and said so.
        code = closed.sent.code
        what = "a frame over max_frame_bytes" if code == _TOO_BIG else f"unusable data (close code {code})"
        return Ended(Sign.GARBLED, f"{what} from the push server")
    if closed.rcvd is None:
        return ended_by_close(None)
    return ended_by_close(closed.rcvd.code)


def _cause(error: OSError) -> str:
    return error.strerror or type(error).__name__
