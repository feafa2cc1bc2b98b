import asyncio
import json
import signal

import aiohttp
import pytest
import redis.asyncio

from tests.cli.command import run, start
from tests.cli.conftest import RunHere
from tests.hub.engine import running


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


@pytest.mark.parametrize("on", [[], ["--demo"]])
async def test_a_port_that_is_taken_says_so(account: dict[str, str], on: list[str]) -> None:
    port = account["BITRIX_PULL_PORTAL"].rpartition(":")[2]
    outcome = await run("inspect", *on, "--port", port, env={} if on else account)
    assert outcome.code == 1
    assert f"cannot listen on port {port}" in outcome.err
    assert "--port" in outcome.err
    assert "Traceback" not in outcome.err


async def test_without_an_account_it_says_what_to_give() -> None:
    outcome = await run("inspect")
    assert outcome.code == 2
    assert "--webhook" in outcome.err


async def test_beside_hubs_by_their_valkey() -> None:
    with running() as server:
        async with redis.asyncio.Redis.from_url(server.url) as client:
            event = {"v": 1, "portal": "acme", "epoch": 1, "kind": "server", "command": "order_new"}
            await client.xadd("{other:0}:events", {"event": json.dumps(event)})
        inspect = await start("inspect", "--valkey", server.url, "--name", "other", "--json")
        url = (await inspect.json_line())["url"]
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
            async with http.get(url) as response:
                assert "hub inspector" in await response.text()
            async with asyncio.timeout(30), http.get(url.partition("?")[0] + "stream") as response:
                text = b""
                while b'"order_new"' not in text:
                    text += await response.content.readany()
        outcome = await inspect.stop()
    assert outcome.code == 0
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--valkey", "redis://127.0.0.1:1", "--demo"), "no account, no --demo"),
        (("--valkey", "redis://127.0.0.1:1", "--portal", "acme.bitrix24.com"), "no account, no --demo"),
        (("--valkey", "redis://127.0.0.1:1", "--transport", "websocket"), "--transport"),
        (("--valkey", "nonsense"), "redis://HOST:PORT"),
        (("--demo", "--shards", "2"), "--name and --shards go with --valkey"),
        (("--demo", "--portal", "acme.bitrix24.com"), "--demo takes no account"),
    ],
)
def test_what_does_not_go_together_is_refused(run_here: RunHere, given: tuple[str, ...], told: str) -> None:
    outcome = run_here("inspect", *given)
    assert outcome.code == 2
    assert told in outcome.err


async def test_without_the_redis_package_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['redis'] = None; from bitrix_pull.cli import main; main()"
    inspect = await start("inspect", "--valkey", "redis://127.0.0.1:1", program=("-c", program), fresh=True)
    outcome = await inspect.end()
    assert outcome.code == 2
    assert "bitrix-pull[hub]" in outcome.err
