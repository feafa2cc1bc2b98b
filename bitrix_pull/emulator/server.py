"""A portal and its push server in one process, on one port."""

import asyncio
import secrets
import time
from collections.abc import Callable
from email.utils import formatdate
from types import TracebackType
from typing import Self

from aiohttp import web

from bitrix_pull.emulator.answers import answer
from bitrix_pull.emulator.channels import CHANNEL_LIFE_S
from bitrix_pull.emulator.faults import LineProtocol
from bitrix_pull.emulator.portal import Portal
from bitrix_pull.emulator.publish_api import PublishApi
from bitrix_pull.emulator.push_server import (
    CLIENT_PUBLISH_PATH,
    PUBLISH_PATH,
    STAT_PATH,
    SUBSCRIBE_PATHS,
    Mode,
    PushServer,
)
from bitrix_pull.emulator.rest import PORTAL_PATHS, RestApi
from bitrix_pull.emulator.subscribe_api import SubscribeApi

_MAX_BODY_BYTES = 64 * 1024 * 1024


class Emulator:
    """A Bitrix24 portal and a push server, for tests, demos and a first look.

    Everything that a client holds on to (token, webhook, channels) follows from the
    security key: an emulator that is killed, and started again with the same key and
    port, is the same portal to it.

    Attributes:
        portal: The portal: its users, rights, channels and events.
        push: The push server: its connections, messages and limits.
        token: An access token of the application for user 1, an administrator; it does
            not expire by itself.
        refresh_token: One for the OAuth endpoint; it works once.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        security_key: str | None = None,
        *,
        version: int = 4,
        mode: Mode = "personal",
        channel_life_s: float = CHANNEL_LIFE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare an emulator; nothing is served before ``start``.

        Args:
            host: Name or IPv4 address to listen at.
            port: 0 takes a free one at the first start, which is kept from then on.
            security_key: What ids, signatures and tokens are made from; None: a random
                one; "": a fixed one, and channels without signatures.
            version: Of the push server: 2 (text without mids), 3 (text), 4 (protobuf) or 5
                (JSON-RPC).
            mode: "shared" for a push server that serves many portals.
            channel_life_s: Seconds until the portal replaces a channel.
            clock: Unix time for everything that expires, and for the ``Date`` of all answers.

        Raises:
            ValueError: There is no such version, or not in shared mode.
        """
        key = secrets.token_hex(16) if security_key is None else security_key
        self.push = PushServer(key, clock, version=version, mode=mode)
        self.portal = Portal(self.push, key, clock, channel_life_s=channel_life_s)
        self.token = self.portal.issue_token()
        self.refresh_token = self.portal.issue_refresh_token()
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None
        self._listening: asyncio.Server | None = None

    async def start(self, *, keep_history: bool = True) -> None:
        """Listen. No harm if it does already.

        The mids of messages from now on are greater than all before.

        Args:
            keep_history: After a stop: replay messages from before it too.

        Raises:
            OSError: The port is taken.
        """
        if self._runner is not None:
            return
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        RestApi(self.portal).add_routes(app)
        SubscribeApi(self.push).add_routes(app)
        PublishApi(self.push).add_routes(app)
        app.router.add_route("*", "/{path:.*}", _unknown_path)
        app.on_response_prepare.append(self._date)
        # Cancellation: a poll whose client has gone must not hang on until its timeout.
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        http = runner.server
        assert http is not None
        try:
            self._listening = await asyncio.get_running_loop().create_server(
                lambda: LineProtocol(http()), self._host, self._port, backlog=1024
            )
        except OSError:
            await runner.cleanup()
            raise
        self.push.begin_epoch(keep_history=keep_history)
        self._runner = runner
        self._port = self._listening.sockets[0].getsockname()[1]
        self.portal.address = f"{self._host}:{self._port}"

    async def stop(self) -> None:
        """Stop listening, and cut every connection off as a dying process does."""
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        assert self._listening is not None
        assert runner.server is not None
        self._listening.close()
        for connection in runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)
        await runner.cleanup()
        await self.push.finish()

    async def _date(self, request: web.Request, response: web.StreamResponse) -> None:
        """Write the emulated time where aiohttp has written the real one."""
        is_portals = request.path.startswith(PORTAL_PATHS)
        now = self.portal.now() if is_portals else self.push.now()
        response.headers["Date"] = formatdate(now, usegmt=True)

    async def restart(self, *, keep_history: bool = True) -> None:
        """Stop, and start at the same port, as a new process of the server would."""
        await self.stop()
        await self.start(keep_history=keep_history)

    async def close(self) -> None:
        """Stop for good."""
        await self.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # -- addresses ----------------------------------------------------------------

    @property
    def portal_url(self) -> str:
        """The portal: ``http://HOST:PORT``."""
        return f"http://{self.portal.address}"

    @property
    def webhook_url(self) -> str:
        """The inbound webhook of user 1, for user mode."""
        return f"{self.portal_url}/rest/1/{self.portal.webhook_code()}/"

    @property
    def oauth_url(self) -> str:
        """The OAuth token endpoint."""
        return f"{self.portal_url}/oauth/token/"

    @property
    def sub_url(self) -> str:
        """Where to subscribe by polling."""
        return self.portal.push_url(SUBSCRIBE_PATHS[0])

    @property
    def subws_url(self) -> str:
        """Where to subscribe by WebSocket: ``ws://…``."""
        return self.portal.push_url(SUBSCRIBE_PATHS[1]).replace("http", "ws", 1)

    @property
    def pub_url(self) -> str:
        """Where the portal publishes: trusted."""
        return self.portal.push_url(PUBLISH_PATH)

    @property
    def rest_url(self) -> str:
        """Where clients publish."""
        return self.portal.push_url(CLIENT_PUBLISH_PATH)

    @property
    def stat_url(self) -> str:
        """The push server's statistics."""
        return self.portal.push_url(STAT_PATH)


async def _unknown_path(request: web.Request) -> web.StreamResponse:
    return answer(status=404)
