"""One aiohttp session for one client, or for the clients of many portals."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Generator
from contextvars import ContextVar

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from bitrix_pull.portal.destinations import Destinations
from bitrix_pull.portal.names import AddressInfo, Names

_DESTINATIONS: ContextVar[Destinations] = ContextVar("bitrix_pull.destinations")
"""Says where the request may go for which a connection is being opened."""


class HttpPool:
    """An aiohttp session, its connections and the names that were resolved for them.

    The session is made when it is first needed, and again after ``close()`` or the end of its
    event loop, which closes it: so a pool can be created outside a running loop.

    What differs from client to client (TLS, proxy, where requests may go) is said with each
    request, so nothing of one portal's reaches another's.

    Args:
        many: True if many clients use it: then nothing limits how many connections there are,
            as each client has few. One client's requests share 100.
    """

    def __init__(self, *, many: bool = False) -> None:
        self.many: bool = many
        self.names: Names = Names()
        """What names lead to, for connections of all kinds."""
        self._session: aiohttp.ClientSession | None = None
        self._ending: AsyncGenerator[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def session(self) -> aiohttp.ClientSession:
        """Return the session to use in the running event loop."""
        if self._session is None or self._session.closed or self._is_stranded:
            self._loop = asyncio.get_running_loop()
            connector = aiohttp.TCPConnector(
                resolver=CheckedResolver(),
                # What was resolved for one portal is judged anew for the next one.
                use_dns_cache=False,
                limit=0 if self.many else 100,
            )
            # A jar that keeps nothing: each call carries its own credentials.
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), connector=connector)
            self._ending = _closed_with_the_loop(self._session)
            await anext(self._ending)
        return self._session

    @contextlib.contextmanager
    def going_by(self, destinations: Destinations) -> Generator[None]:
        """Let connections that are opened in a block go only where these destinations allow."""
        token = _DESTINATIONS.set(destinations)
        try:
            yield
        finally:
            _DESTINATIONS.reset(token)

    @property
    def _is_stranded(self) -> bool:
        """True if the event loop of the session is gone, in which alone it can be closed."""
        return self._loop is not None and self._loop.is_closed()

    async def close(self) -> None:
        """Close the session. It is made anew when needed again."""
        self._session, ending, self._ending = None, self._ending, None
        if ending is not None and not self._is_stranded:
            await ending.aclose()


class CheckedResolver(AbstractResolver):
    """Lets aiohttp connect to none but checked addresses.

    What is checked is what is connected to: a name that changes its addresses in between
    gains nothing by it.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a host; see ``Destinations.resolve``."""
        found: list[AddressInfo] = await _DESTINATIONS.get().resolve(host, port, family)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=family,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for family, _, proto, _, address in found
        ]

    async def close(self) -> None:
        """Do nothing: there is nothing open."""


async def _closed_with_the_loop(session: aiohttp.ClientSession) -> AsyncGenerator[None]:
    """Close a session when this is closed, which an event loop does at its end with what is left open.

    So ``asyncio.run(pull.publish(...))`` leaves nothing behind.
    """
    try:
        yield
    finally:
        await session.close()
