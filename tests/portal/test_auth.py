"""Credentials that cannot work are refused when they are made."""

from collections.abc import Callable
from typing import Any

import pytest

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.auth import AccessToken, Webhook
from bitrix_pull.portal.oauth import OAuth
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.portal.tokens import Tokens

TOKENS = {"access_token": "hushhush-access", "refresh_token": "hushhush-refresh"}


def oauth(**changes: Any) -> OAuth:
    arguments: dict[str, Any] = {
        "portal": "acme.bitrix24.com",
        "client_id": "app.1",
        "client_secret": "hushhush-secret",
        "tokens": TOKENS,
    }
    arguments |= changes
    return OAuth(arguments.pop("portal"), **arguments)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: AccessToken("", "hushhush"), "the portal is missing or empty"),
        (lambda: AccessToken("acme.bitrix24.com", ""), "the access token is missing or empty"),
        (lambda: AccessToken("acme.bitrix24.com", "hushhush\n"), "the access token holds spaces"),
        (lambda: AccessToken("acme.bitrix24.com", "hush hush"), "the access token holds spaces"),
        (lambda: Webhook("https://acme.bitrix24.com/hushhush/"), "lacks /rest/USER/CODE/"),
        (lambda: oauth(portal="a b"), "portal's address holds spaces"),
        (lambda: oauth(client_id=""), "client_id is missing"),
        (lambda: oauth(client_secret=None), "client_secret is missing"),
        (lambda: oauth(client_secret="hushhush "), "client_secret holds spaces"),
        (lambda: oauth(tokens={"access_token": "hushhush"}), "the tokens: refresh_token is missing"),
        (lambda: oauth(tokens=TOKENS | {"expires": "hushhush"}), "the tokens: expires is no unix time"),
        (
            lambda: oauth(tokens=TOKENS | {"access_token": "hushhush\t"}),
            "the tokens: access_token holds spaces",
        ),
        (lambda: oauth(tokens=None), "no path, Tokens, mapping or TokenStore"),
        (lambda: oauth(oauth_url=""), "oauth_url is missing or empty"),
        (lambda: oauth(oauth_url="https://oauth.example/?client_secret=hushhush"), "oauth_url holds a query"),
        (
            lambda: Tokens(access_token="a", refresh_token="b", expires=float("nan")),
            "expires is no unix time",
        ),
    ],
)
def test_a_wrong_argument_is_named_and_never_repeated(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint) as caught:
        make()
    assert "hush" not in str(caught.value)


def test_reprs_hold_no_secret() -> None:
    assert (
        repr(AccessToken("acme.bitrix24.com", "hushhush")) == "AccessToken(https://acme.bitrix24.com/rest/)"
    )
    assert repr(Webhook("https://a.b/rest/7/hushhush/")) == "Webhook(https://a.b/rest/7/***/)"
    assert repr(oauth()) == "OAuth(https://acme.bitrix24.com/rest/)"
    tokens = Tokens.read(TOKENS | {"expires": 5, "member_id": "hushhush"}, "")
    assert repr(tokens) == "Tokens(expires=5.0)"


def test_the_mode_follows_from_the_credentials() -> None:
    class Own:
        async def call(self, method: str, params: Any) -> Any: ...

    assert RestClient(AccessToken("a.b", "t")).default_mode == "application"
    assert RestClient(oauth()).default_mode == "application"
    assert RestClient(Webhook("https://a.b/rest/1/c/")).default_mode == "user"
    assert RestClient(Own()).default_mode == "application"


@pytest.mark.parametrize(
    "auth",
    [
        AccessToken("http://box.local", "hushhush"),
        Webhook("http://box.local/rest/1/hushhush/"),
        oauth(oauth_url="http://box.local/oauth/token/"),
    ],
)
def test_plain_http_is_refused_before_anything_is_sent(auth: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"unencrypted to box\.local"):
        RestClient(auth)
    assert RestClient(auth, options=PullOptions(allow_http_hosts=["box.local"])).http


def test_what_cannot_call_a_portal_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="str is no way to call a portal"):
        RestClient("https://acme.bitrix24.com/rest/1/hushhush/")  # type: ignore[arg-type]
