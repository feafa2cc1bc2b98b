"""What is accepted as an address of a portal, a webhook or an OAuth server."""

import ipaddress
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.uri import parse_uri
from yarl import URL

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.portal.addresses import (
    is_loopback,
    oauth_address,
    read_address,
    require_tls,
    rest_endpoint,
    webhook_endpoint,
)

TRICKS = [
    "//evil.test/",
    "/evil.test",
    "https:evil.test",
    "https:/evil.test",
    "https:/\\evil.test",
    "https:///evil.test",
    "https:\\\\evil.test",
    "ftp://evil.test/",
    "javascript://evil.test/",
    "file:///etc/evil",
    " https://evil.test/",
    "https://evil.test/ ",
    "https://evil.test\t/",
    "https://evil\n.test/",
    "https://a.test\r\nHost: evil/",
    "https://a.test\x00.evil/",
    "https://a.test\u200b.evil/",
    "https://a.test\u2028evil/",
    "https://me@evil.test/",
    "https://me:password@evil.test/",
    "https://@evil.test/",
    "https://a.test:443@evil.test/",
    "https://a.test:@evil.test/",
    "https://a.test\\@evil.test/",
    "https://a.test\\.evil.test/",
    "https://a.test#@evil.test/",
    "https://a.test/#evil",
    "https://evil.test:/",
    "https://evil.test:0/",
    "https://evil.test:65536/",
    "https://evil.test:99999/",
    "https://evil.test:-1/",
    "https://evil.test:+443/",
    "https://evil.test:4 43/",
    "https://evil.test:٤٤٣/",
    "https://evil.test:443:80/",
    "https://evil.test:https/",
    "https://evil.test./",
    "https://evil..test/",
    "https://.evil.test/",
    "https://evil%2etest/",
    "https://%65vil.test/",
    "https://evil.test%00/",
    "https://evil.test,a.test/",
    "https://evil.test;a.test/",
    "https://evil&a.test/",
    "https://*.evil.test/",
    "https://-evil.test/",
    "https://[evil.test]/",
    "https://[127.0.0.1]/",
    "https://[::1/",
    "https://::1/",
    "https://[::1]evil/",
    "https://[::1]:/",
    "https://[fe80::1%25eth0]/",
    "https://[v1.evil]/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.1/",
    "https://127.1/",
    "https://0177.0.0.1/",
    "https://127.0.0.01/",
    "https://127.0.0.0x1/",
    "https://127.0.0.1./",
    "https://127.0.0.256/",
    "https://1.2.3.4.5/",
    "https://evil.1/",
    "https://①②⑦.0.0.1/",
    "https://127。0。0。1/",
    "https://evil。test/",
    "https://ⓔvil.test/",
    "https://faß.test/evil",
    "https://a\u200dxn--evil.test/",
    "https://localhost./",
    "https://evil.test/\\..",
    "https://evil.test/ä",
    f"https://{'e' * 64}.test/",
    f"https://{'evil.' * 60}test/",
]
"""Addresses whose meaning depends on who reads them."""

HOSTS = st.one_of(
    st.from_regex(r"[a-z0-9.@:%\[\]\\_-]{1,20}", fullmatch=True),
    st.ip_addresses().map(lambda ip: f"[{ip}]" if ip.version == 6 else str(ip)),
    st.text("aйß。.1x-", min_size=1, max_size=8),
)
PORTS = st.one_of(st.just(""), st.integers(0, 70_000).map(":{}".format))
TARGETS = st.one_of(st.just(""), st.from_regex(r"[/?#@:\\a]{0,6}", fullmatch=True))


def yarl_reads(url: str) -> tuple[str | None, int | None]:
    return _canonical(URL(url).raw_host), URL(url).port


def websockets_reads(url: str) -> tuple[str | None, int | None]:
    uri = parse_uri(f"wss{url.removeprefix('https')}")
    return _canonical(uri.host), uri.port


def urllib_reads(url: str) -> tuple[str | None, int | None]:
    return _canonical(urlsplit(url).hostname), urlsplit(url).port or 443


def _canonical(host: str | None) -> str | None:
    """Programs may write an IPv6 address in another form."""
    return str(ipaddress.ip_address(host)) if host and ":" in host else host


