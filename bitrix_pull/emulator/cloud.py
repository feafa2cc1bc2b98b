"""Many portals of the cloud in one process, on one push server that they share: version 4, as there."""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from bitrix_pull.emulator.channels import CHANNEL_LIFE_S, derive
from bitrix_pull.emulator.journal import Journal
from bitrix_pull.emulator.portal import Portal
from bitrix_pull.emulator.publish_api import PublishApi
from bitrix_pull.emulator.push_server import PushServer
from bitrix_pull.emulator.rest import PORTAL_PATHS, RestApi, add_portal_routes
from bitrix_pull.emulator.site import Site
from bitrix_pull.emulator.subscribe_api import SubscribeApi


class CloudPortal(Portal):
    """One portal of a cloud.

    Attributes:
        token: An access token of its application for user 1, an administrator; it does not
            expire by itself.
        refresh_token: One for the OAuth endpoint; it does not expire, and works once.
    """

    def __init__(self, push: PushServer, key: str, clock: Callable[[], float], **settings: Any) -> None:
        super().__init__(push, key, clock, **settings)
        self.token: str = self.issue_token()
        self.refresh_token: str = self.tokens.issue("refresh", 1)
        self.push_client_id: str = derive(key, "push client id")[:16].hex()
        push.add_portal(self.push_client_id)

    @property
    def oauth_url(self) -> str:
        """The OAuth token endpoint."""
        return f"{self.url}/oauth/token/"


class EmulatedCloud:
    """Portals with channels, tokens, rights and events of their own, and the push server they share.

    Each portal has a port of its own, which tells it from the others as a domain does; or a
    domain, where there is one to make names below.

    Attributes:
        portals: The portals, as many as were asked for.
        push: Their push server.
        journal: What clients did, with all of them together.
    """

    def __init__(
        self,
        portals: int,
        host: str = "127.0.0.1",
        security_key: str | None = None,
        *,
        domain: str = "",
        channel_life_s: float = CHANNEL_LIFE_S,
        clock: Callable[[], float] = time.time,
        epoch: int | None = None,
    ) -> None:
        """Prepare a cloud; nothing is served before ``start``.

        Args:
            portals: How many there are.
            host: Name or IPv4 address to listen at.
            security_key: What everything is made from that clients hold on to; None: a random one.
            domain: Portals are ``portal0.DOMAIN``, ``portal1.DOMAIN`` and so on, and the push server
                ``push.DOMAIN``, all at one port; whoever connects must find these names at
                ``host``. "": each portal has a port of its own at ``host``.
            channel_life_s: See ``Emulator``.
            clock: See ``Emulator``.
            epoch: See ``Emulator``.

        Raises:
            ValueError: No portal is asked for.
        """
        if portals < 1:
            raise ValueError("a cloud has one portal at least")
        key = secrets.token_hex(16) if security_key is None else security_key
        self.push: PushServer = PushServer(key, clock, mode="shared", epoch=epoch)
        self.journal: Journal = self.push.journal
        self.portals: Sequence[CloudPortal] = tuple(
            CloudPortal(
                self.push,
                derive(key, "portal", number).hex(),
                clock,
                channel_life_s=channel_life_s,
                journal=self.journal,
            )
            for number in range(portals)
        )
        self._by_host: Mapping[str, RestApi] = {}
        self._portal_by_host: Mapping[str, Portal] = {}
        self._site = Site(
            host,
            0,
            self._prepare,
            lambda app: add_portal_routes(app, self._rest, self._oauth_token),
            SubscribeApi(self.push).add_routes,
            PublishApi(self.push).add_routes,
            more_ports=0 if domain else portals,
        )
        self._domain = domain

    async def start(self, *, keep_history: bool = True) -> None:
        """Listen. No harm if it does already.

        Args:
            keep_history: See ``Emulator.start``.

        Raises:
            OSError: A port is taken, or there are too many portals for this system.
        """
        if self._site.is_listening:
            return
        await self._site.start()
        self.push.begin_process(keep_history=keep_history)
        domain, port = self._domain, self._site.port
        for number, portal in enumerate(self.portals):
            if domain:
                portal.address, portal.push_address = (
                    f"portal{number}.{domain}:{port}",
                    f"push.{domain}:{port}",
                )
            else:
                portal.address = f"{self._site.host}:{self._site.more_ports[number]}"
                portal.push_address = self._site.address
        self._portal_by_host = {portal.address: portal for portal in self.portals}
        self._by_host = {address: RestApi(portal) for address, portal in self._portal_by_host.items()}

    async def stop(self) -> None:
        """Stop listening, and cut every connection off as a dying process does."""
        await self._site.stop()
        await self.push.finish()

    async def restart(self, *, keep_history: bool = True) -> None:
        """Stop, and start at the same ports."""
        await self.stop()
        await self.start(keep_history=keep_history)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _rest(self, request: web.Request) -> web.StreamResponse:
        return await self._asked(request).rest(request)

    async def _oauth_token(self, request: web.Request) -> web.StreamResponse:
        return await self._asked(request).oauth_token(request)

    def _asked(self, request: web.Request) -> RestApi:
        api = self._by_host.get(request.host)
        if api is None:
            # The push server's own port, or name.
            raise web.HTTPNotFound
        return api

    async def _prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Write the emulated time where aiohttp has written the real one."""
        portal = self._portal_by_host.get(request.host) if request.path.startswith(PORTAL_PATHS) else None
        response.headers["Date"] = formatdate((portal or self.push).now(), usegmt=True)
        if isinstance(response, web.WebSocketResponse) and not self.push.dates_handshakes:
            del response.headers["Date"]
