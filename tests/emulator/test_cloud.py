"""Many portals in one process."""

import asyncio
import socket
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from bitrix_pull import AccessToken, OAuth, PullClient, PullEvent
from bitrix_pull.emulator import EmulatedCloud
from bitrix_pull.errors import NoAuth
from bitrix_pull.portal.tokens import Tokens


async def test_each_portal_has_events_of_its_own() -> None:
    async with EmulatedCloud(3) as cloud:
        got: list[tuple[str, object]] = []
        clients = [PullClient(AccessToken(portal.url, portal.token)) for portal in cloud.portals]
        for client in clients:

            @client.on("order_update")
            async def order(event: PullEvent) -> None:
                got.append((event.portal, event.params["id"]))

            await client.__aenter__()
        for number, portal in enumerate(cloud.portals):
            portal.send("order_update", {"id": number})
            portal.send("order_update", {"id": number + 10}, users=[1])
        while len(got) < 6:
            await asyncio.sleep(0.01)
        await asyncio.gather(*(client.__aexit__(None, None, None) for client in clients))
        assert sorted(got, key=lambda each: str(each[1])) == sorted(
            (
                (portal.address, number + more)
                for number, portal in enumerate(cloud.portals)
                for more in (0, 10)
            ),
            key=lambda each: str(each[1]),
        )


async def test_a_token_is_good_at_its_own_portal_only() -> None:
    async with EmulatedCloud(2) as cloud:
        one, other = cloud.portals
        with pytest.raises(NoAuth):
            await PullClient(AccessToken(one.url, other.token)).call("feature.get", {"CODE": "x"})


async def test_tokens_are_refreshed_at_each_portal() -> None:
    async with EmulatedCloud(2) as cloud:
        for portal in cloud.portals:
            auth = OAuth(
                portal.url,
                client_id=portal.client_id,
                client_secret=portal.client_secret,
                oauth_url=portal.oauth_url,
                tokens=Tokens(access_token="old", refresh_token=portal.refresh_token, expires=1.0),
            )
            client = PullClient(auth)
            assert await client.call("server.time") is not None
            await client.close()
            assert [request.granted for request in portal.token_requests] == [True]
        assert len({portal.member_id for portal in cloud.portals}) == 2


async def test_the_push_server_wants_a_portals_client_id() -> None:
    async with EmulatedCloud(2) as cloud, aiohttp.ClientSession() as http:
        portal = cloud.portals[0]
        config = portal.config("application", 1)
        assert config["clientId"] == portal.push_client_id != cloud.portals[1].push_client_id
        url = config["server"]["long_polling"]
        for client_id, status in ((cloud.portals[1].push_client_id, 304), ("strange", 400)):
            cloud.push.poll_timeout_s = 0.01
            query = {"CHANNEL_ID": config["channels"]["private"]["id"], "clientId": client_id}
            async with http.get(url, params=query) as answer:
                assert answer.status == status


async def test_after_a_restart_everything_is_where_it_was() -> None:
    async with EmulatedCloud(2, security_key="k" * 16) as cloud:
        before = [(portal.url, portal.token) for portal in cloud.portals]
        await cloud.restart()
        assert [(portal.url, portal.token) for portal in cloud.portals] == before
        client = PullClient(AccessToken(*before[1]))
        async with client:
            assert client.health().live


async def test_the_push_servers_port_is_no_portals() -> None:
    async with EmulatedCloud(1) as cloud, aiohttp.ClientSession() as http:
        push = cloud.portals[0].push_address
        async with http.post(f"http://{push}/rest/server.time.json") as answer:
            assert answer.status == 404


async def test_portals_are_told_apart_by_their_domains_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, asked = socket.getaddrinfo, set[str]()

    def getaddrinfo(host: str, *about: Any, **more: Any) -> Any:
        asked.add(host)
        return real("127.0.0.1" if host.endswith(".localhost") else host, *about, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with EmulatedCloud(2, domain="localhost") as cloud:
        one, other = cloud.portals
        assert {urlsplit(portal.url).port for portal in cloud.portals} == {
            urlsplit(f"//{one.push_address}").port
        }
        stranger = PullClient(AccessToken(one.url, other.token))
        with pytest.raises(NoAuth):
            await stranger.call("server.time")
        await stranger.close()
        client = PullClient(AccessToken(other.url, other.token))
        got = asyncio.Queue[Any]()

        @client.on("order_update")
        async def order(event: PullEvent) -> None:
            got.put_nowait(event.params)

        async with client:
            one.send("order_update", "one's")
            other.send("order_update", "the other's")
            assert await got.get() == "the other's"
    assert asked >= {"portal0.localhost", "portal1.localhost", "push.localhost"}


def test_a_cloud_without_portals_is_refused() -> None:
    with pytest.raises(ValueError, match="one portal"):
        EmulatedCloud(0)
