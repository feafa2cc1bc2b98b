"""A portal or push server that wants secrets to go elsewhere: nothing goes there.

The portal is at a public address, and a thief listens on the loopback addresses of this
machine. Each row is a way to send the client to him. No connection may be attempted but to
the hosts that the user, or a sound configuration, has named.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bitrix_pull import AccessToken, OAuth, PullClient, PullOptions
from bitrix_pull.errors import InvalidConfig, PullError
from tests.internet.stand import (
    OAUTH,
    OAUTH_IP,
    PORTAL,
    PORTAL_IP,
    PROXY,
    PROXY_IP,
    PUSH,
    PUSH_IP,
    Internet,
    Thief,
    trusting,
)

pytestmark = pytest.mark.virtual_time

CHANNEL = "hushhush" * 4
PRIVATE_ID = f"{CHANNEL}:{'ab' * 16}.{'cd' * 20}"
TOKEN = "tokentoken" * 4
REFRESH = "refreshrefresh" * 3
SECRET = "clientsecret" * 3
PURPOSES = {"websocket": ("wss", "ws"), "long_polling": ("https", "http"), "publish": ("https", "http")}


class Stand:
    """A client, its portal and a thief.

    Attributes:
        server: What the portal's configuration says of the push server.
        redirect: What it answers instead, if anything.
    """

    def __init__(self, internet: Internet, thief: Thief) -> None:
        self.internet = internet
        self.thief = thief
        self.server: dict[str, Any] = {}
        self.redirect: web.Response | None = None

    async def portal(self, request: web.Request) -> web.StreamResponse:
        if self.redirect is not None:
            return self.redirect
        return web.json_response(
            {
                "result": {
                    "server": {"version": 4, "server_enabled": True, **self.server},
                    "channels": {"private": {"id": PRIVATE_ID, "public_id": "0" * 32}},
                    "publicChannels": {"1": {"user_id": 1, "public_id": "1" * 32}},
                }
            }
        )

    def client(self, purpose: str, auth: Any = None, http: Any = None, **options: Any) -> PullClient:
        settings = {
            "transport": purpose if purpose != "publish" else "auto",
            "ssl": trusting(),
            "start_timeout_s": 5.0,
            "connect_timeout_s": 5.0,
            "rest_timeout_s": 5.0,
            "rest_limit": None,
            **options,
        }
        return PullClient(auth or AccessToken(PORTAL, TOKEN), http=http, options=PullOptions(**settings))

    async def use(self, purpose: str, **settings: Any) -> PullError:
        """Let a client do what it needs an address for, and return how that failed."""
        pull = self.client(purpose, **settings)
        try:
            if purpose == "publish":
                await pull.publish("x", {}, users=[1], route="endpoint")
            else:
                await pull.__aenter__()
        except PullError as error:
            return error
        finally:
            await pull.close()
        raise AssertionError("it did not fail")

    async def use_all(self, **settings: Any) -> dict[str, PullError]:
        """Do as ``use`` for every purpose at once."""
        errors = await asyncio.gather(*(self.use(purpose, **settings) for purpose in PURPOSES))
        return dict(zip(PURPOSES, errors, strict=True))

    def assert_nobody_else_was_called(self, *ips: str) -> None:
        assert (self.thief.connections, self.thief.heard) == (0, b"")
        assert {ip for ip, _ in self.internet.dialled} <= {PORTAL_IP, *ips}


@pytest.fixture
async def stand(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stand]:
    for name in ("http", "https", "all", "no", "socks"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_PROXY".upper(), raising=False)
    internet = Internet(monkeypatch)
    async with Thief().at_work() as thief:
        stand = Stand(internet, thief)
        async with internet.host(PORTAL, PORTAL_IP, stand.portal):
            yield stand


# -- the configuration ---------------------------------------------------------------

# {tls} and {plain} are the schemes of the field, {port} is the thief's.
IN_CONFIG = {
    "plain": "{plain}://push.example.com/sub",
    "plain in capitals": "{plain_upper}://push.example.com/sub",
    "another scheme": "ftp://127.0.0.1:{port}/",
    "a file": "file:///etc/passwd",
    "a script": "javascript://127.0.0.1:{port}/",
    "no scheme": "127.0.0.1:{port}/sub",
    "no scheme but slashes": "//127.0.0.1:{port}/sub",
    "no slashes": "{tls}:127.0.0.1:{port}/sub",
    "one slash": "{tls}:/127.0.0.1:{port}/sub",
    "three slashes": "{tls}:///127.0.0.1:{port}/sub",
    "backslashes for slashes": "{tls}:\\\\127.0.0.1:{port}/sub",
    "slash and backslash": "{tls}:/\\127.0.0.1:{port}/sub",
    "loopback": "{tls}://127.0.0.1:{port}/sub",
    "loopback, plain": "{plain}://127.0.0.1:{port}/sub",
    "loopback, another one": "{plain}://127.8.8.8:{port}/sub",
    "loopback, IPv6": "{plain}://[::1]:{port}/sub",
    "loopback, IPv6 in full": "{plain}://[0:0:0:0:0:0:0:1]:{port}/sub",
    "loopback, IPv4 in IPv6": "{plain}://[::ffff:127.0.0.1]:{port}/sub",
    "loopback, IPv4 in IPv6 in hex": "{plain}://[::ffff:7f00:1]:{port}/sub",
    "loopback behind NAT64": "{tls}://[64:ff9b::7f00:1]:{port}/sub",
    "loopback behind 6to4": "{tls}://[2002:7f00:1::]:{port}/sub",
    "localhost": "{plain}://localhost:{port}/sub",
    "localhost in capitals": "{tls}://LocalHost:{port}/sub",
    "localhost with a dot": "{plain}://localhost.:{port}/sub",
    "below localhost": "{plain}://push.localhost:{port}/sub",
    "a number": "{tls}://2130706433:{port}/sub",
    "a hex number": "{tls}://0x7f000001:{port}/sub",
    "a hex part": "{tls}://0x7f.1:{port}/sub",
    "a short form": "{tls}://127.1:{port}/sub",
    "octal parts": "{tls}://0177.0.0.1:{port}/sub",
    "leading zeros": "{tls}://127.0.0.01:{port}/sub",
    "an address with a dot": "{tls}://127.0.0.1.:{port}/sub",
    "unspecified": "{tls}://0.0.0.0:{port}/sub",
    "unspecified, IPv6": "{tls}://[::]:{port}/sub",
    "this network": "{tls}://0.1.2.3/sub",
    "private 10": "{tls}://10.0.0.1:{port}/sub",
    "private 172": "{tls}://172.16.0.1/sub",
    "private 192": "{tls}://192.168.1.1/sub",
    "a carrier's": "{tls}://100.64.0.1/sub",
    "unique local": "{tls}://[fc00::1]/sub",
    "link-local": "{tls}://169.254.1.1/sub",
    "link-local, IPv6": "{tls}://[fe80::1]/sub",
    "with a scope": "{tls}://[fe80::1%25lo]/sub",
    "cloud metadata": "{tls}://169.254.169.254/latest/meta-data/",
    "cloud metadata, IPv6": "{tls}://[fd00:ec2::254]/",
    "cloud metadata in IPv6": "{tls}://[::ffff:169.254.169.254]/",
    "multicast": "{tls}://224.0.0.1/sub",
    "broadcast": "{tls}://255.255.255.255/sub",
    "userinfo": "{tls}://me:pa55@push.example.com/sub",
    "an empty userinfo": "{tls}://@127.0.0.1:{port}/sub",
    "a host as userinfo": "{tls}://push.example.com@127.0.0.1:{port}/sub",
    "host and port as userinfo": "{tls}://push.example.com:443@127.0.0.1:{port}/sub",
    "userinfo behind a backslash": "{tls}://push.example.com\\@127.0.0.1:{port}/sub",
    "userinfo behind a fragment": "{tls}://push.example.com#@127.0.0.1:{port}/sub",
    "port 0": "{tls}://127.0.0.1:0/sub",
    "too high a port": "{tls}://push.example.com:99999/sub",
    "an empty port": "{tls}://push.example.com:/sub",
    "a negative port": "{tls}://push.example.com:-1/sub",
    "two ports": "{tls}://push.example.com:443:{port}/sub",
    "a port in other digits": "{tls}://push.example.com:٤٤٣/sub",
    "a space before": " {tls}://127.0.0.1:{port}/sub",
    "a space in the host": "{tls}://push.example.com 127.0.0.1:{port}/sub",
    "a tab": "{tls}://127.0.0.1\t:{port}/sub",
    "a new line": "{tls}://push.example.com\r\nX-Injected: 1/sub",
    "a new line in the path": "{tls}://push.example.com/sub HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a zero byte": "{tls}://127.0.0.1\0.example.com:{port}/sub",
    "a dot at the end": "{tls}://push.example.com./sub",
    "two dots": "{tls}://push..example.com/sub",
    "percent-encoded": "{tls}://127%2e0%2e0%2e1:{port}/sub",
    "a name in brackets": "{tls}://[localhost]:{port}/sub",
    "IPv4 in brackets": "{tls}://[127.0.0.1]:{port}/sub",
    "IPv6 without brackets": "{tls}://::1:{port}/sub",
    "wide digits": "{tls}://127.0.0.1:{port}/sub",
    "circled digits": "{tls}://①②⑦.⓪.⓪.①:{port}/sub",
    "ideographic dots": "{tls}://127。0。0。1:{port}/sub",
    "a letter of two standards": "{tls}://loca\u017fho\u00dft:{port}/sub",
    "a wide localhost": "{plain}://localhost:{port}/sub",
    "a name for loopback": "{tls}://loopback.evil.test:{port}/sub",
    "an IDN for loopback": "{tls}://зло.рф:{port}/sub",
    "its punycode": "{tls}://xn--g1aij.xn--p1ai:{port}/sub",
    "a name for loopback, IPv6": "{tls}://loopback6.evil.test:{port}/sub",
    "a name for IPv4 in IPv6": "{tls}://mapped.evil.test:{port}/sub",
    "a name for a private address": "{tls}://private.evil.test:{port}/sub",
    "a name for metadata": "{tls}://metadata.google.internal/sub",
    "a name for good and bad": "{tls}://both.evil.test:{port}/sub",
}
NAMES = {
    "loopback.evil.test": ["127.0.0.1"],
    "xn--g1aij.xn--p1ai": ["127.0.0.1"],
    "loopback6.evil.test": ["::1"],
    "mapped.evil.test": ["::ffff:127.0.0.1"],
    "private.evil.test": ["192.168.1.1"],
    "metadata.google.internal": ["169.254.169.254"],
    "both.evil.test": [PUSH_IP, "127.0.0.1"],
    "push.localhost": ["127.0.0.1"],
}


def in_config(trick: str, purpose: str, port: int) -> str:
    tls, plain = PURPOSES[purpose]
    return IN_CONFIG[trick].format(tls=tls, plain=plain, plain_upper=plain.upper(), port=port)


@pytest.mark.parametrize("trick", IN_CONFIG)
async def test_a_configuration_sends_nothing_elsewhere(stand: Stand, trick: str) -> None:
    stand.internet.names |= NAMES
    by_name = trick.startswith(("a name for", "an IDN for", "its punycode"))
    suffix = "" if IN_CONFIG[trick].startswith("{plain") else "_secure"
    stand.server = {f"{each}{suffix}": in_config(trick, each, stand.thief.port) for each in PURPOSES}
    for purpose, error in (await stand.use_all()).items():
        if by_name:
            assert "its name leads to" in str(error)
        else:
            assert isinstance(error, InvalidConfig)
            assert f"server.{purpose}{suffix} " in str(error)
            assert not [word for word in ("127.0.0.1", "/sub", CHANNEL, "pa55") if word in str(error)]
    stand.assert_nobody_else_was_called()


@pytest.mark.parametrize("purpose", PURPOSES)
async def test_the_thief_would_have_heard_it(stand: Stand, purpose: str) -> None:
    """The same, with the user's leave: so the silence above is not that of the stand."""
    stand.server = {purpose: in_config("loopback, plain", purpose, stand.thief.port)}
    await stand.use(purpose, allow_private_hosts=["127.0.0.1"])
    assert stand.thief.connections
    assert CHANNEL.encode() in stand.thief.heard
    assert TOKEN.encode() not in stand.thief.heard


