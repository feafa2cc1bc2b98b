"""A client's HTTP requests, within limits."""

import asyncio
import contextlib
import functools
import os
import re
import socket
import ssl
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import SplitResult, unquote, urlsplit

import aiohttp

from bitrix_pull.errors import AnswerTooLarge, InvalidArgument, Unreachable
from bitrix_pull.options import PullOptions, check_proxy
from bitrix_pull.portal.addresses import is_loopback
from bitrix_pull.portal.destinations import AddressRefused, Destinations, named_server
from bitrix_pull.portal.http_pool import HttpPool
from bitrix_pull.portal.portal_clock import PortalClock, date_of
from bitrix_pull.redaction import get_logger

_log = get_logger("portal")

_EXCEPTION = re.compile(
    r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>[0-9]{1,5}))?|(?P<bare>[0-9a-f:./]+)"
)
"""An entry of ``NO_PROXY``."""

_UNSENT = (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError, AddressRefused)
"""What is raised before anything of a request is sent: there is no connection yet."""


@dataclass(slots=True, frozen=True)
class HttpAnswer:
    """An HTTP answer, read to its end."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class HttpStream:
    """An HTTP answer that is read as it comes.

    Attributes:
        status: Its status.
        headers: Its headers.
    """

    def __init__(self, response: aiohttp.ClientResponse, host: str, silence_s: float) -> None:
        """Read an answer that has begun; ``HttpSession.open`` makes it."""
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._host = host
        self._silence_s = silence_s

    async def read(self) -> bytes:
        """Return what has come, and wait if that is nothing; b"" at the end. Cancelling it loses nothing.

        Raises:
            Unreachable: It broke off, or fell silent.
        """
        try:
            async with asyncio.timeout(self._silence_s):
                return await self._response.content.readany()
        except TimeoutError:
            what = f"nothing more came for {self._silence_s:g} s"
        except (aiohttp.ClientError, OSError):
            what = "the connection broke"
        raise Unreachable(f"{self._host} did not answer to the end: {what}") from None

    def close(self) -> None:
        """Let go of it; the connection is used again if it was read to the end."""
        self._response.release()


async def _once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from repeating a GET whose connection broke.

    It would do so without asking, and spend a refresh token twice. It repeats on two kinds
    of error, and this makes another of them.
    """
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        raise aiohttp.ClientConnectionError from None


