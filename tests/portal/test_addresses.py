"""What is accepted as an address of a portal, a webhook or an OAuth server."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.portal.addresses import (
    is_loopback,
    oauth_address,
    require_tls,
    rest_endpoint,
    webhook_endpoint,
)


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
        ("портал.рф", "https://портал.рф/rest/"),
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
        ("acme.bitrix24.com?a=b", "query or fragment"),
        ("acme.bitrix24.com#", "query or fragment"),
        ("https://", "no host name"),
        ("acme..com", "no valid host"),
        ("acme.com:port", "no valid host and port"),
        ("acme%2ecom", "no host name"),
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
        ("https://acme.bitrix24.com/rest/1/hushhush/?auth=1", "query or fragment"),
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
    with pytest.raises(InvalidArgument, match="names no host"):
        require_tls(url, ())


def test_plain_http_is_for_allowed_hosts_only() -> None:
    with pytest.raises(InvalidArgument, match=r"unencrypted to box\.local"):
        require_tls("ws://box.local:8893/sub", ["other.local"])
    require_tls("ws://box.local:8893/sub", ["BOX.local"])
    assert not is_loopback("box.local")
