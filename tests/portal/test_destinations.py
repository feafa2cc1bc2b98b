"""Where secrets may go: zones, who may name what, and that a check is never outlived."""

import socket
from collections.abc import Sequence

import pytest

from bitrix_pull.errors import InvalidArgument, InvalidConfig
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.destinations import AddressRefused, Destinations
from bitrix_pull.portal.http_pool import CheckedResolver, HttpPool
from bitrix_pull.portal.models import ServerConfig
from tests.internet.stand import PORTAL, PORTAL_IP, Internet

PUSH = "push.example.com"
FIELD = "server.websocket_secure"


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    internet = Internet(monkeypatch)
    internet.names[PORTAL] = [PORTAL_IP]
    return internet


def of(portal: str | None, *, named: Sequence[str] = (), **options: Sequence[str]) -> Destinations:
    return Destinations(PullOptions(**options), portal=portal, named=named)  # type: ignore[arg-type]


PUBLIC, PRIVATE, HERE = f"https://{PORTAL}/rest/", "https://10.0.0.5/rest/", "http://127.0.0.1:8080/rest/"
ALLOWED = {"allow_private_hosts": ["10.1.1.1", "[::1]", "intra", "Пример.рф"], "allow_http_hosts": ["intra"]}


@pytest.mark.parametrize(
    ("portal", "url", "why_not"),
    [
        (PUBLIC, "wss://10.1.1.1/", "a private address, and the portal is at a public one"),
        (PUBLIC, "wss://127.0.0.1/", "a loopback address, and the portal is at a public one"),
        (PUBLIC, "wss://localhost/", "a loopback address"),
        (PUBLIC, "wss://a.localhost/", "a loopback address"),
        (PUBLIC, "wss://169.254.169.254/", "no server's"),
        (PUBLIC, "wss://8.8.8.8/", ""),
        (PUBLIC, "ws://8.8.8.8/", "server.websocket_secure lacks TLS"),
        (PRIVATE, "wss://10.1.1.1/", ""),
        (PRIVATE, "wss://8.8.8.8/", ""),
        (PRIVATE, "ws://10.0.0.5/", "lacks TLS"),
        (PRIVATE, "ws://127.0.0.1/", "a loopback address, and the portal is at a private one"),
        (PRIVATE, "wss://169.254.169.254/", "no server's"),
        (HERE, "ws://127.0.0.1/", ""),
        (HERE, "ws://localhost:1/", ""),
        (HERE, "ws://[::1]/", ""),
        (HERE, "wss://10.1.1.1/", ""),
        (HERE, "ws://10.1.1.1/", "lacks TLS"),
        (HERE, "wss://224.0.0.1/", "no server's"),
        ("https://169.254.1.1/rest/", "wss://169.254.1.1/", ""),
        (None, "ws://127.0.0.1/", ""),
        (None, "wss://10.1.1.1/", ""),
        (None, "ws://10.1.1.1/", "lacks TLS"),
        (None, "wss://[fe80::1]/", "no server's"),
    ],
)
async def test_who_may_name_what(internet: Internet, portal: str | None, url: str, why_not: str) -> None:
    config = ServerConfig(websocket_secure=url)
    if not why_not:
        assert of(portal).admit(config, "websocket") == url
        return
    with pytest.raises(InvalidConfig, match=why_not) as caught:
        of(portal).admit(config, "websocket")
    assert FIELD in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["wss://10.1.1.1/", "wss://[::1]/", "ws://intra/", "wss://XN--e1afmkfd.xn--p1ai/", "wss://пример.рф/"],
)
async def test_what_the_user_allows_may_be_anywhere(internet: Internet, url: str) -> None:
    internet.names |= {"intra": ["10.0.0.1"], "xn--e1afmkfd.xn--p1ai": ["10.0.0.1"]}
    destinations = of(PUBLIC, **ALLOWED)
    admitted = destinations.admit(ServerConfig(websocket=url), "websocket")
    assert admitted.isascii()
    assert await destinations.resolve_url(admitted)


def test_a_list_in_the_options_holds_hosts() -> None:
    for option in ("allow_http_hosts", "allow_private_hosts"):
        with pytest.raises(InvalidArgument, match=option):
            of(PUBLIC, **{option: ["https://intra/"]})


async def test_the_secure_address_goes_first_and_the_field_is_named(internet: Internet) -> None:
    destinations = of(HERE)
    both = ServerConfig(publish="http://127.0.0.1/", publish_secure="https://a.test/p?q=1")
    assert destinations.admit(both, "publish") == "https://a.test/p?q=1"
    with pytest.raises(InvalidConfig, match=r"^server\.long_polling must begin with https://"):
        destinations.admit(ServerConfig(long_polling="ftp://a.test/"), "long_polling")
    with pytest.raises(InvalidConfig, match=r"^server\.publish is missing or empty"):
        destinations.admit(ServerConfig(), "publish")


