"""The shared session: its life, its limits, and what it says when nobody answers."""

import asyncio
import gc
import re
import socket
import ssl
import traceback
import warnings
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from bitrix_pull.errors import AnswerTooLarge, InvalidArgument, Unreachable
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.destinations import Destinations
from bitrix_pull.portal.http import HttpAnswer, HttpSession
from tests.internet.stand import Internet

from .conftest import OK, StubPortal, answer, hang_up

SECRET = "hush" * 2  # In two parts, since tracebacks quote the source.


@pytest.fixture
async def http(options: PullOptions) -> AsyncIterator[HttpSession]:
    session = HttpSession(options)
    yield session
    await session.close()


async def get(http: HttpSession, url: str, *, timeout_s: float = 5.0, max_bytes: int = 1000) -> HttpAnswer:
    return await http.request("GET", url, timeout_s=timeout_s, max_bytes=max_bytes)


async def failure(http: HttpSession, url: str, **limits: Any) -> str:
    """Return the text of the error that a request ends with, and see that it has no cause."""
    with pytest.raises(Unreachable) as caught:
        await get(http, f"{url}/?token={SECRET}", **limits)
    assert caught.value.retryable
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


async def test_a_request_reads_the_whole_answer(portal: StubPortal, http: HttpSession) -> None:
    portal.reply(answer("hello", 418, X_Kind="teapot"))
    got = await http.request(
        "POST",
        f"{portal.url}/a",
        body=b"[1]",
        query={"b": "c d"},
        headers={"X-My": "1"},
        timeout_s=5,
        max_bytes=5,
    )
    assert (got.status, got.body, got.headers["x-kind"]) == (418, b"hello", "teapot")
    [call] = portal.calls
    assert (call.verb, call.path, call.query, call.body) == ("POST", "/a", {"b": "c d"}, [1])
    assert call.headers["X-My"] == "1"
    assert call.headers["User-Agent"] == "bitrix_pull"


async def test_redirects_are_not_followed(portal: StubPortal, http: HttpSession) -> None:
    portal.reply(answer("", 302, Location=f"{portal.url}/elsewhere"), OK)
    assert (await get(http, portal.url)).status == 302
    assert len(portal.calls) == 1


async def test_cookies_are_not_kept(portal: StubPortal, http: HttpSession) -> None:
    portal.reply(answer("", Set_Cookie="PHPSESSID=1"))
    await get(http, portal.url)
    await get(http, portal.url)
    assert "Cookie" not in portal.calls[1].headers


async def test_a_body_over_the_limit_is_not_read_to_its_end(portal: StubPortal, http: HttpSession) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 1000)

    portal.reply(answer("x" * 1000))
    assert len((await get(http, portal.url)).body) == 1000
    for reply in (answer("x" * 1001), endless):
        portal.reply(reply)
        with pytest.raises(AnswerTooLarge, match=f"{portal.host} is larger than 1000 bytes"):
            await get(http, portal.url)


async def test_nobody_listens(http: HttpSession) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{bound.getsockname()[1]}"
        assert (
            await failure(http, f"http://me:{SECRET}@{host}") == f"{host} did not answer: Connection refused"
        )


async def test_a_broken_connection_is_not_tried_again(portal: StubPortal, http: HttpSession) -> None:
    """A repeated refresh would lose the grant, so no request is ever repeated silently."""
    portal.reply(OK, hang_up)
    await get(http, portal.url)
    assert "broke before the answer was complete" in await failure(http, portal.url)
    assert len(portal.calls) == 2


async def test_half_an_answer_is_none(portal: StubPortal, http: HttpSession) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "10"})
        await response.prepare(request)
        await response.write(b"half")
        return await hang_up(request)

    portal.reply(half)
    assert "broke before the answer was complete" in await failure(http, portal.url)


async def test_the_deadline_covers_the_body(portal: StubPortal, http: HttpSession) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"a beginning")
        await asyncio.sleep(5)
        return response

    portal.reply(slow)
    assert "no complete answer within 0.3 s" in await failure(http, portal.url, timeout_s=0.3)


