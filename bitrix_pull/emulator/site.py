"""What is served at one address."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable

from aiohttp import web

from bitrix_pull.emulator.answers import answer
from bitrix_pull.emulator.faults import LineProtocol

_MAX_BODY_BYTES = 64 * 1024 * 1024

Routes = Callable[[web.Application], None]
"""Adds what is served to an application."""

Prepare = Callable[[web.Request, web.StreamResponse], Awaitable[None]]
"""Sees every answer before it goes out."""


class Site:
    """Serves some routes at a host and port; a free port is kept once it is taken.

    Args:
        host: Name or IPv4 address to listen at.
        port: 0 for a free one.
        prepare: Sees every answer before it goes out.
        routes: What is served.
        tls: Serve over TLS with this.
        latency_s: How long everything that is written is on its way.
        more_ports: At how many free ports it listens beside that one.

    Attributes:
        host: Where it listens.
        port: 0 before the first start, if it was not chosen.
        more_ports: The other ports; 0 each before the first start.
    """

    def __init__(
        self,
        host: str,
        port: int,
        prepare: Prepare,
        *routes: Routes,
        tls: ssl.SSLContext | None = None,
        latency_s: float = 0.0,
        more_ports: int = 0,
    ) -> None:
        self.host = host
        self.port: int = port
        self.more_ports: list[int] = [0] * more_ports
        self._prepare = prepare
        self._routes = routes
        self._tls = tls
        self._latency_s = latency_s
        self._runner: web.AppRunner | None = None
        self._listening: list[asyncio.Server] = []

    @property
    def address(self) -> str:
        """``HOST:PORT``."""
        return f"{self.host}:{self.port}"

    @property
    def is_listening(self) -> bool:
        """Tell whether it is served now."""
        return self._runner is not None

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: The port is taken.
        """
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        for add_routes in self._routes:
            add_routes(app)
        app.router.add_route("*", "/{path:.*}", _unknown_path)
        app.on_response_prepare.append(self._prepare)
        # Cancellation: a poll whose client has gone must not hang on until its timeout.
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        http = runner.server
        assert http is not None
        try:
            for port in (self.port, *self.more_ports):
                listening = await asyncio.get_running_loop().create_server(
                    lambda: LineProtocol(http(), self._latency_s),
                    self.host,
                    port,
                    backlog=1024,
                    ssl=self._tls,
                )
                self._listening.append(listening)
        except OSError:
            self._listen_no_more()
            await runner.cleanup()
            raise
        self._runner = runner
        self.port, *self.more_ports = (each.sockets[0].getsockname()[1] for each in self._listening)

    async def stop(self) -> None:
        """Stop listening, and cut every connection off as a dying process does."""
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        assert runner.server is not None
        self._listen_no_more()
        for connection in runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()
        # A turn in which the ends are noticed, and one for what they cancel.
        for _ in range(2):
            await asyncio.sleep(0)

    def _listen_no_more(self) -> None:
        for listening in self._listening:
            listening.close()
        self._listening.clear()


async def _unknown_path(request: web.Request) -> web.StreamResponse:
    return answer(status=404)
