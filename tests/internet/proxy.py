"""An HTTP proxy on the internet of a test."""

import asyncio
import contextlib
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.internet.stand import PORTAL, PORTAL_IP, PROXY, PROXY_IP, PUSH, PUSH_IP, Internet, proving

USER, PASSWORD = "proxyuser", "pro%2Fxypassword"
CREDENTIALS = b64encode(b"proxyuser:pro/xypassword").decode()
"""What it insists on, as an address holds it and as a header does."""


class Proxy:
    """An HTTP proxy that knows the internet of a test and opens tunnels.

    Attributes:
        heads: What clients asked for, with their headers.
    """

    def __init__(self, internet: Internet) -> None:
        self.heads: list[str] = []
        self._internet = internet
        self._tunnels = set[asyncio.Task[None]]()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        if f"Proxy-Authorization: Basic {CREDENTIALS}" not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        host, _, port = head.split()[1].rpartition(":")
        # The proxy asks its own name server.
        ip = {PORTAL: PORTAL_IP, PUSH: PUSH_IP}[host]
        far_reader, far_writer = await asyncio.open_connection(
            "127.0.0.1", self._internet.routes[ip, int(port)]
        )
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_relay(reader, far_writer), _relay(far_reader, writer))

    @asynccontextmanager
    async def at_work(self, *, tls: bool) -> AsyncIterator["Proxy"]:
        """Serve until the end of the context."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tunnels.add(task)
            task.add_done_callback(self._tunnels.discard)
            with contextlib.suppress(OSError, EOFError):
                await self._serve(reader, writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=proving() if tls else None)
        self._internet.names[PROXY] = [PROXY_IP]
        self._internet.routes[PROXY_IP, 3128] = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            while self._tunnels:
                await asyncio.wait(self._tunnels)


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    writer.close()
