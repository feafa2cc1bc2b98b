"""Each layer of the way to a server is a finding of its own: its name, TCP, a proxy, TLS, the handshake."""

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bitrix_pull import AccessToken, Diagnosis, PullClient, PullOptions
from tests.doctor.examining import assert_cause, diagnosis_of, finding_of
from tests.internet.proxy import PASSWORD, USER, Proxy
from tests.internet.stand import (
    OAUTH,
    PORTAL,
    PORTAL_IP,
    PROXY,
    PROXY_IP,
    PUSH,
    PUSH_IP,
    Internet,
    proving,
    trusting,
)

LOCALHOST_ONLY = Path(__file__).parents[1] / "portal" / "self_signed.pem"
CONFIG: dict[str, Any] = {
    "server": {
        "version": 4,
        "websocket_secure": f"wss://{PUSH}/subws/",
        "long_polling_secure": f"https://{PUSH}/sub/",
    },
    "channels": {
        "private": {"id": f"{'12' * 16}:{'ab' * 16}.{'cd' * 20}"},
        "shared": {"id": f"{'34' * 16}.{'cd' * 20}"},
    },
}
ANSWERS: dict[str, Any] = {
    "scope.json": ["pull"],
    "profile.json": {"ID": "1", "ADMIN": True},
    "pull.application.config.get.json": CONFIG,
    "event.get.json": [],
    "event.offline.list.json": [],
}

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def portal(request: web.Request) -> web.StreamResponse:
    result = ANSWERS.get(request.path.rpartition("/")[2])
    if result is None:
        return web.json_response({"error": "NO_AUTH_FOUND"}, status=401)
    return web.json_response({"result": result})


async def push_server(request: web.Request) -> web.StreamResponse:
    if request.path == "/subws/":
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        async for _ in websocket:
            pass
        return websocket
    if request.method == "GET":
        await asyncio.sleep(60)
    return web.Response()


@pytest.fixture
async def internet(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Internet]:
    for name in ("http", "https", "all", "no", "socks"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)
    internet = Internet(monkeypatch)
    async with internet.host(PORTAL, PORTAL_IP, portal), internet.host(PUSH, PUSH_IP, push_server):
        yield internet


