"""A small internet on loopback: names, public addresses, TLS, and somebody who listens.

Names are resolved and public addresses are routed as a test wants; everything else is real:
sockets, TLS, HTTP. Each attempt to connect is written down, also those that lead nowhere.
"""

import asyncio
import contextlib
import errno
import functools
import ipaddress
import socket
import ssl
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

CERTIFICATE = Path(__file__).with_name("certificate.pem")
"""Of the hosts of this internet; signed by itself and trusted by nobody else."""

PORTAL, PORTAL_IP = "acme.bitrix24.com", "20.30.40.50"
PUSH, PUSH_IP = "push.example.com", "20.30.40.60"
OAUTH, OAUTH_IP = "oauth.bitrix.info", "20.30.40.70"
PROXY, PROXY_IP = "proxy.example.com", "20.30.40.80"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@functools.cache
def trusting() -> ssl.SSLContext:
    """Return what a client needs to trust the hosts of this internet."""
    return ssl.create_default_context(cafile=CERTIFICATE)


@functools.cache
def proving() -> ssl.SSLContext:
    """Return what a host of this internet shows."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    return context


class Internet:
    """Names and routes.

    Attributes:
        names: What a name leads to.
        later: What it leads to from the second question on, where that is something else.
        asked: The names that were asked for.
        routes: Public address and port to the port on loopback that plays it.
        dialled: Addresses and ports that anybody tried to connect to.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: dict[str, list[str]] = {"localhost": ["127.0.0.1"], "localhost.": ["127.0.0.1"]}
        self.later: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.routes: dict[tuple[str, int], int] = {}
        self.dialled: list[tuple[str, int]] = []
        really_resolve, really_connect = socket.getaddrinfo, BaseSelectorEventLoop.sock_connect

        def resolve(host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
            name = host.decode() if isinstance(host, bytes) else host
            if name not in self.names:
                # Numbers only, in all the forms that the C library takes for an IP address.
                return really_resolve(host, port, flags=socket.AI_NUMERICHOST, type=socket.SOCK_STREAM)
            addresses = self.later.get(name, self.names[name]) if name in self.asked else self.names[name]
            self.asked.append(name)
            return [
                found
                for address in addresses
                for found in really_resolve(address, port, type=socket.SOCK_STREAM)
            ]

        async def connect(loop: BaseSelectorEventLoop, sock: socket.socket, address: Any) -> None:
            host, port = address[:2]
            self.dialled.append((host, port))
            if ipaddress.ip_address(host).is_loopback:
                return await really_connect(loop, sock, address)
            if (host, port) not in self.routes:
                raise OSError(errno.ENETUNREACH, "no such host in this internet")
            return await really_connect(loop, sock, ("127.0.0.1", self.routes[host, port]))

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        monkeypatch.setattr(BaseSelectorEventLoop, "sock_connect", connect)

    @asynccontextmanager
    async def host(
        self, name: str, ip: str, handler: Handler, *, port: int = 443
    ) -> AsyncIterator[list[web.Request]]:
        """Put a web server at a public address; give the requests that it gets."""
        requests: list[web.Request] = []

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            assert isinstance(request, web.Request)
            await request.read()
            requests.append(request)
            return await handler(request)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=proving()).start()
        self.names[name] = [ip]
        self.routes[ip, port] = runner.addresses[0][1]
        try:
            yield requests
        finally:
            await runner.cleanup()


class Thief:
    """Listens on loopback, IPv4 and IPv6, and keeps all that it is told.

    Attributes:
        port: Where, on both.
        connections: How many came.
        heard: The bytes that they sent.
    """

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.heard = b""

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while chunk := await reader.read(65_536):
            self.heard += chunk
            # A whole request, or the beginning of TLS, for which a thief has no certificate.
            if b"\r\n\r\n" in self.heard or chunk.startswith(b"\x16"):
                break
        writer.close()

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator["Thief"]:
        """Listen until the end of the context."""
        on_ipv4 = await asyncio.start_server(self._listen, "127.0.0.1", 0)
        self.port = on_ipv4.sockets[0].getsockname()[1]
        servers = [on_ipv4]
        if socket.has_ipv6:
            with contextlib.suppress(OSError):  # No IPv6 here, or somebody has the port.
                servers.append(await asyncio.start_server(self._listen, "::1", self.port))
        try:
            yield self
        finally:
            for server in servers:
                server.close()
                await server.wait_closed()