@pytest.mark.parametrize(
    ("portal", "endpoint"),
    [
        ("acme.bitrix24.com", "https://acme.bitrix24.com/rest/"),
        ("ACME.Bitrix24.com", "https://acme.bitrix24.com/rest/"),
        ("https://acme.bitrix24.com", "https://acme.bitrix24.com/rest/"),
        ("https://acme.bitrix24.com/", "https://acme.bitrix24.com/rest/"),
        ("crm.acme.local:8443", "https://crm.acme.local:8443/rest/"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/rest/"),
        ("http://[::1]:8080", "http://[::1]:8080/rest/"),
        ("Портал.рф", "https://xn--80awhdgm.xn--p1ai/rest/"),
    ],
)
def test_a_portal_is_a_domain_or_an_address(portal: str, endpoint: str) -> None:
    assert rest_endpoint(portal) == endpoint


@pytest.mark.parametrize(
    ("portal", "complaint"),
    [
        ("", "missing or empty"),
        ("acme bitrix24.com", "spaces or control"),
        ("acme.bitrix24.com\r\nX: y", "spaces or control"),
        ("https://bob:secret@acme.bitrix24.com", "user name or password"),
        ("ftp://acme.bitrix24.com", "https://"),
        ("https://acme.bitrix24.com/rest/1/secret/", "holds a path"),
        ("acme.bitrix24.com?a=b", "holds a query"),
        ("acme.bitrix24.com#", "holds a fragment"),
        ("https://", "no valid host"),
        ("acme..com", "no valid host"),
        ("acme.com:port", "no valid host and port"),
        ("acme%2ecom", "no valid host"),
        ("https://[::1", "no valid host"),
    ],
)
def test_anything_else_is_refused_with_the_reason(portal: str, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint) as caught:
        rest_endpoint(portal)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://acme.bitrix24.com/rest/1/abc123/",
        "https://acme.bitrix24.com/rest/1/abc123",
        "https://acme.bitrix24.com/rest/1/abc123/profile.json",
        "https://acme.bitrix24.com/rest/1/abc123/pull.config.get",
    ],
)
def test_a_webhook_may_lack_its_slash_or_name_a_method(url: str) -> None:
    assert webhook_endpoint(url) == ("https://acme.bitrix24.com/rest/1/abc123/", "abc123")


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "missing or empty"),
        ("acme.bitrix24.com/rest/1/hushhush/", "https://"),
        ("https://acme.bitrix24.com/", "lacks /rest/USER/CODE/"),
        ("https://acme.bitrix24.com/rest/hushhush/", "lacks /rest/USER/CODE/"),
        ("https://acme.bitrix24.com/rest/1/hushhush/a/b", "lacks /rest/USER/CODE/"),
        ("https://acme.bitrix24.com/rest/1/hushhush/?auth=1", "holds a query"),
        ("https://me@acme.bitrix24.com/rest/1/hushhush/", "user name"),
        (" https://acme.bitrix24.com/rest/1/hushhush/", "spaces"),
    ],
)
def test_a_wrong_webhook_is_refused_without_repeating_it(url: str, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint) as caught:
        webhook_endpoint(url)
    assert "hushhush" not in str(caught.value)


@given(st.text())
def test_no_text_makes_the_readers_fail_otherwise(text: str) -> None:
    for read in (rest_endpoint, webhook_endpoint, oauth_address):
        with suppress(InvalidArgument):
            assert read(text)


@pytest.mark.parametrize(
    "url", ["https://a.example/", "wss://a.example/", "http://127.0.0.1:1/", "ws://localhost/"]
)
def test_tls_and_loopback_are_safe(url: str) -> None:
    require_tls(url, ())
    assert is_loopback("127.8.8.8")


@pytest.mark.parametrize("url", ["", "rtc.example.com/sub", "https://", "wss://[::1/"])
def test_an_address_without_host_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="an address that credentials would go to"):
        require_tls(url, ())


def test_plain_http_is_for_allowed_hosts_only() -> None:
    with pytest.raises(InvalidArgument, match=r"unencrypted to box\.local"):
        require_tls("ws://box.local:8893/sub", ["other.local"])
    require_tls("ws://box.local:8893/sub", ["BOX.local"])
    require_tls("http://xn--80awhdgm.xn--p1ai/", ["Портал.рф"])
    with pytest.raises(InvalidArgument, match="allow_http_hosts holds what is no host"):
        require_tls("http://box.local/", ["box.local:8893"])
    assert not is_loopback("box.local")


@pytest.mark.parametrize(
    ("url", "read_as"),
    [
        ("https://a.test", "https://a.test"),
        ("HTTPS://A.Test:00443/Path?Query=%2F", "https://a.test:443/Path?Query=%2F"),
        ("https://a.test?b", "https://a.test?b"),
        ("https://[2606:4700:0::1]:8443/x", "https://[2606:4700::1]:8443/x"),
        ("https://[::FFFF:127.0.0.1]/", "https://[::ffff:7f00:1]/"),
        ("https://127.0.0.1/", "https://127.0.0.1/"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
        ("https://intra_1/", "https://intra_1/"),
        ("https://7-zip.test/", "https://7-zip.test/"),
    ],
)
def test_an_address_has_one_form(url: str, read_as: str) -> None:
    address = read_address(url, ("https", "http"))
    assert str(address) == read_as
    assert read_address(read_as, ("https", "http")) == address


@pytest.mark.parametrize("program", [yarl_reads, websockets_reads, urllib_reads], ids=lambda f: f.__name__)
@given(url=st.builds("https://{}{}{}".format, HOSTS, PORTS, TARGETS))
def test_all_programs_read_the_same_host_and_port(program: Callable[[str], Any], url: str) -> None:
    """What we check is what aiohttp, websockets and urllib connect to."""
    try:
        address = read_address(url, ("https", "http"))
    except ValueError:
        return
    assert program(str(address)) == (address.host, address.port or 443)


@pytest.mark.parametrize("url", TRICKS)
def test_what_could_be_read_in_several_ways_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(holds|must|is)") as caught:
        read_address(url, ("https", "http"))
    assert "evil" not in str(caught.value)
