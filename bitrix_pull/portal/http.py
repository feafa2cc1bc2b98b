"""The one aiohttp session of a client, and requests through it within limits."""

import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

from bitrix_pull.errors import AnswerTooLarge, InvalidArgument, Unreachable
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.addresses import is_loopback


@dataclass(slots=True, frozen=True)
class HttpAnswer:
    """An HTTP answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes


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
    """Owns the aiohttp session that REST, long polling and publishing share.

    The session is made when it is first needed and again after ``close()``, so that an
    instance can be created outside a running loop. A session given by the user is never
    closed.
    """

    def __init__(self, options: PullOptions, given: aiohttp.ClientSession | None = None) -> None:
        self._options = options
        self._given = given
        self._own: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """The aiohttp session. Needs a running loop.

        Raises:
            InvalidArgument: The user's own session is closed.
        """
        if self._given is not None:
            if self._given.closed:
                raise InvalidArgument("the aiohttp session given as http= is closed")
            return self._given
        if self._own is None:
            # A jar that keeps nothing: each call carries its own credentials.
            self._own = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self._own

    def proxy_for(self, url: str) -> str | None:
        """Return the proxy that the environment names for an address.

        None for loopback addresses, and for a session given by the user, which has its own
        settings. Not left to aiohttp's ``trust_env``, which would send even loopback
        traffic through a proxy and add passwords from ``~/.netrc``.
        """
        parts = urlsplit(url)
        host = parts.hostname or ""
        if self._given is not None or is_loopback(host) or urllib.request.proxy_bypass(parts.netloc):
            return None
        scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
        proxy = urllib.request.getproxies().get(scheme, "")
        return proxy if proxy.startswith(("http://", "https://")) else None

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
        host = urlsplit(url).netloc.rpartition("@")[2]
        try:
            async with self.session.request(
                verb,
                url,
                data=body,
                params=query,
                headers={"User-Agent": "bitrix_pull", **(headers or {})},
                allow_redirects=False,
                proxy=self.proxy_for(url),
                middlewares=(_once,) if verb == "GET" else None,
                timeout=aiohttp.ClientTimeout(total=timeout_s, connect=self._options.connect_timeout_s),
            ) as response:
                content = bytearray()
                async for chunk in response.content.iter_any():
                    content += chunk
                    if len(content) > max_bytes:
                        raise AnswerTooLarge(f"the answer of {host} is larger than {max_bytes} bytes")
                return HttpAnswer(response.status, response.headers, bytes(content))
        except (aiohttp.ClientError, OSError) as error:
            # aiohttp's errors can hold the address with its query: keep a cause of our own.
            raise Unreachable(f"{host} did not answer: {self._cause(error, timeout_s)}") from None

    def _cause(self, error: Exception, timeout_s: float) -> str:
        match error:
            case aiohttp.ConnectionTimeoutError():
                return f"no connection within {self._options.connect_timeout_s:g} s"
            case TimeoutError():
                return f"no complete answer within {timeout_s:g} s"
            case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
                return "the proxy cannot be used"
            case aiohttp.ClientConnectorDNSError():
                return "its name cannot be resolved"
            case aiohttp.ClientConnectorCertificateError():
                return f"its TLS certificate is not accepted ({error.certificate_error})"
            case aiohttp.ClientSSLError():
                return "the TLS handshake failed"
            case aiohttp.ClientConnectorError():
                return os.strerror(error.errno) if error.errno else "the connection failed"
            case aiohttp.ClientResponseError():
                return "what it sent is no HTTP"
            case _:
                return "the connection broke before the answer was complete"

    async def close(self) -> None:
        """Close the session if it was made here. It is made anew when needed again."""
        own, self._own = self._own, None
        if own is not None:
            await own.close()