# -- names ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("portal", "leads_to", "allowed"),
    [
        (["20.30.40.50"], ["20.30.40.60"], True),
        (["20.30.40.50"], ["10.0.0.1"], False),
        (["20.30.40.50"], ["20.30.40.60", "127.0.0.1"], False),
        (["20.30.40.50"], ["::ffff:10.0.0.1"], False),
        (["20.30.40.50"], ["fe80::1"], False),
        (["10.0.0.1", "20.30.40.50"], ["10.0.0.1"], False),
        (["10.0.0.1"], ["10.0.0.1"], True),
        (["192.168.1.1"], ["fd00::1"], True),
        (["10.0.0.1"], ["127.0.0.1"], False),
        (["10.0.0.1"], ["169.254.169.254"], False),
        (["127.0.0.1"], ["127.0.0.1"], True),
    ],
)
async def test_what_a_name_leads_to(
    internet: Internet, portal: list[str], leads_to: list[str], allowed: bool
) -> None:
    internet.names |= {PORTAL: portal, PUSH: leads_to}
    destinations = of(PUBLIC)
    await destinations.resolve(PORTAL, 443)
    if allowed:
        assert [info[4][0] for info in await destinations.resolve(PUSH, 443)] == leads_to
        return
    with pytest.raises(AddressRefused):
        await destinations.resolve(PUSH, 443)


async def test_the_portal_itself_may_be_anywhere(internet: Internet) -> None:
    for address in ("10.0.0.1", "127.0.0.1", "169.254.7.7"):
        internet.names[PORTAL] = [address]
        assert await of(PUBLIC).resolve(PORTAL, 443)


async def test_an_address_that_the_user_named_may_be_anywhere(internet: Internet) -> None:
    internet.names["oauth.test"] = ["127.0.0.1"]
    assert await of(PUBLIC, named=["https://oauth.test/oauth/token/"]).resolve("oauth.test", 443)
    with pytest.raises(AddressRefused):
        await of(PUBLIC).resolve("oauth.test", 443)


async def test_a_portal_that_was_once_public_stays_so(internet: Internet) -> None:
    """Who runs a portal runs its name servers too, and could move it for a moment."""
    destinations = of(PUBLIC)
    await destinations.resolve(PORTAL, 443)
    internet.names |= {PORTAL: ["10.0.0.1"], PUSH: ["10.0.0.1"]}
    await destinations.resolve(PORTAL, 443)
    with pytest.raises(AddressRefused, match="the portal is at a public one"):
        await destinations.resolve(PUSH, 443)
    with pytest.raises(InvalidConfig):
        destinations.admit(ServerConfig(websocket_secure="wss://10.0.0.1/"), "websocket")


async def test_a_portal_that_only_a_proxy_has_resolved_counts_as_public(internet: Internet) -> None:
    """Asking for its name here would let its owner decide what to answer."""
    internet.names |= {PORTAL: ["10.0.0.1"], PUSH: ["10.0.0.1"]}
    with pytest.raises(AddressRefused, match="the portal is at a public one"):
        await of(PUBLIC).resolve(PUSH, 443)


async def test_a_proxy_may_be_anywhere_but_only_there(internet: Internet) -> None:
    internet.names["proxy.test"] = ["127.0.0.1"]
    destinations = of(PUBLIC)
    destinations.trust_proxy("http://me:secret@proxy.test:3128")
    assert await destinations.resolve("proxy.test", 3128)
    with pytest.raises(AddressRefused):
        await destinations.resolve("proxy.test", 443)


async def test_connections_go_to_the_address_that_was_checked(internet: Internet) -> None:
    """A name is asked for once, so its owner cannot answer the check and the connection differently."""
    internet.names[PUSH], internet.later[PUSH] = ["20.30.40.60"], ["127.0.0.1"]
    with pytest.raises(OSError, match="no such host"):
        await of(PUBLIC).connect(f"wss://{PUSH}/sub")
    assert (internet.asked, internet.dialled) == ([PUSH], [("20.30.40.60", 443)])


async def test_the_resolver_for_aiohttp_gives_addresses(internet: Internet) -> None:
    internet.names[PUSH] = ["20.30.40.60", "2606:4700::1"]
    resolver = CheckedResolver()
    with HttpPool().going_by(of(PUBLIC)):
        found = await resolver.resolve(PUSH, 8443)
    assert [(item["host"], item["port"], item["family"]) for item in found] == [
        ("20.30.40.60", 8443, socket.AF_INET),
        ("2606:4700::1", 8443, socket.AF_INET6),
    ]
    assert {item["hostname"] for item in found} == {PUSH}
    await resolver.close()