class OwnClient:
    """A REST client of the user's own."""

    async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
        return self.config

    def __init__(self, server: dict[str, Any]) -> None:
        self.config = {"server": server, "channels": {"private": {"id": PRIVATE_ID, "public_id": "0" * 32}}}


class OwnClientOfPublicPortal(OwnClient):
    """The same; it says where its portal is."""

    portal = PORTAL


async def test_a_rest_client_of_ones_own_that_says_where_its_portal_is_is_protected_too(stand: Stand) -> None:
    server = {"websocket": in_config("loopback, plain", "websocket", stand.thief.port)}
    error = await stand.use("websocket", auth=OwnClientOfPublicPortal(server))
    assert isinstance(error, InvalidConfig)
    stand.assert_nobody_else_was_called()
    # Nobody knows where this one's is: an emulator on this machine is as likely as any.
    await stand.use("websocket", auth=OwnClient(server))
    assert stand.thief.connections


@pytest.mark.parametrize("given", [False, True], ids=["own session", "given session"])
@pytest.mark.parametrize("push", ["push.corp.local", "10.0.0.6", PORTAL])
async def test_a_portal_on_a_private_network_simply_works(stand: Stand, push: str, given: bool) -> None:
    stand.internet.names |= {PORTAL: ["10.0.0.5"], "push.corp.local": ["10.0.0.6"]}
    stand.internet.routes["10.0.0.5", 443] = stand.internet.routes.pop((PORTAL_IP, 443))
    ports = dict(zip(PURPOSES, (8441, 8442, 8443), strict=True))
    ip = "10.0.0.5" if push == PORTAL else "10.0.0.6"
    for purpose, (tls, _) in PURPOSES.items():
        stand.internet.routes[ip, ports[purpose]] = stand.thief.port
        stand.server[f"{purpose}_secure"] = f"{tls}://{push}:{ports[purpose]}/sub"
    connector = aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver())
    async with aiohttp.ClientSession(connector=connector) as session:
        await stand.use_all(http=session if given else None)
    assert {(ip, port) for port in ports.values()} <= set(stand.internet.dialled)
    assert stand.thief.connections >= len(ports)


