"""Tokens in the forms in which an application gets them (protocol §2)."""

from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest

from bitrix_pull import AccessToken, OAuth, Tokens
from bitrix_pull.errors import InvalidArgument

NOW = 1_800_000_000.0

INSTALLATION = {
    "DOMAIN": "acme.bitrix24.com",
    "PROTOCOL": "1",
    "LANG": "en",
    "APP_SID": "f00d",
    "AUTH_ID": "first-access",
    "AUTH_EXPIRES": "3600",
    "REFRESH_ID": "first-refresh",
    "SERVER_ENDPOINT": "https://oauth.bitrix24.tech/rest/",
    "member_id": "a1b2",
    "status": "L",
    "PLACEMENT": "DEFAULT",
}
GRANT = {
    "access_token": "first-access",
    "refresh_token": "first-refresh",
    "expires_in": "3600",
    "expires": str(int(NOW) - 500),
    "domain": "acme.bitrix24.com",
    "client_endpoint": "https://acme.bitrix24.com/rest/",
    "server_endpoint": "https://oauth.bitrix24.tech/rest/",
    "member_id": "a1b2",
    "status": "L",
}
EVENT = {"event": "ONAPPINSTALL", "ts": "1"} | {f"auth[{name}]": value for name, value in GRANT.items()}
FORMS: dict[str, dict[str, Any]] = {
    "an installation or a frame": INSTALLATION,
    "the same, as parse_qs reads it": parse_qs(urlencode(INSTALLATION)),
    "an event": EVENT,
    "the same, as parse_qs reads it too": parse_qs(urlencode(EVENT)),
    "an event whose brackets were read": {"event": "ONAPPINSTALL", "auth": GRANT},
    "what the OAuth server answers": GRANT,
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_tokens(name: str) -> None:
    tokens = Tokens.from_install(FORMS[name], now=NOW)
    assert (tokens.access_token, tokens.refresh_token) == ("first-access", "first-refresh")
    # By the seconds that are left, counted here: the portal's clock may be another.
    assert tokens.expires == NOW + 3_600
    assert dict(tokens.fields) == {
        "domain": "acme.bitrix24.com",
        "client_endpoint": "https://acme.bitrix24.com/rest/",
        "server_endpoint": "https://oauth.bitrix24.tech/rest/",
        "member_id": "a1b2",
        "status": "L",
    }
    auth = OAuth(tokens.fields["client_endpoint"], client_id="id", client_secret="secret", tokens=tokens)
    assert auth.endpoint == "https://acme.bitrix24.com/rest/"


def test_a_portal_without_tls_says_so() -> None:
    tokens = Tokens.from_install(INSTALLATION | {"PROTOCOL": "0", "DOMAIN": "crm.local:8080"})
    assert tokens.fields["client_endpoint"] == "http://crm.local:8080/rest/"


@pytest.mark.parametrize("nothing", [None, "", False, [], "soon"])
def test_an_end_that_is_not_told_is_unknown(nothing: object) -> None:
    assert Tokens.from_install(INSTALLATION | {"AUTH_EXPIRES": nothing}).expires is None
    untold = {**GRANT, "expires_in": nothing}
    assert Tokens.from_install(untold).expires == NOW - 500
    assert Tokens.from_install({**untold, "expires": nothing}).expires is None


@pytest.mark.parametrize("nothing", [None, "", False, []])
def test_what_php_writes_for_nothing_is_no_end(nothing: object) -> None:
    stored = {"access_token": "a", "refresh_token": "r"}
    assert Tokens.read(stored | {"expires": nothing}) == Tokens.read(stored)
    renewed = Tokens.read(stored).renewed({**stored, "expires_in": nothing, "expires": nothing}, NOW)
    assert renewed.expires is None


@pytest.mark.parametrize("name", ["AUTH_ID", "REFRESH_ID"])
def test_a_form_without_one_of_the_tokens_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"form: (access|refresh)_token is missing") as caught:
        Tokens.from_install({**INSTALLATION, name: ""})
    assert "first-" not in str(caught.value)
    with pytest.raises(InvalidArgument, match="must be a mapping"):
        Tokens.from_install("AUTH_ID=first-access")  # type: ignore[arg-type]


@pytest.mark.parametrize("endpoint", ["https://acme.bitrix24.com/rest/", "https://acme.bitrix24.com/rest"])
def test_a_client_endpoint_names_a_portal(endpoint: str) -> None:
    assert AccessToken(endpoint, "token").endpoint == "https://acme.bitrix24.com/rest/"