async def test_what_answers_is_no_http_or_no_tls(http: HttpSession) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"220 smtp.example ESMTP\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    assert "what it sent is no HTTP" in await failure(http, f"http://{host}")
    text = await failure(http, f"https://{host}")
    assert re.search(r"the TLS handshake failed \([A-Z_]+\)$", text), text
    server.close()
    await server.wait_closed()


async def test_a_certificate_that_is_not_trusted(http: HttpSession) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # Made for this test and trusted by nobody.
    context.load_cert_chain(Path(__file__).with_name("self_signed.pem"))
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    text = await failure(http, f"https://127.0.0.1:{port}")
    assert "its TLS certificate is not accepted" in text
    assert "self" in text
    server.close()
    await server.wait_closed()


class _Resolver(AbstractResolver):
    def __init__(self, look_up: Callable[[], Coroutine[Any, Any, list[ResolveResult]]]) -> None:
        self._look_up = look_up

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return await self._look_up()

    async def close(self) -> None:
        pass


async def test_a_name_that_cannot_be_resolved(internet: Internet) -> None:
    async def unknown() -> list[ResolveResult]:
        raise OSError(None, "no such name")

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=_Resolver(unknown))) as session:
        http = HttpSession(PullOptions(), session)
        assert (
            await failure(http, "https://acme.test")
            == "acme.test:443 did not answer: its name cannot be resolved"
        )


async def test_connecting_has_a_deadline_of_its_own(internet: Internet) -> None:
    async def hang() -> list[ResolveResult]:
        await asyncio.sleep(5)
        return []

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=_Resolver(hang))) as session:
        http = HttpSession(PullOptions(connect_timeout_s=0.05), session)
        assert "no connection within 0.05 s" in await failure(http, "https://acme.test")


async def test_the_session_is_made_when_needed_and_again_after_close(
    portal: StubPortal, http: HttpSession
) -> None:
    for _ in range(2):
        assert (await get(http, portal.url)).status == 200
        assert (await get(http, portal.url)).status == 200
        await http.close()
        await http.close()
    # A connection is used again, but not beyond the session's close.
    ports = [call.peer for call in portal.calls]
    assert ports[0] == ports[1] != ports[2] == ports[3]


async def test_a_given_session_is_used_and_left_open(portal: StubPortal, options: PullOptions) -> None:
    async with aiohttp.ClientSession(headers={"X-Mine": "yes"}) as mine:
        http = HttpSession(options, mine)
        await get(http, portal.url)
        await http.close()
        assert not mine.closed
    assert portal.calls[0].headers["X-Mine"] == "yes"
    with pytest.raises(InvalidArgument, match="http= is closed"):
        await get(http, portal.url)


async def test_an_event_loop_that_ends_closes_what_is_left_open(
    portal: StubPortal, options: PullOptions
) -> None:
    http = HttpSession(options)

    def use() -> None:
        # Warnings of what was not closed are errors in this suite.
        assert asyncio.run(get(http, portal.url)).status == 200
        gc.collect()

    for _ in range(2):
        await asyncio.to_thread(use)
    assert (await get(http, portal.url)).status == 200
    await http.close()


def test_an_event_loop_that_ended_by_force_leaves_nothing_in_the_way(options: PullOptions) -> None:
    http = HttpSession(options)

    async def nobody_answers() -> None:
        with pytest.raises(Unreachable):
            await get(http, "http://127.0.0.1:1")

    loop = asyncio.new_event_loop()
    loop.run_until_complete(nobody_answers())
    loop.close()
    with warnings.catch_warnings():
        # What was made in that loop cannot be closed any more.
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.run(nobody_answers())
        gc.collect()
    asyncio.run(http.close())


async def test_a_session_that_raises_for_a_status_does_not_hide_the_answer(
    portal: StubPortal, options: PullOptions
) -> None:
    portal.reply(answer({"error": "expired_token"}, 401))
    async with aiohttp.ClientSession(raise_for_status=True) as mine:
        got = await get(HttpSession(options, mine), portal.url)
    assert (got.status, got.body) == (401, b'{"error":"expired_token"}')


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