async def test_a_name_that_turns_bad_after_the_check_is_connected_to_where_it_was_checked(
    stand: Stand,
) -> None:
    for purpose, (tls, _) in PURPOSES.items():
        name = f"{purpose.replace('_', '-')}.evil.test"
        stand.internet.names[name], stand.internet.later[name] = [PUSH_IP], ["127.0.0.1"]
        stand.server[f"{purpose}_secure"] = f"{tls}://{name}:{stand.thief.port}/sub"
    await stand.use_all()
    stand.assert_nobody_else_was_called(PUSH_IP)


# -- redirects -----------------------------------------------------------------------


@asynccontextmanager
async def redirecting_push_server(
    stand: Stand, status: int, *, polls: bool
) -> AsyncIterator[list[web.Request]]:
    location = f"http://127.0.0.1:{stand.thief.port}/?stolen={CHANNEL}"

    async def redirect(request: web.Request) -> web.StreamResponse:
        if polls and request.method == "OPTIONS":
            return web.Response()
        return web.Response(status=status, headers={"Location": location, "Refresh": f"0; url={location}"})

    async with stand.internet.host(PUSH, PUSH_IP, redirect) as requests:
        yield requests


STATUSES = [300, 301, 302, 303, 307, 308]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("polls", [False, True], ids=["at once", "the first poll"])
async def test_a_redirect_of_the_push_server_is_not_followed(stand: Stand, status: int, polls: bool) -> None:
    stand.server = {
        f"{purpose}_secure": f"{tls}://{PUSH}/{purpose}" for purpose, (tls, _) in PURPOSES.items()
    }
    async with redirecting_push_server(stand, status, polls=polls) as requests:
        await (stand.use("long_polling") if polls else stand.use_all())
    asked = {(request.path[1:], request.method) for request in requests}
    assert asked >= (
        {("long_polling", "GET")}
        if polls
        else {("websocket", "GET"), ("long_polling", "OPTIONS"), ("publish", "POST")}
    )
    for request in requests:
        assert TOKEN not in f"{request.rel_url} {dict(request.headers)} {await request.read()!r}"
    stand.assert_nobody_else_was_called(PUSH_IP)


