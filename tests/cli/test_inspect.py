import asyncio
import signal

import aiohttp
import pytest

from tests.cli.command import run, start


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
async def test_the_demo_serves_a_page_of_events_until_it_is_stopped(stop: signal.Signals) -> None:
    inspect = await start("inspect", "--demo", "--json")
    url = (await inspect.json_line())["url"]
    assert url.startswith("http://127.0.0.1:")
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        async with http.get(url) as response:
            assert "inspector" in await response.text()
        async with asyncio.timeout(30), http.get(url.partition("?")[0] + "stream") as response:
            text = b""
            while b'"order_new"' not in text:
                text += await response.content.readany()
    outcome = await inspect.stop(stop)
    assert outcome.code == 0
    assert "Traceback" not in outcome.err


async def test_an_account_is_inspected(account: dict[str, str]) -> None:
    inspect = await start("inspect", env=account)
    address = await inspect.line()
    key = address.partition("?key=")[2]
    async with aiohttp.ClientSession() as http, http.get(address) as response:
        assert response.status == 200
    outcome = await inspect.stop()
    assert outcome.code == 0
    assert key
    assert key not in outcome.err


async def test_a_port_that_is_taken_says_so(account: dict[str, str]) -> None:
    port = account["BITRIX_PULL_PORTAL"].rpartition(":")[2]
    outcome = await run("inspect", "--port", port, env=account)
    assert outcome.code == 1
    assert f"cannot listen on port {port}" in outcome.err
    assert "--port" in outcome.err


async def test_without_an_account_it_says_what_to_give() -> None:
    outcome = await run("inspect")
    assert outcome.code == 2
    assert "--webhook" in outcome.err
