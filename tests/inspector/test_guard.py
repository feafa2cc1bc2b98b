"""Nobody sees the page but who was given its address, and no other site's page presses its buttons."""

from collections.abc import Mapping
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.inspector.conftest import Inspected

PATHS = ("", "main.js", "style.css", "about", "stream", "events/0/test")


async def ask(
    url: str, method: str = "GET", headers: Mapping[str, str] | None = None, **cookies: str
) -> aiohttp.ClientResponse:
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), cookies=cookies) as http,
        http.request(method, url, headers=headers, json={} if method == "POST" else None) as response,
    ):
        await response.content.readany()
        return response


def cookies(response: aiohttp.ClientResponse) -> dict[str, str]:
    return {"Cookie": "; ".join(f"{name}={cookie.value}" for name, cookie in response.cookies.items())}


async def opened(inspected: Inspected) -> dict[str, str]:
    """The cookie that a browser has once it has opened the page."""
    return cookies(await ask(f"{inspected.url}?key={inspected.key}"))


@pytest.mark.parametrize("path", PATHS)
async def test_without_the_key_nothing_is_served(inspected: Inspected, path: str) -> None:
    assert (await ask(inspected.url + path)).status == 403
    assert (await ask(f"{inspected.url}{path}?key=")).status == 403
    assert (await ask(f"{inspected.url}{path}?key={inspected.key[:-1]}")).status == 403
    assert (await ask(f"{inspected.url}{path}?key=%D0%AF")).status == 403
    assert (await ask(inspected.url + path, headers={"Cookie": "bitrix_pull_inspector_0=x"})).status == 403


async def test_the_key_is_in_no_page_and_the_cookie_is_another_secret(inspected: Inspected) -> None:
    response = await ask(f"{inspected.url}?key={inspected.key}")
    assert response.status == 200
    (cookie,) = response.cookies.values()
    assert cookie["httponly"] is True
    assert cookie["samesite"] == "Strict"
    assert inspected.key not in cookie.value
    assert len(cookie.value) >= 32
    assert "charset=utf-8" in response.headers["Content-Type"]


async def test_with_the_cookie_the_page_is_served_without_the_key(inspected: Inspected) -> None:
    cookie = await opened(inspected)
    for path in ("", "main.js", "about"):
        assert (await ask(inspected.url + path, headers=cookie)).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}"],
)
async def test_a_name_that_was_pointed_here_reads_nothing(inspected: Inspected, host: str) -> None:
    """DNS rebinding: the browser believes to speak with another site, whose scripts may read the answer."""
    host = host.format(port=urlsplit(inspected.url).port)
    cookie = await opened(inspected)
    for path in PATHS:
        assert (await ask(inspected.url + path, headers={**cookie, "Host": host})).status == 421
        assert (await ask(f"{inspected.url}{path}?key={inspected.key}", headers={"Host": host})).status == 421


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://localhost:{port}", None]
)
async def test_another_sites_page_presses_no_button(inspected: Inspected, origin: str | None) -> None:
    cookie = await opened(inspected)
    headers = dict(cookie)
    if origin is not None:
        headers["Origin"] = origin.format(port=urlsplit(inspected.url).port)
    for path in ("publish", "online", "queue", "diagnose"):
        assert (await ask(inspected.url + path, "POST", headers)).status == 403
    if origin is not None:
        assert (await ask(inspected.url + "stream", headers=headers)).status == 403


async def test_a_form_of_another_kind_is_refused(inspected: Inspected) -> None:
    headers = {**await opened(inspected), "Origin": inspected.url.rstrip("/"), "Content-Type": "text/plain"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(inspected.url + "queue", data="{}", headers=headers) as response,
    ):
        assert response.status == 415


async def test_the_page_may_load_nothing_from_elsewhere(inspected: Inspected) -> None:
    for path in ("", "main.js", "missing"):
        headers = (await ask(f"{inspected.url}{path}?key={inspected.key}")).headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in policy
        assert "http" not in policy
        assert "unsafe" not in policy
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Content-Type-Options"] == "nosniff"