@pytest.mark.parametrize("status", STATUSES)
async def test_a_redirect_of_the_portal_is_not_followed(stand: Stand, status: int) -> None:
    location = f"http://127.0.0.1:{stand.thief.port}/?auth={TOKEN}"
    stand.redirect = web.Response(status=status, headers={"Location": location})
    error = await stand.use("websocket")
    assert TOKEN not in str(error)
    stand.assert_nobody_else_was_called()


async def test_a_client_that_follows_redirects_would_have_told_the_thief(stand: Stand) -> None:
    async with redirecting_push_server(stand, 302, polls=False):
        connector = aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver(), ssl=trusting())
        async with aiohttp.ClientSession(connector=connector) as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"https://{PUSH}/sub")
    assert CHANNEL.encode() in stand.thief.heard


@pytest.mark.parametrize("status", [200, *STATUSES])
async def test_a_redirect_of_a_proxy_is_not_followed(stand: Stand, status: int) -> None:
    """Nor is an answer of its own taken for the portal's: a proxy opens a tunnel, or it does not."""
    location = f"http://127.0.0.1:{stand.thief.port}/"
    answer = f"HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    heard = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        heard += await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    stand.internet.names[PROXY] = [PROXY_IP]
    stand.internet.routes[PROXY_IP, 3128] = server.sockets[0].getsockname()[1]
    await stand.use("websocket", proxy=f"http://{PROXY}:3128")
    server.close()
    await server.wait_closed()
    assert heard.startswith(f"CONNECT {PORTAL}:443 ".encode())
    assert TOKEN.encode() not in heard
    stand.assert_nobody_else_was_called(PROXY_IP)


