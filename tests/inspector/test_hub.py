"""The page beside hubs, without a browser: its stream, its buttons, its guard."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis.asyncio

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.hub.valkey import ValkeyPublisher
from bitrix_pull.inspector.hub import HubInspector
from bitrix_pull.inspector.logged import shown_entry
from tests.hub.engine import Server, running, until
from tests.inspector.hubs import hub_at, hubs_beside
from tests.inspector.opened import Opened


@asynccontextmanager
async def opened(inspector: HubInspector) -> AsyncIterator[Opened]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        async with http.get(inspector.url) as response:
            assert response.status == 200
            assert "hub inspector" in await response.text()
        yield Opened(inspector.url, http)


async def look_until(page: Opened, condition: Any) -> dict[str, Any]:
    async with asyncio.timeout(30):
        async for topic, _, content in page.stream():
            if topic == "looks" and condition(look := content["entries"][-1]):
                return dict(look)
    raise AssertionError("the stream ended")


async def notice(page: Opened, text: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        async for topic, _, content in page.stream():
            for each in content["entries"] if topic == "notices" else ():
                if text in each["text"]:
                    return dict(each)
    raise AssertionError("the stream ended")


async def test_events_of_all_portals_come_with_their_portal(valkey_url: str, name: str) -> None:
    async with hubs_beside(valkey_url, name, "one", "two") as hubs, opened(hubs.inspector) as page:
        hubs.send("acme", "order_update", {"id": 7, "for": "Юрий", "token": "not for anybody"})
        hubs.send("beta", "order_new", {"id": 8}, module="im")
        hubs.portals["gamma"].change("ONCRMDEALUPDATE", {"FIELDS": {"ID": "9"}})
        events = await page.events_until(lambda found: len(found) == 4)
        shown = {(each["portal"], each["module"], each["command"]): each for each in events}
        # What tells the application that something waits is an event too.
        assert shown.keys() == {
            ("acme", "application", "order_update"),
            ("beta", "im", "order_new"),
            ("gamma", "rest", "event_offline"),
            ("gamma", "portal", "ONCRMDEALUPDATE"),
        }
        order = shown["acme", "application", "order_update"]
        assert json.loads(order["params"]) == {"id": 7, "for": "Юрий", "token": "***"}
        assert json.loads(order["extra"])["epoch"] > 0
        deal = shown["gamma", "portal", "ONCRMDEALUPDATE"]
        assert (deal["kind"], json.loads(deal["params"])) == ("portal", {"FIELDS": {"ID": "9"}})

        status, answer = await page.get(f"events/{events.index(order)}/test")
        assert status == 200
        assert "client.deliver(" in answer["test"]
        assert '"order_update"' in answer["test"]
        status, answer = await page.get(f"events/{events.index(deal)}/test")
        assert (status, answer) == (422, {"error": "Only messages can be written as a test."})


async def test_workers_portals_and_readers_are_told(valkey_url: str, name: str) -> None:
    async with hubs_beside(valkey_url, name, "one", "two") as hubs, opened(hubs.inspector) as page:
        hubs.send("acme", "order_update")
        await page.events_until(lambda found: len(found) == 1)
        async with redis.asyncio.Redis.from_url(valkey_url) as client:
            await client.xgroup_create(f"{{{name}:0}}:events", "billing", "0")
            look = await look_until(
                page, lambda look: look["behind"] and look["live"] == 3 and look["workers"] == 2
            )
            assert (look["state"], look["portals"], look["owned"], look["failed"]) == ("live", 3, 3, 0)
            assert (look["received"], look["behind"]) == (1, 1)
            groups = await client.xinfo_groups(f"{{{name}:0}}:events")
        # Nobody's position was moved, and the page is no group.
        assert [(group["name"], group["last-delivered-id"]) for group in groups] == [(b"billing", b"0-0")]

        _, cluster = await page.press("cluster")
        assert {worker["name"] for worker in cluster["workers"]} == {"one", "two"}
        assert sum(worker["portals"] for worker in cluster["workers"]) == 3
        assert [(group["name"], group["behind"]) for group in cluster["groups"]] == [("billing", 1)]
        _, portals = await page.press("portals", text="AC")
        assert [(each["key"], each["worker"] in ("one", "two")) for each in portals["portals"]] == [
            ("acme", True)
        ]
        _, portals = await page.press("portals", wrong=True)
        assert (portals["count"], portals["portals"]) == (0, [])


async def test_what_befalls_workers_and_portals_is_told(valkey_url: str, name: str) -> None:
    async with hubs_beside(valkey_url, name, "one") as hubs, opened(hubs.inspector) as page:
        await look_until(page, lambda look: look["live"] == 3)
        two = hub_at(valkey_url, name, hubs.portals, "two")
        async with two.serving():
            await until(lambda: two.health().served)
            assert (await notice(page, "Worker two has come."))["level"] == "good"
            await notice(page, "from one to two.")
        await notice(page, "Worker two is gone.")
        await hubs.hubs[0].pause("acme")
        assert (await notice(page, "1 portal of one: nobody has them now."))["level"] == "warn"
        # It may have been told of one that was on its way to the other worker.
        async with asyncio.timeout(20):
            while [(each["key"], each["worker"]) for each in await wrong_ones(page)] != [("acme", "")]:
                await asyncio.sleep(0.05)


async def wrong_ones(page: Opened) -> list[dict[str, Any]]:
    """Return the portals of which the page says that something is wrong."""
    _, told = await page.press("portals", wrong=True)
    wrong: list[dict[str, Any]] = told["portals"]
    return wrong


async def test_a_portal_that_has_failed_is_told_first(valkey_url: str, name: str) -> None:
    async with (
        hubs_beside(valkey_url, name, "one", broken="gamma") as hubs,
        opened(hubs.inspector) as page,
    ):
        look = await look_until(page, lambda look: look["failed"] == 1)
        assert look["live"] == 2
        told = await notice(page, "gamma has failed: ")
        assert told["level"] == "bad"
        _, portals = await page.press("portals")
        assert [each["key"] for each in portals["portals"]] == ["gamma", "acme", "beta"]
        assert "NO_AUTH_FOUND" in portals["portals"][0]["error"]


async def test_the_page_publishes_through_the_hub(valkey_url: str, name: str) -> None:
    async with hubs_beside(valkey_url, name, "one") as hubs, opened(hubs.inspector) as page:
        status, answer = await page.press(
            "publish", portal="acme", command="order_paid", params='{"id": 7}', module="application"
        )
        assert (status, answer["outcome"], answer["route"], answer["confirmed"]) == (
            200,
            "accepted",
            "rest",
            True,
        )
        (event,) = await page.events_until(lambda found: len(found) == 1)
        assert (event["portal"], event["command"], json.loads(event["params"])) == (
            "acme",
            "order_paid",
            {"id": 7},
        )
        for wrong, told in (
            ({"command": "no good"}, "COMMAND"),
            ({"params": "{nope"}, "no JSON"),
            ({"to": "users", "users": "x"}, "no user ids"),
            ({"portal": ""}, "portal"),
            ({"route": "pigeon"}, "route"),
        ):
            order = {"portal": "acme", "command": "order_paid", **wrong}
            status, answer = await page.press("publish", **order)
            assert status == 422
            assert told.lower() in answer["error"].lower()


async def test_nobody_else_sees_it_or_presses_its_buttons(valkey_url: str, name: str) -> None:
    async with HubInspector(valkey_url, name=name) as inspector, opened(inspector) as page:
        async with aiohttp.ClientSession() as stranger:
            for path in ("", "hub.js", "about", "stream", "events/0/test"):
                async with stranger.get(page.url + path) as response:
                    assert response.status == 403
        for headers, status in (
            ({}, 403),
            ({"Origin": "http://evil.example"}, 403),
            ({"Origin": page.url.rstrip("/"), "Host": "evil.example"}, 421),
        ):
            for path in ("cluster", "portals", "publish"):
                assert await page.status_of(path, headers) == status
        # The page of a client is not here.
        assert (await page.status_of("diagnose", {"Origin": page.url.rstrip("/")})) == 404


async def test_an_engine_that_is_away_is_waited_for() -> None:
    with running() as server:
        server.kill()
        async with HubInspector(server.url) as inspector, opened(inspector) as page:
            look = await look_until(page, lambda look: look["state"] == "backoff")
            assert "does not answer" in look["last_error"]
            _, portals = await page.press("portals")
            assert portals == {"known": False, "portals": [], "count": 0}
            server.start()
            look = await look_until(page, lambda look: look["state"] == "live")
            assert look["last_error"] is None
            await notice(page, "answers.")
            async with redis.asyncio.Redis.from_url(server.url) as client:
                entry = b'{"v":1,"portal":"acme","epoch":1,"kind":"server","module":"x","command":"y"}'
                await client.xadd("{bitrix-pull:0}:events", {"event": entry})
                await client.xadd("{bitrix-pull:0}:events", {"other": b"what is not ours"})
                await client.xadd("{bitrix-pull:0}:events", {"event": b"{no JSON"})
                (event,) = await page.events_until(lambda found: len(found) == 1)
                assert event["command"] == "y"
                # And once more, while it reads.
                server.kill()
                await look_until(page, lambda look: look["state"] == "backoff")
                server.start()
            async with redis.asyncio.Redis.from_url(server.url) as client:
                await client.xadd("{bitrix-pull:0}:events", {"event": entry.replace(b'"y"', b'"z"')})
            events = await page.events_until(lambda found: len(found) == 2)
            assert events[1]["command"] == "z"


async def test_an_engine_that_cannot_be_used_is_refused_at_once() -> None:
    with running(requirepass="a-password-of-the-engine") as server:
        with pytest.raises(InvalidArgument, match="refuses us"):
            await HubInspector(server.url).__aenter__()
        with pytest.raises(InvalidArgument, match="address is none"):
            HubInspector("http://nonsense")
        secret = server.url.replace("redis://", "redis://:a-password-of-the-engine@")
        async with HubInspector(secret) as inspector, opened(inspector) as page:
            await look_until(page, lambda look: look["state"] == "live")
            _, about = await page.get("about")
    assert "a-password-of-the-engine" not in json.dumps(about)
    assert about["engine"] == f"127.0.0.1:{server.port}"


async def test_a_log_of_several_shards_is_read_whole(valkey_url: str, name: str) -> None:
    async with redis.asyncio.Redis.from_url(valkey_url) as client:
        for shard in range(3):
            event = {"v": 1, "portal": f"p{shard}", "epoch": 1, "kind": "server", "command": "kept"}
            await client.xadd(f"{{{name}:{shard}}}:events", {"event": json.dumps(event)})
        async with HubInspector(valkey_url, name=name, shards=3) as inspector, opened(inspector) as page:
            kept = await page.events_until(lambda found: len(found) == 3)
            assert {event["portal"] for event in kept} == {"p0", "p1", "p2"}
            async with ValkeyPublisher(valkey_url, name=name, shards=3):
                await client.xadd(f"{{{name}:2}}:events", {"event": json.dumps({**event, "command": "new"})})
            *_, new = await page.events_until(lambda found: len(found) == 4)
            assert (new["portal"], new["command"]) == ("p2", "new")
            look = await look_until(page, lambda look: look["received"])
            # What was there before is shown, and did not come now.
            assert look["received"] == 1


@pytest.mark.parametrize("raw", [b"", b"[]", b"7", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_event_is_left_out(raw: bytes) -> None:
    assert shown_entry(raw, 1.0) is None


def test_what_only_a_lenient_parser_reads_is_shown() -> None:
    entry = shown_entry(b'{"portal": "acme", "command": 7, "params": {"id": %s}}' % (b"9" * 30), 1.0)
    assert entry is not None
    event = json.loads(entry)
    assert (event["command"], json.loads(event["params"])) == ("", {"id": int("9" * 30)})


async def test_an_engine_that_comes_back_and_refuses_us_ends_the_block_with_that(tmp_path: Path) -> None:
    server, begun = Server(tmp_path, requirepass="another"), asyncio.Event()

    async def look() -> None:
        async with HubInspector(server.url):
            begun.set()
            await asyncio.Event().wait()

    looking = asyncio.create_task(look())
    await begun.wait()
    await asyncio.to_thread(server.start)
    try:
        async with asyncio.timeout(30):
            with pytest.raises(InvalidArgument, match="refuses us"):
                await looking
    finally:
        server.stop()
