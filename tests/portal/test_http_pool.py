"""Clients of many portals on one HTTP session."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from bitrix_pull.errors import Unreachable
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.destinations import Destinations
from bitrix_pull.portal.http import HttpSession
from bitrix_pull.portal.http_pool import HttpPool
from bitrix_pull.portal.names import Names
from tests.internet.stand import PORTAL, PORTAL_IP, PUSH, Internet, trusting


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    internet = Internet(monkeypatch)
    internet.names |= {PORTAL: [PORTAL_IP], PUSH: ["127.0.0.1"]}
    return internet


@pytest.fixture
async def pool() -> AsyncIterator[HttpPool]:
    made = HttpPool(many=True)
    yield made
    await made.close()


def of(portal: str, pool: HttpPool) -> HttpSession:
    options = PullOptions(ssl=trusting())
    return HttpSession(options, pool, Destinations(options, portal=portal))


async def hello(request: web.Request) -> web.Response:
    return web.Response(text=str(id(request.transport)))


async def test_clients_reuse_each_others_connections(internet: Internet, pool: HttpPool) -> None:
    one, other = of(f"https://{PORTAL}/rest/", pool), of(f"https://{PORTAL}/rest/", pool)
    async with internet.host(PORTAL, PORTAL_IP, hello):
        answers = [
            await client.request("GET", f"https://{PORTAL}/", timeout_s=5, max_bytes=100)
            for client in (one, other, one)
        ]
        assert len({answer.body for answer in answers}) == 1
        assert internet.asked == [PORTAL]


async def test_closing_a_client_leaves_the_pool_to_the_others(internet: Internet, pool: HttpPool) -> None:
    one, other = of(f"https://{PORTAL}/rest/", pool), of(f"https://{PORTAL}/rest/", pool)
    async with internet.host(PORTAL, PORTAL_IP, hello):
        await one.request("GET", f"https://{PORTAL}/", timeout_s=5, max_bytes=100)
        await one.close()
        assert not (await pool.session()).closed
        assert (await other.request("GET", f"https://{PORTAL}/", timeout_s=5, max_bytes=100)).status == 200


async def test_no_portal_gets_to_where_only_another_one_may_send(internet: Internet, pool: HttpPool) -> None:
    """Neither by a connection that is open already, nor by a name that was resolved for another."""
    near, far = of("http://127.0.0.1:1/rest/", pool), of(f"https://{PORTAL}/rest/", pool)
    async with internet.host(PUSH, "127.0.0.1", hello) as requests:
        internet.names[PUSH] = ["127.0.0.1"]
        port = internet.routes["127.0.0.1", 443]
        url = f"https://{PUSH}:{port}/"
        assert (await near.request("GET", url, timeout_s=5, max_bytes=100)).status == 200
        with pytest.raises(Unreachable, match="loopback address, and the portal is at a public one"):
            await far.request("GET", url, timeout_s=5, max_bytes=100)
        assert len(requests) == 1
        # Nor are they mixed up when they ask at the same time.
        answers = await asyncio.gather(
            *(client.request("GET", url, timeout_s=5, max_bytes=100) for client in (near, far) * 5),
            return_exceptions=True,
        )
        assert [isinstance(answer, Unreachable) for answer in answers] == [False, True] * 5


async def test_a_name_is_asked_for_once_and_a_failure_again(internet: Internet) -> None:
    names = Names()
    found = await asyncio.gather(*(names.look_up(PUSH, 443) for _ in range(5)))
    assert internet.asked == [PUSH]
    assert len({str(each) for each in found}) == 1
    for _ in range(2):
        with pytest.raises(OSError, match=r".+"):
            await names.look_up("nowhere.test", 443)


async def test_whoever_is_cancelled_does_not_take_the_answer_along(internet: Internet) -> None:
    names = Names()
    asking = [asyncio.create_task(names.look_up(PUSH, 443)) for _ in range(2)]
    await asyncio.sleep(0)
    asking[0].cancel()
    assert (await asking[1])[0][4][0] == "127.0.0.1"