# -- the OAuth server ----------------------------------------------------------------

IN_TOKEN_ANSWER = {
    "loopback": "https://127.0.0.1:{port}/",
    "loopback, plain": "http://127.0.0.1:{port}/",
    "localhost": "http://localhost:{port}/rest/",
    "IPv6": "http://[::1]:{port}/",
    "a number": "https://2130706433:{port}/",
    "private": "https://10.0.0.1:{port}/",
    "metadata": "https://169.254.169.254/",
    "plain": "http://other.bitrix24.com/rest/",
    "userinfo": "https://acme.bitrix24.com@127.0.0.1:{port}/rest/",
    "userinfo and port": "https://oauth.bitrix.info:443@127.0.0.1:{port}/rest/",
    "another host": "https://evil.test:{port}/rest/",
    "another host with the right beginning": "https://oauth.bitrix.info.evil.test:{port}/rest/",
    "another host with the right ending": "https://evilbitrix.info:{port}/rest/",
    "a good name that leads here": "https://local.bitrix.info:{port}/rest/",
    "a good host at another port": "https://oauth.bitrix.info:{port}/rest/",
    "a backslash": "https://oauth.bitrix.info\\@127.0.0.1:{port}/rest/",
    "a fragment": "https://127.0.0.1:{port}#.bitrix.info/rest/",
    "no scheme": "//127.0.0.1:{port}/rest/",
    "a new line": "https://oauth.bitrix.info\r\nHost: evil.test/",
    "ideographic dots": "https://127。0。0。1:{port}/rest/",
    "no text": 7,
}


