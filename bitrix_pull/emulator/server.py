"""A portal and its push server in one process, on one port."""

import secrets
import ssl
from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from types import TracebackType
from typing import Self

from aiohttp import web

from bitrix_pull.emulator.channels import CHANNEL_LIFE_S
from bitrix_pull.emulator.clock import machine_time
from bitrix_pull.emulator.journal import Journal
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
from bitrix_pull.emulator.site import Routes, Site
from bitrix_pull.emulator.subscribe_api import SubscribeApi


class Emulator:
    """A Bitrix24 portal and a push server, for tests, demos and a first look.

    Everything that a client holds on to (token, webhook, channels) follows from the
    security key: an emulator that is killed, and started again with the same key and
    port, is the same portal to it.

    Attributes:
        portal: The portal: its users, rights, channels and events.
        push: The push server that the portal uses: its connections, messages and limits.
        journal: What clients did.
        token: An access token of the application for user 1, an administrator; it does
            not expire by itself.
        refresh_token: One for the OAuth endpoint; it does not expire, and works once.
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
        clock: Callable[[], float] = machine_time,
        epoch: int | None = None,
        tls: ssl.SSLContext | None = None,
        latency_s: float = 0.0,
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
            epoch: The first 10 digits of mids; None: the second of the first message.
            tls: Serve over TLS with this; None: plain http.
            latency_s: How long all that it writes is on its way to the client.

        Raises:
            ValueError: There is no such version, or not in shared mode.
        """
        key = secrets.token_hex(16) if security_key is None else security_key
        self.push: PushServer
        self.push = self._first = PushServer(key, clock, version=version, mode=mode, epoch=epoch)
        self.journal: Journal = self.push.journal
        self.portal: Portal = Portal(
            self.push, key, clock, channel_life_s=channel_life_s, journal=self.push.journal
        )
        self.portal.scheme = "http" if tls is None else "https"
        self.token: str = self.portal.issue_token()
        self.refresh_token: str = self.portal.tokens.issue("refresh", 1)
        self._key = key
        self._clock = clock
        self._new_site = partial(Site, tls=tls, latency_s=latency_s)
        portals = RestApi(self.portal).add_routes
        self._site = self._new_site(host, port, self._prepare, portals, *_push_routes(self.push))
        self._moved: list[tuple[Site, PushServer]] = []

    async def start(self, *, keep_history: bool = True) -> None:
        """Listen. No harm if it does already.

        Args:
            keep_history: After a stop: the push server's Redis has lived on. Mids go on where
                they were, and messages from before are replayed. Otherwise the mids begin
                anew, and greater than all before.

        Raises:
            OSError: The port is taken.
        """
        if self._site.is_listening:
            return
        for site, push in self._served:
            await site.start()
            push.begin_process(keep_history=keep_history)
        self.portal.address = self._site.address

    async def stop(self) -> None:
        """Stop listening, and cut every connection off as a dying process does."""
        for site, push in self._served:
            await site.stop()
            await push.finish()

    @property
    def _served(self) -> list[tuple[Site, PushServer]]:
        return [(self._site, self._first), *self._moved]

    async def move_push_server(self, epoch: int | None = None) -> PushServer:
        """Let the portal use another push server, at another port: ``push`` from now on.

        The one that it has used runs on, and keeps who is connected; nothing is sent there
        any more. Portal-wide clients of a version before 5 are told (``config_expire``),
        an application's are not: the next configuration names the new addresses.

        Args:
            epoch: The first 10 digits of its mids; None: the second of its first message.

        Returns:
            The one that it has used.
        """
        before = self.push
        push = PushServer(
            self._key,
            self._clock,
            version=before.version,
            mode=before.mode,
            epoch=epoch,
            journal=self.journal,
        )
        push.gather_s = before.gather_s
        site = self._new_site(self._site.host, 0, self._prepare, *_push_routes(push))
        await site.start()
        self._moved.append((site, push))
        self.portal.change_settings(push, site.address)
        self.push = push
        return before

    async def _prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Write the emulated time where aiohttp has written the real one."""
        is_portals = request.path.startswith(PORTAL_PATHS)
        now = self.portal.now() if is_portals else self.push.now()
        response.headers["Date"] = formatdate(now, usegmt=True)
        if isinstance(response, web.WebSocketResponse) and not self.push.dates_handshakes:
            del response.headers["Date"]

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
        """The portal: ``http://HOST:PORT``, or ``https://…``."""
        return self.portal.url

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
        """Where to subscribe by WebSocket: ``ws://…``, or ``wss://…``."""
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


def _push_routes(push: PushServer) -> tuple[Routes, Routes]:
    return SubscribeApi(push).add_routes, PublishApi(push).add_routes