async def test_the_proxy_of_the_environment_is_used(
    portal: StubPortal, http: HttpSession, proxies: pytest.MonkeyPatch
) -> None:
    proxies.setenv("http_proxy", portal.url)
    assert (await get(http, "http://acme.test/rest/")).status == 200
    [call] = portal.calls
    assert call.headers["Host"] == "acme.test"


@pytest.mark.parametrize("given", [False, True], ids=["own session", "given session"])
async def test_the_password_of_a_proxy_is_not_in_what_aiohttp_shows(
    portal: StubPortal, proxies: pytest.MonkeyPatch, given: bool
) -> None:
    options = PullOptions(proxy=portal.url.replace("://", f"://me:{SECRET}%2F@"))
    async with aiohttp.ClientSession() as mine:
        http = HttpSession(options, mine if given else None)
        await get(http, "http://acme.test/rest/")
        # It logs the keys of connections that were not closed.
        used: aiohttp.ClientSession = mine if given else await vars(http)["_pool"].session()
        assert "acme.test" in (kept := repr(vars(used.connector)))
        await http.close()
    assert SECRET not in kept
    [call] = portal.calls
    assert call.headers["Proxy-Authorization"] == f"Basic {b64encode(f'me:{SECRET}/'.encode()).decode()}"


async def test_a_proxy_that_refuses_is_named_as_the_cause(
    portal: StubPortal, http: HttpSession, proxies: pytest.MonkeyPatch
) -> None:
    proxies.setenv("https_proxy", portal.url)
    portal.reply(answer("", 407))
    assert "the proxy cannot be used" in await failure(http, "https://acme.test")


async def test_which_proxy_serves_which_address(http: HttpSession, proxies: pytest.MonkeyPatch) -> None:
    assert http.proxy_for("https://acme.test/") is None
    proxies.setenv("https_proxy", "http://proxy.test:3128")
    proxies.setenv("all_proxy", "other.test:3128")
    proxies.setenv("no_proxy", ".internal")
    assert http.proxy_for("https://acme.test/") == "http://proxy.test:3128"
    assert http.proxy_for("wss://acme.test/") == "http://proxy.test:3128"
    assert http.proxy_for("http://acme.test/") == "http://other.test:3128"
    for direct in ("https://box.internal/", "https://127.0.0.1:8080/", "ws://[::1]/", "http://localhost/"):
        assert http.proxy_for(direct) is None
    proxies.setenv("no_proxy", "acme.test:443")
    assert http.proxy_for("https://acme.test/") is None
    assert http.proxy_for("https://acme.test:8443/") == "http://proxy.test:3128"


@pytest.mark.parametrize(
    ("exceptions", "direct", "proxied"),
    [
        ("*", "acme.test 10.1.2.3 [2001:db8::1]", ""),
        ("acme.test", "acme.test a.acme.test", "not-acme.test acme.test.example"),
        (".acme.test", "acme.test a.acme.test", "not-acme.test"),
        ("*.acme.test", "acme.test a.b.acme.test", "not-acme.test"),
        ("ACME.test", "acme.test", "other.test"),
        ("one.test,two.test three.test", "one.test two.test three.test", "four.test"),
        ("acme.test:443", "acme.test acme.test:443", "acme.test:8443"),
        ("*.acme.test:8443", "a.acme.test:8443", "a.acme.test"),
        ("10.0.0.0/8", "10.1.2.3 10.255.0.1:8443", "11.0.0.1 acme.test"),
        ("10.1.2.3", "10.1.2.3", "10.1.2.4 110.1.2.3"),
        ("10.1.2.3:8443", "10.1.2.3:8443", "10.1.2.3"),
        ("10.1.2.3/8", "10.9.9.9", "11.1.1.1"),
        ("2001:db8::/32", "[2001:db8:1::1] [2001:db8::5]:8443", "[2001:db9::1]"),
        ("[2001:db8::1]", "[2001:db8:0::1]", "[2001:db8::2]"),
        ("[2001:db8::1]:8443", "[2001:db8::1]:8443", "[2001:db8::1]"),
        ("::1", "", "[2001:db8::1]"),
        (",, . * .* [ 1/2/3 :", "any.test", ""),
        (", . [ 1/2/3 : :443 acme.test:99999", "", "acme.test"),
    ],
)
async def test_no_proxy_as_other_tools_read_it(
    http: HttpSession, proxies: pytest.MonkeyPatch, exceptions: str, direct: str, proxied: str
) -> None:
    proxies.setenv("https_proxy", "http://proxy.test:3128")
    proxies.setenv("no_proxy", exceptions)
    assert {host: http.proxy_for(f"wss://{host}/") for host in (direct + " " + proxied).split()} == {
        **dict.fromkeys(direct.split()),
        **dict.fromkeys(proxied.split(), "http://proxy.test:3128"),
    }