def expired_oauth(oauth_url: str | None = None, client_id: str = "app.1", **more: Any) -> OAuth:
    tokens = {"access_token": TOKEN, "refresh_token": REFRESH, "expires": 1, **more}
    return OAuth(PORTAL, client_id=client_id, client_secret=SECRET, tokens=tokens, oauth_url=oauth_url)


@pytest.mark.parametrize("trick", IN_TOKEN_ANSWER)
async def test_a_token_answer_sends_nothing_elsewhere(stand: Stand, trick: str) -> None:
    stand.internet.names |= {"evil.test": ["127.0.0.1"], "local.bitrix.info": ["127.0.0.1"]}
    stand.internet.names |= {"other.bitrix24.com": ["127.0.0.1"], "evilbitrix.info": ["127.0.0.1"]}
    hostile = IN_TOKEN_ANSWER[trick]
    url = hostile.format(port=stand.thief.port) if isinstance(hostile, str) else hostile
    tricks = {"client_endpoint": url, "server_endpoint": url}
    tricks["domain"] = url.partition("//")[2] if isinstance(url, str) else url

    async def refresh(request: web.Request) -> web.StreamResponse:
        # Expired on arrival, so that each call asks again, by then knowing what was answered.
        answer = {"access_token": TOKEN, "refresh_token": REFRESH, "expires": 1}
        field = request.query["client_id"]
        return web.json_response({**answer, field: tricks[field]} if field in tricks else answer)

    async def suffer(field: str) -> None:
        oauth = expired_oauth(client_id=field)
        await stand.use("websocket", auth=oauth)
        await stand.use("websocket", auth=oauth)

    async with stand.internet.host(OAUTH, OAUTH_IP, refresh) as requests:
        # Told by an answer, and in the tokens that an application was installed with.
        installed = (expired_oauth(**dict[str, Any]({field: told})) for field, told in tricks.items())
        await asyncio.gather(
            *map(suffer, tricks), *(stand.use("websocket", auth=oauth) for oauth in installed)
        )
    assert {request.query["client_id"] for request in requests} >= tricks.keys()
    stand.assert_nobody_else_was_called(OAUTH_IP)


@pytest.mark.parametrize("status", STATUSES)
async def test_a_redirect_of_the_oauth_server_is_not_followed(stand: Stand, status: int) -> None:
    location = f"http://127.0.0.1:{stand.thief.port}/"

    async def redirect(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": f"{location}?{request.query_string}"})

    async with stand.internet.host(OAUTH, OAUTH_IP, redirect) as requests:
        error = await stand.use("websocket", auth=expired_oauth())
    assert requests
    assert not [secret for secret in (TOKEN, REFRESH, SECRET) if secret in str(error)]
    stand.assert_nobody_else_was_called(OAUTH_IP)


async def test_the_thief_would_have_heard_the_refresh_token(stand: Stand) -> None:
    oauth = expired_oauth(oauth_url=f"http://127.0.0.1:{stand.thief.port}/oauth/token/")
    await stand.use("websocket", auth=oauth)
    assert REFRESH.encode() in stand.thief.heard
    assert SECRET.encode() in stand.thief.heard
