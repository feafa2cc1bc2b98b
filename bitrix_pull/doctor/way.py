"""The way to a server, a layer at a time: its name, TCP, a proxy's tunnel, TLS."""

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from bitrix_pull.doctor.findings import Finding, failed
from bitrix_pull.doctor.patient import Patient, Stopwatch
from bitrix_pull.errors import Unreachable
from bitrix_pull.portal.destinations import PRIVATE_ADVICE, AddressRefused, named_server
from bitrix_pull.portal.http import told_apart

RENEWED_BEFORE = timedelta(days=7)
"""A certificate that ends sooner should have been renewed."""

_HEAD_MAX_BYTES = 64 * 1024
_STRANGERS = "a proxy or firewall on the way may answer in its place"

# What OpenSSL calls them: X509_V_ERR_CERT_NOT_YET_VALID, …_HAS_EXPIRED, …_HOSTNAME_MISMATCH, …_IP_….
_OUT_OF_TIME = (9, 10)
_OF_ANOTHER = (62, 64)


WayKey = tuple[str, bool, str | None]
"""The server, whether over TLS, and the proxy."""


class _Refused(Exception):  # noqa: N818 - what a proxy has done
    """A proxy does not let a connection pass."""

    def __init__(self, told: str, advice: str) -> None:
        super().__init__(told)
        self.advice = advice


