"""TLS and proxies are the same for REST, WebSocket, polling and publishing."""

import asyncio
import contextlib
import logging
import ssl
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bitrix_pull import AccessToken, PullClient, PullOptions
from bitrix_pull.errors import InvalidArgument, StartTimeout
from tests.internet.proxy import CREDENTIALS, PASSWORD, USER, Proxy
from tests.internet.stand import (
    CERTIFICATE,
    PORTAL,
    PORTAL_IP,
    PROXY,
    PROXY_IP,
    PUSH,
    PUSH_IP,
    Internet,
    trusting,
)

pytestmark = pytest.mark.virtual_time

PRIVATE_ID = f"{'12' * 16}:{'ab' * 16}.{'cd' * 20}"
CONFIG = {
    "server": {
        "version": 4,
        "websocket_secure": f"wss://{PUSH}/subws/",
        "long_polling_secure": f"https://{PUSH}/sub/",
        "publish_secure": f"https://{PUSH}/pub/",
    },
    "channels": {"private": {"id": PRIVATE_ID, "public_id": "0" * 32}},
    "publicChannels": {"1": {"user_id": 1, "public_id": "1" * 32}},
}
LOCALHOST = Path(__file__).parents[1] / "portal" / "self_signed.pem"
TRANSPORTS = ["websocket", "long_polling"]


async def portal(request: web.Request) -> web.StreamResponse:
    return web.json_response({"result": CONFIG})


async def push_server(request: web.Request) -> web.StreamResponse:
    match request.path, request.method:
        case "/subws/", _:
            websocket = web.WebSocketResponse()
            await websocket.prepare(request)
            async for _message in websocket:
                pass
            return websocket
        case "/sub/", "GET":
            await asyncio.sleep(60)
    return web.Response()


class Site:
    """A portal and its push server on the internet of a test.

    Attributes:
        push: The requests that the push server got.
    """

    def __init__(self, internet: Internet, push: list[web.Request]) -> None:
        self.internet = internet
        self.push = push

    def client(self, *, http: aiohttp.ClientSession | None = None, **options: Any) -> PullClient:
        settings = {"start_timeout_s": 5.0, "connect_timeout_s": 5.0, "rest_limit": None, **options}
        return PullClient(AccessToken(PORTAL, "an-access-token"), http=http, options=PullOptions(**settings))

    def asked_for(self) -> set[str]:
        return {request.path for request in self.push}

    def dialled(self) -> set[str]:
        return {ip for ip, _ in self.internet.dialled if ip != "127.0.0.1"}


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    for name in ("http", "https", "all", "no", "socks"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)
    internet = Internet(monkeypatch)
    async with (
        internet.host(PORTAL, PORTAL_IP, portal),
        internet.host(PUSH, PUSH_IP, push_server) as requests,
    ):
        yield Site(internet, requests)


async def use_all(site: Site, transport: str, **options: Any) -> None:
    """Connect by a transport and publish by the endpoint."""
    async with site.client(transport=transport, **options) as pull:
        await pull.publish("x", {}, users=[1], route="endpoint")
    assert site.asked_for() == {"/subws/" if transport == "websocket" else "/sub/", "/pub/"}


# -- TLS ---------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_certificate_authority_of_ones_own(site: Site, transport: str) -> None:
    await use_all(site, transport, ssl=trusting())


async def test_without_it_nothing_is_said_to_the_portal(site: Site) -> None:
    with pytest.raises(StartTimeout, match="certificate is not accepted"):
        await site.client().__aenter__()
    assert site.push == []


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_nor_to_a_push_server_whose_certificate_is_for_another_host(site: Site, transport: str) -> None:
    heard = b""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        with contextlib.suppress(OSError):
            heard += await reader.read()
        writer.close()

    of_localhost = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    of_localhost.load_cert_chain(LOCALHOST)
    server = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=of_localhost)
    site.internet.routes[PUSH_IP, 443] = server.sockets[0].getsockname()[1]
    trusting_both = ssl.create_default_context(cafile=CERTIFICATE)
    trusting_both.load_verify_locations(LOCALHOST)
    with pytest.raises(StartTimeout, match="certificate"):
        await site.client(transport=transport, ssl=trusting_both).__aenter__()
    server.close()
    await server.wait_closed()
    assert (PUSH_IP, 443) in site.internet.dialled
    assert heard == b""