async def test_the_proxy_of_the_options_goes_first(proxies: pytest.MonkeyPatch) -> None:
    proxies.setenv("https_proxy", "http://proxy.test:3128")
    proxies.setenv("no_proxy", "*")
    http = HttpSession(PullOptions(proxy="http://me:pass@mine.test:1/"))
    assert http.proxy_for("wss://acme.test/") == "http://me:pass@mine.test:1/"
    assert http.proxy_for("https://127.0.0.1/") is None


async def test_a_given_session_has_its_own_proxy(proxies: pytest.MonkeyPatch) -> None:
    """Its WebSockets, which aiohttp does not make, go the same way as far as we can see it."""
    proxies.setenv("https_proxy", "http://proxy.test:3128")
    for trust_env, for_websockets in ((False, None), (True, "http://proxy.test:3128")):
        async with aiohttp.ClientSession(trust_env=trust_env) as mine:
            http = HttpSession(PullOptions(), mine)
            assert http.proxy_for("https://acme.test/") is None
            assert http.proxy_for("wss://acme.test/") == for_websockets
            http = HttpSession(PullOptions(proxy="http://mine.test"), mine)
            assert http.proxy_for("https://acme.test/") == http.proxy_for("wss://acme.test/")


@pytest.mark.parametrize(
    ("variable", "proxy", "complaint"),
    [
        ("https_proxy", "socks5://proxy.test:1080", "names a SOCKS proxy"),
        ("HTTPS_PROXY", "socks5h://me:hushhush@proxy.test:1080", "names a SOCKS proxy"),
        ("all_proxy", "socks://proxy.test:1080", "names a SOCKS proxy"),
        ("socks_proxy", "http://proxy.test:1080", "names a SOCKS proxy"),
        ("https_proxy", "ftp://hushhush:21", "no address of an HTTP proxy"),
        ("https_proxy", "http://me:hushhush@/", "no address of an HTTP proxy"),
    ],
)
async def test_a_proxy_that_cannot_be_used_is_not_passed_by(
    http: HttpSession, proxies: pytest.MonkeyPatch, variable: str, proxy: str, complaint: str
) -> None:
    proxies.setenv(variable, proxy)
    for url in ("https://acme.test/", "wss://acme.test/"):
        with pytest.raises(InvalidArgument, match=complaint) as caught:
            http.proxy_for(url)
        assert variable.lower() in str(caught.value)
        assert "hushhush" not in str(caught.value)
    proxies.setenv("no_proxy", "acme.test")
    assert http.proxy_for("https://acme.test/") is None


# -- where names lead to ------------------------------------------------------------

PUBLIC = "https://acme.bitrix24.com/rest/"


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    internet = Internet(monkeypatch)
    internet.names |= {"acme.bitrix24.com": ["20.30.40.50"], "push.test": ["127.0.0.1"]}
    return internet


@pytest.mark.parametrize("given", [False, True], ids=["own session", "given session"])
async def test_a_name_that_leads_to_this_machine_is_not_connected_to(internet: Internet, given: bool) -> None:
    async with aiohttp.ClientSession() as mine:
        options = PullOptions(connect_timeout_s=5.0)
        http = HttpSession(options, mine if given else None, Destinations(options, portal=PUBLIC))
        text = await failure(http, "https://push.test:8443")
        await http.close()
    assert text.startswith("push.test:8443 did not answer: its name leads to a loopback address")
    assert "allow_private_hosts" in text
    assert internet.dialled == []