class HttpSession:
    """Sends what REST, long polling and publishing of one client ask for.

    Can be created outside a running loop. A session given by the user is never closed, and
    keeps its own settings but for what the options set.

    Args:
        options: Deadlines, proxy and TLS.
        given: The user's own session, or a pool that many clients use, which is not closed either.
        destinations: Where requests may go.

    Attributes:
        destinations: The same, to be asked before something is sent past this session.
        tls: What is trusted, for connections past this session.
        clock: The portal's clock, which hears the ``Date`` of every answer.
    """

    def __init__(
        self,
        options: PullOptions,
        given: aiohttp.ClientSession | HttpPool | None = None,
        destinations: Destinations | None = None,
    ) -> None:
        self.destinations: Destinations = destinations or Destinations(options)
        self._options = options
        self._pool = given if isinstance(given, HttpPool) else HttpPool()
        self._is_shared = self._pool is given
        self.destinations.names = self._pool.names
        self._given = given = None if isinstance(given, HttpPool) else given
        self.tls: ssl.SSLContext = options.ssl or _default_tls()
        self.clock: PortalClock = PortalClock()
        goes_along = options.proxy is not None or options.transport == "long_polling"
        if given is not None and not goes_along and _has_own_way(given):
            _log.warning(
                "WebSockets do not go through the session given as http=, which has a connector or"
                ' proxy of its own: set PullOptions(proxy=...), or transport="long_polling"'
            )

    @property
    def is_given(self) -> bool:
        """True if requests go through a session of the user's, whose way may be another than ours."""
        return self._given is not None

    async def _session(self) -> aiohttp.ClientSession:
        """Return the session to use.

        Raises:
            InvalidArgument: The user's own session is closed.
        """
        if self._given is not None:
            if self._given.closed:
                raise InvalidArgument("the aiohttp session given as http= is closed")
            return self._given
        return await self._pool.session()

    def proxy_for(self, url: str) -> str | None:
        """Return the proxy that the options or the environment name for an address.

        None for loopback addresses, and where a session given by the user has the say: its
        own settings hold for its requests, and its ``trust_env`` for WebSockets. The
        environment is not left to aiohttp's ``trust_env``, which would send even loopback
        traffic through a proxy and add passwords from ``~/.netrc``.

        Raises:
            InvalidArgument: The environment names one that cannot be used.
        """
        parts = urlsplit(url)
        if is_loopback(parts.hostname or ""):
            return None
        proxy = self._options.proxy
        if proxy is None:
            if self._given is not None and (parts.scheme in ("http", "https") or not self._given.trust_env):
                return None
            proxy = _environment_proxy(parts)
        if proxy is not None:
            self.destinations.trust_proxy(proxy)
        return proxy

    async def request(
        self,
        verb: str,
        url: str,
        *,
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float,
        max_bytes: int,
    ) -> HttpAnswer:
        """Send one request, once, and read the answer. Redirects are not followed.

        Args:
            verb: "GET" or "POST".
            url: Where to. Error texts name its host only.
            body: What to send.
            query: Added to the address.
            headers: Beside aiohttp's own.
            timeout_s: Deadline over everything, from the name's resolution to the last byte.
            max_bytes: Largest body that is accepted.

        Raises:
            Unreachable: No complete HTTP answer came in time.
            AnswerTooLarge: The body is larger than ``max_bytes``.
        """
        timeout = aiohttp.ClientTimeout(total=timeout_s, connect=self._options.connect_timeout_s)
        try:
            async with await self._send(verb, url, timeout, body, query, headers) as response:
                content = bytearray()
                async for chunk in response.content.iter_any():
                    content += chunk
                    if len(content) > max_bytes:
                        raise AnswerTooLarge(
                            f"the answer of {named_server(url)} is larger than {max_bytes} bytes"
                        )
                return HttpAnswer(response.status, response.headers, bytes(content))
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(url, error, timeout_s) from None

    async def open(self, verb: str, url: str, *, timeout_s: float, silence_s: float) -> "HttpStream":
        """Send one request, once, and return the answer when it begins. Redirects are not followed.

        Args:
            verb: "GET" or the like.
            url: Where to. Error texts name its host only.
            timeout_s: Deadline for the answer to begin.
            silence_s: The longest time without any of it after that.

        Raises:
            Unreachable: No HTTP answer began in time.
        """
        timeout = aiohttp.ClientTimeout(total=None, connect=self._options.connect_timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._send(verb, url, timeout)
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(url, error, timeout_s) from None
        return HttpStream(response, named_server(url), silence_s)

    async def _send(
        self,
        verb: str,
        url: str,
        timeout: aiohttp.ClientTimeout,
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        session, proxy = await self._session(), self.proxy_for(url)
        proxy_address, proxy_headers = told_apart(proxy)
        through_tunnel = url.startswith("https:")
        if self._has_foreign_connections(url) and proxy is None:
            await self._check_ahead(url)
        with self._pool.going_by(self.destinations):
            response = await session.request(
                verb,
                url,
                data=body,
                params=query,
                headers={
                    "User-Agent": "bitrix_pull",
                    **(headers or {}),
                    **({} if through_tunnel else proxy_headers),
                },
                allow_redirects=False,
                raise_for_status=False,
                proxy=proxy_address,
                proxy_headers=proxy_headers if through_tunnel else None,
                # A given session has a context of its own, which True leaves in force.
                ssl=True if self._given is not None and self._options.ssl is None else self.tls,
                middlewares=(_once,) if verb == "GET" else None,
                timeout=timeout,
            )
        self.note_date(url, response.headers)
        return response

    def _unreachable(self, url: str, error: Exception, timeout_s: float) -> Unreachable:
        """Say why nothing answered: aiohttp's errors can hold the address with its query."""
        return Unreachable(
            f"{named_server(url)} did not answer: {self._cause(error, timeout_s)}",
            unsent=isinstance(error, _UNSENT),
        )

    def note_date(self, url: str, headers: Mapping[str, str]) -> None:
        """Let the clock hear what an answer says of the time."""
        if (unix := date_of(headers)) is not None:
            parts = urlsplit(url)
            # Behind one host may be several servers, each with a clock of its own.
            self.clock.hear(f"{parts.netloc}{parts.path}", unix)

    def _cause(self, error: Exception, timeout_s: float) -> str:
        match error:
            case aiohttp.ConnectionTimeoutError():
                return f"no connection within {self._options.connect_timeout_s:g} s"
            case TimeoutError():
                return f"no complete answer within {timeout_s:g} s"
            case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
                return "the proxy cannot be used"
            case (
                AddressRefused(text=text)
                | aiohttp.ClientConnectorDNSError(os_error=AddressRefused(text=text))
            ):
                return text
            case aiohttp.ClientConnectorDNSError():
                return "its name cannot be resolved"
            case aiohttp.ClientConnectorCertificateError():
                return f"its TLS certificate is not accepted ({error.certificate_error})"
            case aiohttp.ClientSSLError():
                reason = getattr(error.os_error, "reason", None) or error.os_error.strerror
                return f"the TLS handshake failed ({reason or type(error.os_error).__name__})"
            case aiohttp.ClientConnectorError():
                return os.strerror(error.errno) if error.errno else "the connection failed"
            case aiohttp.ClientResponseError():
                return "what it sent is no HTTP"
            case _:
                return "the connection broke before the answer was complete"

    def _has_foreign_connections(self, url: str) -> bool:
        """Tell whether a request may go by a connection that was opened without asking our destinations."""
        if self._given is None:
            return self._is_shared
        return not _has_own_way(self._given, url)

    async def _check_ahead(self, url: str) -> None:
        """Judge what a name leads to, for a session with connections that we have not opened.

        A session given by the user asks again, and could be told something else; in a pool,
        what others have connected to may be reused. Only an own session leaves no gap.
        """
        with contextlib.suppress(socket.gaierror):
            async with asyncio.timeout(self._options.connect_timeout_s):
                await self.destinations.resolve_url(url)

    async def close(self) -> None:
        """Close the session if it was made here. It is made anew when needed again."""
        if not self._is_shared:
            await self._pool.close()


@functools.cache
def _default_tls() -> ssl.SSLContext:
    """Return what Python trusts. Loading it takes long enough to do it only once."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _has_own_way(session: aiohttp.ClientSession, url: str | None = None) -> bool:
    """True if a session goes by a proxy or the like that it was given, or finds in the environment."""
    # The proxy of a session has no public name in aiohttp.
    if type(session.connector) is not aiohttp.TCPConnector or getattr(session, "_default_proxy", None):
        return True
    if url is None or not session.trust_env:
        return False
    return _environment_proxy(urlsplit(url)) is not None


def told_apart(proxy: str | None) -> tuple[str | None, dict[str, str]]:
    """Return the address of a proxy and the headers with its password.

    aiohttp shows the address when a connection was not closed, as in a program that is killed.
    """
    if proxy is None:
        return None, {}
    parts = urlsplit(proxy)
    if parts.username is None:
        return proxy, {}
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    return address.geturl(), {"Proxy-Authorization": f"Basic {b64encode(credentials).decode()}"}


def _is_excepted(host: str, port: int, exceptions: str) -> bool:
    """Tell whether ``NO_PROXY`` names a host, in any of the ways that are in use for it.

    ``*`` for all; a name for itself and what is below it, with or without ``.`` or ``*.`` before;
    an IP address or a network of them; each with or without a port.
    """
    for entry in exceptions.lower().replace(",", " ").split():
        match = _EXCEPTION.fullmatch(entry)
        if match is None or (match["port"] and int(match["port"]) != port):
            continue
        name = match["ipv6"] or match["host"] or match["bare"]
        if name == "*" or _is_within(host, name):
            return True
        name = name.removeprefix("*").removeprefix(".")
        if name and (host == name or host.endswith(f".{name}")):
            return True
    return False


def _is_within(host: str, network: str) -> bool:
    """True if an IP address is in a network, or the same as another one."""
    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:
        return False


def _environment_proxy(url: SplitResult) -> str | None:
    """Return the proxy that the environment names for an address.

    Raises:
        InvalidArgument: It cannot be used: going past it is not what the user wants.
    """
    scheme = {"ws": "http", "wss": "https"}.get(url.scheme, url.scheme)
    proxies = urllib.request.getproxies()
    host, port = url.hostname or "", url.port or (443 if scheme == "https" else 80)
    # Some systems have settings of their own beside the environment's.
    if urllib.request.proxy_bypass(f"{url.netloc}") or _is_excepted(host, port, proxies.get("no", "")):
        return None
    name = next((name for name in (scheme, "all", "socks") if proxies.get(name)), None)
    if name is None:
        return None
    proxy = proxies[name]
    if name == "socks":
        proxy = f"socks://{proxy.rpartition('://')[2]}"
    elif "://" not in proxy:
        proxy = f"http://{proxy}"
    check_proxy(proxy, f"the environment ({name}_proxy)")
    return proxy