# -- proxies ------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("source", ["options", "environment", "options, given session"])
async def test_everything_goes_through_the_proxy_and_its_password_shows_nowhere(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    transport: str,
    scheme: str,
    source: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"{scheme}://{USER}:{PASSWORD}@{PROXY}:3128"
    options: dict[str, Any] = {"ssl": trusting(), "proxy": None if source == "environment" else url}
    if source == "environment":
        monkeypatch.setenv("HTTPS_PROXY", url)
    async with Proxy(site.internet).at_work(tls=scheme == "https") as proxy:
        session = aiohttp.ClientSession() if "given" in source else None
        try:
            await use_all(site, transport, http=session, **options)
        finally:
            if session is not None:
                await session.close()
    asked_for = {head.split()[1] for head in proxy.heads}
    assert asked_for == {f"{PORTAL}:443", f"{PUSH}:443"}
    assert all(head.startswith("CONNECT ") and "an-access-token" not in head for head in proxy.heads)
    assert not [head for head in proxy.heads if PRIVATE_ID in head]
    assert site.dialled() == {PROXY_IP}
    # Names are the proxy's business: they need not be known here.
    assert set(site.internet.asked) == {PROXY}
    shown = [f"{record.getMessage()} {vars(record)}" for record in caplog.records]
    shown.append(repr(PullOptions(**options)))
    assert not [text for text in shown if "xypassword" in text or CREDENTIALS in text]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_refused_password_does_not_show(
    site: Site, caplog: pytest.LogCaptureFixture, transport: str
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = "wrong" * 4
    async with Proxy(site.internet).at_work(tls=False):
        pull = site.client(transport=transport, proxy=f"http://{USER}:{wrong}@{PROXY}:3128")
        with pytest.raises(StartTimeout, match="the proxy cannot be used") as caught:
            await pull.__aenter__()
    shown = "".join(traceback.format_exception(caught.value))
    assert wrong not in shown + caplog.text
    assert site.push == []


async def test_hosts_that_the_environment_excepts_are_reached_directly(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://{PROXY}:3128")
    monkeypatch.setenv("NO_PROXY", f"{PORTAL},.example.com")
    await use_all(site, "websocket", ssl=trusting())
    assert site.dialled() == {PORTAL_IP, PUSH_IP}


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
async def test_a_socks_proxy_is_not_silently_gone_past(
    site: Site, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, f"socks5://{USER}:{PASSWORD}@{PROXY}:1080")
    with pytest.raises(InvalidArgument, match=f"{variable.lower()}.* names a SOCKS proxy") as caught:
        await site.client(ssl=trusting()).__aenter__()
    assert PASSWORD not in str(caught.value)
    assert site.internet.dialled == []


# -- a session of the user's own -------------------------------------------------------


async def test_the_options_hold_for_a_given_session_too(site: Site) -> None:
    async with aiohttp.ClientSession() as mine:
        await use_all(site, "websocket", http=mine, ssl=trusting())


async def test_what_only_the_session_trusts_is_not_trusted_by_the_websocket(site: Site) -> None:
    connector = aiohttp.TCPConnector(ssl=trusting(), resolver=aiohttp.ThreadedResolver())
    async with aiohttp.ClientSession(connector=connector) as mine:
        await use_all(site, "long_polling", http=mine)
        with pytest.raises(StartTimeout, match="certificate"):
            await site.client(transport="websocket", http=mine).__aenter__()


async def test_the_proxy_of_a_given_session_resolves_names_itself(site: Site) -> None:
    url = f"http://{USER}:{PASSWORD}@{PROXY}:3128"
    connector = aiohttp.TCPConnector(ssl=trusting(), resolver=aiohttp.ThreadedResolver())
    async with (
        Proxy(site.internet).at_work(tls=False),
        aiohttp.ClientSession(connector=connector, proxy=url) as mine,
    ):
        await use_all(site, "long_polling", http=mine)
    assert site.dialled() == {PROXY_IP}
    assert set(site.internet.asked) == {PROXY}


class ThroughSomething(aiohttp.TCPConnector):
    """What libraries for SOCKS proxies bring."""


@pytest.mark.parametrize(
    ("kind", "options", "warns"),
    [
        ("ordinary", {}, False),
        ("connector", {}, True),
        ("proxy", {}, True),
        ("connector", {"transport": "long_polling"}, False),
        ("connector", {"proxy": f"http://{PROXY}"}, False),
    ],
)
async def test_a_session_that_websockets_go_past_is_warned_about(
    site: Site, caplog: pytest.LogCaptureFixture, kind: str, options: dict[str, Any], warns: bool
) -> None:
    connector = ThroughSomething(resolver=aiohttp.ThreadedResolver()) if kind == "connector" else None
    proxy = f"http://{PROXY}:3128" if kind == "proxy" else None
    async with aiohttp.ClientSession(connector=connector, proxy=proxy) as session:
        site.client(http=session, **options)
    assert ("WebSockets do not go through" in caplog.text) == warns
