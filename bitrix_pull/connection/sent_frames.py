"""What became of the frames that we sent over a WebSocket: read, refused, or nobody knows."""

import asyncio
from collections.abc import Callable

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from bitrix_pull.connection.disconnects import Ended, Sign
from bitrix_pull.errors import Unreachable
from bitrix_pull.wire.close_codes import refusal


def require_open(socket: ClientConnection) -> None:
    """Refuse to send where a frame would surely not go out any more.

    Raises:
        Unreachable: The socket is closed or closing.
    """
    if socket.state is not State.OPEN:
        raise Unreachable("the connection to the push server has just ended", unsent=True)


class SentFrames:
    """Sends frames and finds out which of them the server has read.

    The server answers none of them; one that it refuses makes it close the socket with a
    code (protocol §7). It reads them in the order in which they were sent, so each is
    followed by a ping, whose pong says that all up to there were read without a refusal.
    The refused one is then the earliest without a pong. Any number may be on their way.
    """

    def __init__(
        self,
        socket: ClientConnection,
        ended: Callable[[ConnectionClosed], Ended],
        *,
        write_timeout_s: float,
    ) -> None:
        """Send over an open socket; ``ended`` says what its end means."""
        self._socket = socket
        self._ended = ended
        self._write_timeout_s = write_timeout_s
        self._writing = asyncio.Lock()
        self._unread: list[asyncio.Future[None]] = []

    async def send(self, frame: bytes) -> None:
        """Send a frame, and return when the server has read it; see ``Connection.send``."""
        read: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            # Held while a frame and its ping are written, and not until they are answered.
            async with self._writing:
                require_open(self._socket)
                await self._write(frame, read)
            await read
        finally:
            # Whoever gave up leaves its place in the line, but nobody hears of it any more.
            read.cancel()

    async def _write(self, frame: bytes, read: asyncio.Future[None]) -> None:
        self._unread.append(read)
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await self._socket.send(frame, text=False)
                pong = asyncio.ensure_future(await self._socket.ping())
        except TimeoutError:
            self._socket.transport.abort()
            self._over(Ended(Sign.SILENT, "the push server takes no more data: the link is dead"))
        except ConnectionClosed as closed:
            self._over(self._ended(closed))
        else:
            pong.add_done_callback(lambda pong: self._answered(read, pong))

    def _answered(self, read: asyncio.Future[None], pong: asyncio.Future[float]) -> None:
        error = None if pong.cancelled() else pong.exception()
        if isinstance(error, ConnectionClosed):
            self._over(self._ended(error))
            return
        # Pongs come in order; before this frame stand at most those whose sender gave up.
        while self._unread:
            first = self._unread.pop(0)
            if not first.done():
                first.set_result(None)
            if first is read:
                break

    def _over(self, ended: Ended) -> None:
        """Tell everybody whose frame was not read for sure; the first one may be what was refused."""
        refused = ended.code if ended.sign is Sign.PUBLISH_REFUSED else None
        while self._unread:
            first = self._unread.pop(0)
            if not first.done():
                # One error for each: they are raised in different places.
                first.set_exception(
                    Ended(ended.sign, str(ended), ended.code) if refused is None else refusal(refused)
                )
            refused = None