@contextlib.asynccontextmanager
async def listening(
    internet: Internet, ip: str, port: int, talk: Talk, context: ssl.SSLContext | None = None
) -> AsyncIterator[None]:
    """Put somebody at a public address who says what he likes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            await talk(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    internet.routes[ip, port] = server.sockets[0].getsockname()[1]
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()


async def examined(**options: Any) -> Diagnosis:
    settings = {"ssl": trusting(), **options}
    return await diagnosis_of(AccessToken(PORTAL, "an-access-token"), **settings)


def checks(diagnosis: Diagnosis) -> Sequence[str]:
    return [finding.check for finding in diagnosis.findings]


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


def saying(text: str) -> Talk:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(text.encode())
        await writer.drain()

    return say


async def test_every_layer_that_is_sound_is_told_with_its_time(internet: Internet) -> None:
    diagnosis = await examined()
    layers = ("name", "tcp", "tls")
    for server, name, ip in (("portal", PORTAL, PORTAL_IP), ("websocket", PUSH, PUSH_IP)):
        found = {layer: finding_of(diagnosis, f"{server} {layer}") for layer in layers}
        assert found["name"].told == f"{name}:443 leads to {ip}"
        assert found["tcp"].told.startswith(f"{name}:443 takes connections")
        assert "TLSv1" in found["tls"].told
        assert "whose certificate is good until 2126-10-29" in found["tls"].told
        for finding in (*found.values(), finding_of(diagnosis, server)):
            assert finding.level == "ok"
            assert finding.took_s is not None
            assert finding.took_s >= 0
    assert re.match(r"open, and a ping was answered in [0-9]+ ms", finding_of(diagnosis, "websocket").told)
    # Polls go the same way, which is not gone twice.
    assert checks(diagnosis).index("polling") == checks(diagnosis).index("websocket") + 1
    assert diagnosis.cause is not None
    # This push server lacks a publish endpoint, and nothing else is amiss.
    assert diagnosis.cause.check == "publishing"


@pytest.mark.parametrize("server", ["portal", "websocket"])
@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("name", ("has a name that cannot be resolved", "how it is spelt")),
        ("tcp", ("no connection to", "unreachable", "firewall")),
        ("silent tls", ("did not answer within 0.5 s", "something drops it")),
        ("no tls", ("do not agree on TLS", "proxy or firewall")),
        ("another's tls", ("certificate", "mismatch", "another server's")),
    ],
)
async def test_the_layer_that_fails_is_the_cause(
    internet: Internet, server: str, layer: str, words: Sequence[str]
) -> None:
    name, ip = (PORTAL, PORTAL_IP) if server == "portal" else (PUSH, PUSH_IP)
    others = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    others.load_cert_chain(LOCALHOST_ONLY)
    trust = trusting()
    async with contextlib.AsyncExitStack() as stack:
        match layer:
            case "name":
                del internet.names[name]
            case "tcp":
                del internet.routes[ip, 443]
            case "silent tls":
                await stack.enter_async_context(listening(internet, ip, 443, say_nothing))
            case "no tls":
                talk = saying("HTTP/1.1 400 Bad Request\r\n\r\n")
                await stack.enter_async_context(listening(internet, ip, 443, talk))
            case _:
                trust = ssl.create_default_context(cafile=LOCALHOST_ONLY)
                trust.load_verify_locations(Path(__file__).parents[1] / "internet" / "certificate.pem")
                await stack.enter_async_context(listening(internet, ip, 443, say_nothing, others))
        diagnosis = await examined(ssl=trust, connect_timeout_s=0.5)
    assert_cause(diagnosis, f"{server} {layer.rpartition(' ')[2]}", "fail", f"{name}:443", *words)
    if server == "portal":
        assert checks(diagnosis)[-1] == f"portal {layer.rpartition(' ')[2]}"
    else:
        # What rests on the layer is not tried, and polls by the same way fail too.
        assert "websocket" not in checks(diagnosis)
        assert finding_of(diagnosis, "polling").level == "fail"


async def test_a_push_server_whose_authority_is_not_trusted(internet: Internet) -> None:
    others = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    others.load_cert_chain(LOCALHOST_ONLY)
    async with listening(internet, PUSH_IP, 443, say_nothing, others):
        diagnosis = await examined()
    assert_cause(diagnosis, "websocket tls", "fail", "is not accepted", "PullOptions(ssl=...)")


async def test_polls_that_go_another_way_take_over(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = {
        **CONFIG["server"],
        "websocket_secure": f"wss://{PUSH}:8443/subws/",
        "long_polling_secure": f"https://{OAUTH}:8444/sub/",
    }
    monkeypatch.setitem(ANSWERS, "pull.application.config.get.json", {**CONFIG, "server": server})
    internet.names[OAUTH] = [PUSH_IP]
    internet.routes[PUSH_IP, 8444] = internet.routes[PUSH_IP, 443]
    diagnosis = await examined()
    assert_cause(diagnosis, "websocket tcp", "warn", f"{PUSH}:8443", "long polling takes over")
    assert finding_of(diagnosis, "polling tcp").level == "ok"
    assert finding_of(diagnosis, "polling").level == "ok"


# -- through proxies -------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_way_through_a_proxy(internet: Internet, scheme: str) -> None:
    async with Proxy(internet).at_work(tls=scheme == "https") as proxy:
        diagnosis = await examined(proxy=f"{scheme}://{USER}:{PASSWORD}@{PROXY}:3128")
    for server, name in (("portal", PORTAL), ("websocket", PUSH)):
        assert finding_of(diagnosis, f"{server} name").told == f"the proxy {PROXY}:3128 leads to {PROXY_IP}"
        assert finding_of(diagnosis, f"{server} proxy").told.endswith(f"lets connections to {name}:443 pass")
        assert f"with {name}:443" in finding_of(diagnosis, f"{server} tls").told
        assert finding_of(diagnosis, server).level == "ok"
    assert {head.split()[1] for head in proxy.heads} == {f"{PORTAL}:443", f"{PUSH}:443"}
    assert "xypassword" not in str(diagnosis.as_json())
    # Names are the proxy's business.
    assert set(internet.asked) == {PROXY}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "HTTP/1.1 403 Forbidden\r\n\r\n",
            ("refuses the way to acme", "status 403", "NO_PROXY"),
        ),
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", ("name and password", "USER:PASSWORD@")),
        ("220 mail.example.com ESMTP\r\n\r\n", ("does not answer as an HTTP proxy",)),
        ("", ("no connection to the proxy", "cut")),
    ],
)
async def test_a_proxy_that_does_not_let_pass(internet: Internet, said: str, words: Sequence[str]) -> None:
    internet.names[PROXY] = [PROXY_IP]
    async with listening(internet, PROXY_IP, 3128, saying(said)):
        diagnosis = await examined(proxy=f"http://{PROXY}:3128")
    assert_cause(diagnosis, "portal proxy", "fail", f"the proxy {PROXY}:3128", *words)


async def test_the_name_of_a_proxy(internet: Internet) -> None:
    diagnosis = await examined(proxy="http://nobody.example.com:3128")
    assert_cause(diagnosis, "portal name", "fail", "the proxy nobody.example.com:3128", "cannot be resolved")


async def test_a_proxy_without_trusted_tls(internet: Internet) -> None:
    internet.names[PROXY] = [PROXY_IP]
    async with listening(internet, PROXY_IP, 3128, say_nothing, proving()):
        diagnosis = await examined(proxy=f"https://{PROXY}:3128", ssl=ssl.create_default_context())
    assert_cause(diagnosis, "portal proxy", "fail", f"the proxy {PROXY}:3128", "not accepted", "ssl=")


async def test_the_way_of_a_given_session_is_not_guessed_at(internet: Internet) -> None:
    context = trusting()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        pull = PullClient(
            AccessToken(PORTAL, "an-access-token"), http=session, options=PullOptions(rest_limit=None)
        )
        diagnosis = await pull.diagnose()
        await pull.close()
    assert checks(diagnosis)[0] == "portal"
    assert finding_of(diagnosis, "portal").level == "ok"
    # WebSockets do not go by the session, whose trust is its own; polls do.
    assert_cause(diagnosis, "websocket tls", "warn", "not accepted", "long polling takes over")
    assert "polling name" not in checks(diagnosis)
