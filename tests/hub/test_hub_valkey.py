"""Hubs that share portals over a real Valkey, against an emulated cloud."""

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis.asyncio

from bitrix_pull import AccessToken, Hub, Portal, PullEvent, ResumeStore
from bitrix_pull.emulator import EmulatedCloud
from bitrix_pull.hub.postgres import PostgresStore
from bitrix_pull.hub.valkey import ValkeyCluster, ValkeyPortals, ValkeyResumeStore, ValkeyStream
from tests.hub.engine import running
from tests.hub.test_hub import until


def _engine(url: str) -> Any:
    return redis.asyncio.Redis.from_url(url)


def cluster(url: str, name: str) -> ValkeyCluster:
    return ValkeyCluster(url, name=name, lease_s=3.0, settle_s=0.1)


async def test_two_workers_share_the_portals_and_write_each_event_once(valkey_url: str, name: str) -> None:
    async with EmulatedCloud(4) as cloud, AsyncExitStack() as stack:
        portals = [
            Portal(f"portal{n}", AccessToken(each.url, each.token)) for n, each in enumerate(cloud.portals)
        ]
        one, two = (
            Hub(
                portals,
                cluster=cluster(valkey_url, name),
                stream=ValkeyStream(valkey_url, name=name),
                log_portal_events=["ONCRMDEALUPDATE"],
                worker=worker,
            )
            for worker in ("one", "two")
        )
        engine = await stack.enter_async_context(_engine(valkey_url))

        async def logged() -> list[dict[str, Any]]:
            """Return what is in the log, but for the portals' announcements."""
            (stream,) = ValkeyStream(valkey_url, name=name).streams
            entries = [json.loads(fields[b"event"]) for _, fields in await engine.xrange(stream)]
            return [entry for entry in entries if entry.get("command") != "event_offline"]

        async with two.serving():
            async with one.serving():
                await until(lambda: one.health().live + two.health().live == 4)
                await until(lambda: one.health().served >= 1 and two.health().served >= 1)
                await until(lambda: one.health().live + two.health().live == 4)
                for number, portal in enumerate(cloud.portals):
                    portal.send("order", {"id": number})
                    portal.change("ONCRMDEALUPDATE", {"FIELDS": {"ID": str(number + 1)}})
                async with asyncio.timeout(30):
                    while len(await logged()) < 8:
                        await asyncio.sleep(0.05)
            # Handed over; nothing is lost between the two, and nothing doubled.
            for number, portal in enumerate(cloud.portals):
                portal.send("order", {"id": number + 10})
            await until(lambda: two.health().live == 4)
            async with asyncio.timeout(30):
                while len(await logged()) < 12:
                    await asyncio.sleep(0.05)
            entries = await logged()
        orders = Counter((each["portal"], each["params"]["id"]) for each in entries if "params" in each)
        assert orders == Counter((f"portal{n}", n + more) for n in range(4) for more in (0, 10))
        assert Counter(each["portal"] for each in entries if each["kind"] == "portal") == Counter(
            f"portal{n}" for n in range(4)
        )


async def test_a_worker_that_has_only_just_come_leaves_at_once(valkey_url: str, name: str) -> None:
    hub = Hub([], cluster=ValkeyCluster(valkey_url, name=name, lease_s=600.0))
    async with asyncio.timeout(60), hub.serving():
        pass


@pytest.mark.parametrize("kind", ["valkey", "postgres"])
async def test_a_handover_between_handlers_goes_on_where_the_other_was(
    valkey_url: str, name: str, kind: str, request: pytest.FixtureRequest
) -> None:
    conninfo = request.getfixturevalue("postgres_conninfo") if kind == "postgres" else ""

    def store() -> ResumeStore:
        if conninfo:
            return PostgresStore(conninfo, schema=name)
        return ValkeyResumeStore(valkey_url, name=name)

    async with EmulatedCloud(1) as cloud:
        (portal,) = cloud.portals
        got: list[tuple[str, int]] = []

        def hub(worker: str) -> Hub:
            made = Hub(
                [Portal("acme", AccessToken(portal.url, portal.token))],
                cluster=cluster(valkey_url, name),
                resume=store(),
                worker=worker,
            )

            @made.on("order")
            async def order(event: PullEvent) -> None:
                got.append((worker, event.params["id"]))

            return made

        one, two = hub("one"), hub("two")
        async with one.serving():
            await until(lambda: one.health().live == 1)
            portal.send("order", {"id": 1})
            await until(lambda: got == [("one", 1)])
        portal.send("order", {"id": 2})
        async with two.serving():
            await until(lambda: got == [("one", 1), ("two", 2)])


async def test_an_outage_of_the_engine_stops_no_client(caplog: pytest.LogCaptureFixture) -> None:
    """The portals are read again after it: those that are as they were go on as they are."""
    with running(appendonly="yes", appendfsync="always") as server:
        async with EmulatedCloud(3) as cloud:
            portals = ValkeyPortals(server.url)
            for number, each in enumerate(cloud.portals):
                await portals.put(Portal(f"portal{number}", AccessToken(each.url, each.token)))
            hub = Hub(portals)
            async with hub.serving():
                await until(lambda: hub.health().live == 3)
                clients = [hub.client(f"portal{number}") for number in (1, 2)]
                server.kill()
                await until(lambda: "the portals cannot be followed" in caplog.text)
                server.start()
                # Once the second change is seen, whatever was read again is dealt with.
                await hub.pause("portal0")
                await until(lambda: hub.health().served == 2)
                await hub.resume("portal0")
                await until(lambda: hub.health().live == 3)
                assert [hub.client(f"portal{number}") for number in (1, 2)] == clients
                assert [client.health().connects for client in clients] == [1, 1]