class Way:
    """Goes to a server on a connection of its own, over which nothing is said.

    Each layer is a finding with its time; the first that fails is the last.

    Args:
        patient: Whose proxies, TLS, and deadline for connections are in force.
        check: What the findings are called after: "portal", "websocket", ….
        url: Where to, by ``https``, ``wss``, ``http`` or ``ws``.

    Attributes:
        key: Ways with the same one are the same.

    Raises:
        InvalidArgument: The environment names a proxy that cannot be used.
    """

    def __init__(self, patient: Patient, check: str, url: str) -> None:
        self._patient = patient
        self._check = check
        self._url = urlsplit(url)
        self._server = named_server(url)
        self._proxy = patient.rest.http.proxy_for(url)
        self._next = url if self._proxy is None else self._proxy
        self._socket: socket.socket | None = None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.key: WayKey = (self._server, self._has_tls, self._proxy)

    @property
    def _has_tls(self) -> bool:
        return self._url.scheme in ("https", "wss")

    async def findings(self) -> AsyncGenerator[Finding]:
        """Yield what each layer has to say."""
        try:
            for layer, step in self._layers():
                finding = await self._take(f"{self._check} {layer}", step)
                yield finding
                if finding.level == "fail":
                    return
        finally:
            self._leave()

    def _layers(self) -> Iterator[tuple[str, Callable[[str], Awaitable[Finding]]]]:
        if not _is_address(urlsplit(self._next).hostname or ""):
            yield "name", self._resolve
        yield "tcp", self._connect
        # A request without TLS is told to the proxy itself; a WebSocket gets a tunnel in any case.
        if self._proxy is not None and self._url.scheme != "http":
            yield "proxy", self._tunnel
        if self._has_tls:
            yield "tls", self._encrypt

    async def _take(self, check: str, step: Callable[[str], Awaitable[Finding]]) -> Finding:
        limit_s = self._patient.options.connect_timeout_s
        try:
            with Stopwatch() as watch:
                async with asyncio.timeout(limit_s):
                    finding = await step(check)
            return replace(finding, took_s=watch.took_s)
        except _Refused as refused:
            return _failed(check, str(refused), refused.advice)
        except AddressRefused as refused:
            text = refused.text.removesuffix(PRIVATE_ADVICE).rstrip(". ")
            return _failed(check, f"no connection to {self._named}: {text}", PRIVATE_ADVICE)
        except socket.gaierror as error:
            return _failed(
                check,
                f"{self._named} has a name that cannot be resolved ({error.strerror})",
                "Check how it is spelt, and that this machine asks a name server that knows it.",
            )
        except ssl.SSLError as error:
            return _failed(check, *self._untrusted(error))
        except TimeoutError:
            told = f"{self._named} did not answer within {limit_s:g} s"
            return _failed(check, told, self._let_through("something drops it, or all is down"))
        except (OSError, EOFError) as error:
            number = error.errno if isinstance(error, OSError) else None
            reason = os.strerror(number) if number else "the connection was cut"
            told = f"no connection to {self._named}: {reason}"
            return _failed(check, told, self._let_through("a firewall may refuse it, or nobody listens"))

    @property
    def _named(self) -> str:
        """Who is to answer now: the proxy until it has made a tunnel."""
        via = "the proxy " if self._next == self._proxy else ""
        return f"{via}{named_server(self._next)}"

    def _let_through(self, what_else: str) -> str:
        if self._next == self._proxy:
            return f"See PullOptions(proxy=...), HTTPS_PROXY and NO_PROXY; {what_else}."
        return f"Let this machine connect to {self._server}: {what_else}."

    # -- layers -------------------------------------------------------------------

    async def _resolve(self, check: str) -> Finding:
        found = await self._patient.rest.http.destinations.resolve_url(self._next)
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        more = f" and {len(addresses) - 3} more" if len(addresses) > 3 else ""
        return Finding(check, "ok", f"{self._named} leads to {', '.join(addresses[:3])}{more}")

    async def _connect(self, check: str) -> Finding:
        self._socket = await self._patient.rest.http.destinations.connect(self._next)
        peer = self._socket.getpeername()
        return Finding(check, "ok", f"{self._named} takes connections ({peer[0]})")

    async def _tunnel(self, check: str) -> Finding:
        assert self._proxy is not None
        if self._proxy.startswith("https:"):
            await self._secure(urlsplit(self._proxy).hostname)
        reader, writer = await self._open()
        _, headers = told_apart(self._proxy)
        lines = [f"CONNECT {self._server} HTTP/1.1", f"Host: {self._server}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            head = b""
        version, _, rest = head.partition(b" ")
        status = rest[:3].decode("ascii", "replace")
        if not version.startswith(b"HTTP/1.") or not status.isdigit():
            raise _Refused(
                f"{self._named} does not answer as an HTTP proxy",
                "See PullOptions(proxy=...), HTTPS_PROXY.",
            )
        if status == "407":
            raise _Refused(
                f"{self._named} wants a name and password (status 407)",
                'Give them in PullOptions(proxy="http://USER:PASSWORD@HOST:PORT"), or HTTPS_PROXY.',
            )
        if not status.startswith("2"):
            raise _Refused(
                f"{self._named} refuses the way to {self._server} (status {status})",
                f"It must let CONNECT to {self._server} pass; or go past it: see PullOptions(proxy=...),"
                " HTTPS_PROXY and NO_PROXY.",
            )
        finding = Finding(check, "ok", f"{self._named} lets connections to {self._server} pass")
        self._next = self._url.geturl()
        return finding

    async def _encrypt(self, check: str) -> Finding:
        await self._secure(self._url.hostname)
        _, writer = await self._open()
        encryption: ssl.SSLObject = writer.get_extra_info("ssl_object")
        # Empty where nothing is asked for.
        certificate = encryption.getpeercert() or {}
        told = f"{encryption.version()} with {self._server}"
        ends = certificate.get("notAfter")
        if not isinstance(ends, str):
            return Finding(check, "ok", f"{told}, whose certificate is not looked at")
        until = datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), UTC)
        told = f"{told}, whose certificate is good until {until:%Y-%m-%d}"
        left = until - datetime.fromtimestamp(self._patient.rest.http.clock.now(), UTC)
        if left > RENEWED_BEFORE:
            return Finding(check, "ok", told)
        return Finding(check, "warn", told, f"Who runs {self._server} must renew it before.")

    # -- the connection -------------------------------------------------------------

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            assert self._socket is not None
            self._streams = await asyncio.open_connection(sock=self._socket, limit=_HEAD_MAX_BYTES)
            self._socket = None
        return self._streams

    async def _secure(self, host: str | None) -> None:
        """Begin TLS, inside of what there is."""
        _, writer = await self._open()
        await writer.start_tls(
            self._patient.rest.http.tls,
            server_hostname=host,
            ssl_handshake_timeout=self._patient.options.connect_timeout_s,
        )

    def _leave(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._streams is not None:
            self._streams[1].transport.abort()

    def _untrusted(self, error: ssl.SSLError) -> tuple[str, str]:
        """Say why TLS did not come about, and what to do."""
        who = self._named
        if not isinstance(error, ssl.SSLCertVerificationError):
            told = f"{who} and this machine do not agree on TLS ({error.reason or 'no reason given'})"
            return told, f"See what answers at {self._server}: {_STRANGERS}."
        told = f"the TLS certificate of {who} is not accepted ({error.verify_message})"
        if error.verify_code in _OUT_OF_TIME:
            return told, "See that this machine's clock is right; if it is, the certificate must be renewed."
        if error.verify_code in _OF_ANOTHER:
            return told, f"It is another server's: check the address; {_STRANGERS}."
        return told, (
            "Trust the authority that has signed it with PullOptions(ssl=...), and see that this machine's"
            f" clock is right; {_STRANGERS}."
        )


def _failed(check: str, told: str, advice: str) -> Finding:
    return failed(check, Unreachable(told, unsent=True), advice)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
