"""Addresses that tokens name: credentials follow none but Bitrix24's own OAuth servers."""

import logging
from typing import Any

import orjson
import pytest

from bitrix_pull.options import PullOptions
from bitrix_pull.portal.http import HttpAnswer, HttpSession
from bitrix_pull.portal.oauth import OAUTH_URL, OAuth

from .granting import Clients, Grant, stale


class Recorder(HttpSession):
    """Answers each refresh, and notes where it went."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(PullOptions())
        self.fields = fields
        self.urls: list[str] = []

    async def request(self, verb: str, url: str, **_: Any) -> HttpAnswer:
        self.urls.append(url)
        tokens = stale(access_token="access-2", refresh_token="refresh-2", **self.fields)
        return HttpAnswer(200, {}, orjson.dumps(tokens))


async def refresh(tokens: dict[str, Any], oauth_url: str | None = None, **answered: Any) -> list[str]:
    auth = OAuth(
        "acme.bitrix24.com",
        client_id="app.1",
        client_secret="client-secret",
        tokens=tokens,
        oauth_url=oauth_url,
    )
    http = Recorder(**answered)
    await auth.renew("access-0", http, PullOptions())
    await auth.renew("access-2", http, PullOptions())
    return http.urls


async def test_tokens_name_their_oauth_server_if_it_is_one_of_bitrix24s(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tech = "https://oauth.bitrix24.tech/oauth/token/"
    assert await refresh(stale()) == [OAUTH_URL] * 2
    assert await refresh(stale(), server_endpoint="https://oauth.bitrix24.tech/rest/") == [OAUTH_URL, tech]
    assert await refresh(stale(server_endpoint="https://oauth.bitrix24.tech/rest/")) == [tech] * 2
    own = "https://oauth.example/token/"
    assert await refresh(stale(server_endpoint="https://oauth.bitrix24.tech/rest/"), own) == [own] * 2
    assert not caplog.records


@pytest.mark.parametrize(
    "named",
    [
        "https://evil.example/rest/",
        "https://bitrix.info.evil.example/rest/",
        "https://oauth.bitrix.info@evil.example/rest/",
        "https://oauth.bitrix.info:8443/rest/",
        "http://oauth.bitrix.info/rest/",
        "https://evilbitrix.info/rest/",
        "https://oauth.bitrix.info\\@evil.example/",
        "https://access-0.evil.example/refresh-1",
    ],
)
async def test_credentials_go_to_no_other_oauth_server(named: str, caplog: pytest.LogCaptureFixture) -> None:
    urls = await refresh(stale(server_endpoint=named))
    assert urls == [OAUTH_URL] * 2
    assert "server_endpoint of the tokens" in caplog.text
    assert "evil.example" not in caplog.text
    assert "access-0" not in caplog.text


async def test_another_address_of_the_portal_is_told_and_not_followed(
    grant: Grant, client: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    grant.extra = {"client_endpoint": "https://new.bitrix24.com/rest/", "domain": "oauth.bitrix.info"}
    rest = client(stale())
    assert await rest.call("app.info") == "access-2"
    assert await rest.call("app.info") == "access-2"
    assert "names another address for 127.0.0.1: new.bitrix24.com" in caplog.text


@pytest.mark.parametrize(
    "endpoint",
    ["http://127.0.0.1/rest/", "https://127.0.0.1:8443/rest/", "", None, ["x"], "https://a b/", 7],
)
async def test_the_same_address_or_none_is_no_move(
    grant: Grant, client: Clients, caplog: pytest.LogCaptureFixture, endpoint: Any
) -> None:
    grant.extra = {"client_endpoint": endpoint}
    assert await client(stale()).call("app.info") == "access-2"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
