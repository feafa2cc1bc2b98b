"""Workers that share portals out over a real server."""

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from bitrix_pull import EngineUnavailable
from bitrix_pull.hub.cluster import Acquired, Cluster, Lease, Lost, Membership, Recalled
from bitrix_pull.hub.valkey import Engine, ValkeyCluster
from bitrix_pull.hub.valkey.engine import Script
from bitrix_pull.hub.valkey.peers import Peers
from tests.fault_proxy import FaultProxy, Weather
from tests.hub.engine import FaultyEngine, running, running_cluster, until

PORTALS = [f"portal-{number}" for number in range(40)]


class Worker:
    """Does with its leases what a hub does, and writes down what happens."""

    def __init__(self, membership: Membership, keys: Collection[str]) -> None:
        self.membership = membership
        self.membership.want(keys)
        self.leases: dict[str, Lease] = {}
        self.gained: list[Lease] = []
        self.lost: list[Lease] = []

    async def work(self) -> None:
        async for change in self.membership.changes():
            match change:
                case Acquired(lease):
                    assert lease.key not in self.leases, "started twice"
                    self.leases[lease.key] = lease
                    self.gained.append(lease)
                case Recalled(lease):
                    assert self.leases[lease.key] is lease
                    await asyncio.sleep(0)
                    del self.leases[lease.key]
                    await self.membership.release(lease)
                case Lost(lease):
                    assert self.leases.pop(lease.key) is lease
                    assert not lease.valid()
                    self.lost.append(lease)


@asynccontextmanager
async def worker(cluster: Cluster, name: str, keys: Collection[str] = PORTALS) -> AsyncGenerator[Worker]:
    async with cluster.join(name) as membership:
        one = Worker(membership, keys)
        working = asyncio.create_task(one.work())
        try:
            yield one
        finally:
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working


def cluster(url: str, name: str, **options: float) -> ValkeyCluster:
    settings: dict[str, float] = {"lease_s": 2.0, "settle_s": 0.2, **options}
    return ValkeyCluster(url, name=name, **settings)  # type: ignore[arg-type]


def shared_out(*workers: Worker) -> bool:
    held = [key for one in workers for key in one.leases]
    return sorted(held) == sorted(PORTALS)


async def test_one_worker_gets_all(valkey_url: str, name: str) -> None:
    assert isinstance(cluster(valkey_url, name), Cluster)
    async with worker(cluster(valkey_url, name), "a") as one:
        await until(lambda: shared_out(one))
        status = await cluster(valkey_url, name).status()
        assert [(each.name, each.portals, each.leaving) for each in status.workers] == [("a", 40, False)]
        assert set(status.owners.values()) == {"a"}
        assert status.epochs == {key: lease.epoch for key, lease in one.leases.items()}
    status = await cluster(valkey_url, name).status()
    assert (status.workers, status.owners) == ((), {})
    assert len(status.epochs) == 40


async def test_who_joins_gets_its_share_and_who_leaves_gives_it_up_with_one_move_for_each(
    valkey_url: str, name: str
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(worker(cluster(valkey_url, name), "a"))
        await until(lambda: shared_out(one))
        two = await stack.enter_async_context(worker(cluster(valkey_url, name), "b"))
        await until(lambda: shared_out(one, two) and len(two.leases) > 5)
        await asyncio.sleep(0.5)
        assert len(one.gained) == 40
        assert len(two.gained) == len(two.leases) == 40 - len(one.leases)
        assert all(
            lease.epoch > one_s.epoch
            for lease in two.gained
            for one_s in one.gained
            if one_s.key == lease.key
        )

        one.membership.leave()
        await until(lambda: len(two.leases) == 40)
        assert not one.leases
        assert len(two.gained) == 40
        assert not one.lost
        assert not two.lost


async def test_who_falls_silent_loses_its_portals_by_its_own_clock_before_another_gets_them(
    valkey_url: str, name: str
) -> None:
    async with FaultProxy.before(valkey_url.removeprefix("redis://")) as proxy:
        shaky = cluster(f"redis://{proxy.address}", name, timeout_s=0.3)
        async with worker(shaky, "a") as one, worker(cluster(valkey_url, name), "b") as two:
            await until(lambda: shared_out(one, two) and len(two.leases) > 5)
            before = dict(one.leases)
            proxy.forecast = Weather.black_hole
            for line in proxy.lines:
                line.cut("silence")
            both = set[str]()
            while len(two.leases) < len(PORTALS):
                both |= {key for key in two.leases if key in before and before[key].valid()}
                await asyncio.sleep(0.005)
            assert both == set()
            await until(lambda: len(one.lost) == len(before))
            assert {lease.cause for lease in one.lost} == {"expired"}

            proxy.forecast = Weather
            await until(lambda: shared_out(one, two) and len(one.leases) > 5)
            assert all(lease.epoch > before[key].epoch for key, lease in one.leases.items() if key in before)


async def test_who_leaves_says_so_before_anything_is_given_up(valkey_url: str, name: str) -> None:
    shared = cluster(valkey_url, name, lease_s=20.0)
    async with worker(cluster(valkey_url, name, lease_s=20.0), "a") as one:
        await until(lambda: shared_out(one))
        one.membership.leave()
        while one.leases:
            gives_up = len(one.leases) < 40
            (status,) = (await shared.status()).workers
            assert status.leaving or not gives_up


async def test_what_an_engine_does_not_know_any_more_is_lost_and_acquired_with_a_greater_epoch(
    tmp_path: Path, name: str
) -> None:
    with running(tmp_path, appendonly="yes", appendfsync="always") as server:
        async with worker(cluster(server.url, name), "a") as one:
            await until(lambda: shared_out(one))
            first = dict(one.leases)
            server.kill()
            server.start()
            await asyncio.sleep(1.0)
            assert one.leases == first
            assert not one.lost

            async with redis.asyncio.Redis.from_url(server.url) as client:
                await client.flushall()
            await until(lambda: len(one.lost) == 40 and shared_out(one))
            assert all(lease.epoch > first[key].epoch for key, lease in one.leases.items())


async def test_a_lease_that_its_holder_has_ended_is_acquired_anew(valkey_url: str, name: str) -> None:
    async with worker(cluster(valkey_url, name), "a") as one, worker(cluster(valkey_url, name), "b") as two:
        await until(lambda: shared_out(one, two) and len(one.leases) > 5)
        await asyncio.sleep(1.0)
        key, lease = next(iter(one.leases.items()))
        lease.end()
        await until(lambda: shared_out(one, two) and one.leases[key] is not lease)
        assert one.lost == [lease]
        assert lease.cause == "given_up"
        assert one.membership.workers == two.membership.workers == 2
        assert one.leases[key].epoch > lease.epoch


async def test_a_worker_told_to_drain_gives_up_its_portals_and_ends(valkey_url: str, name: str) -> None:
    shared = cluster(valkey_url, name)
    async with worker(cluster(valkey_url, name), "b") as two:
        await until(lambda: shared_out(two))
        async with cluster(valkey_url, name).join("a") as membership:
            one = Worker(membership, PORTALS)
            working = asyncio.create_task(one.work())
            await until(lambda: shared_out(one, two) and len(one.leases) > 5)
            assert await shared.drain("a") == 1
            await asyncio.wait_for(working, 30)
            await until(lambda: shared_out(two))
        assert await shared.drain("a") == 0
        assert not one.lost


async def test_a_worker_that_comes_back_under_its_name_at_once_gets_its_portals_again(
    valkey_url: str, name: str
) -> None:
    async with worker(cluster(valkey_url, name), "b") as two:
        async with worker(cluster(valkey_url, name), "a") as one:
            await until(lambda: shared_out(one, two) and len(one.leases) > 5)
            before = set(one.leases)
        async with worker(cluster(valkey_url, name), "a") as again:
            await until(lambda: shared_out(again, two) and len(again.leases) > 5)
            assert set(again.leases) == before


async def test_who_has_left_in_order_is_given_portals_as_soon_as_ever(valkey_url: str, name: str) -> None:
    async with worker(cluster(valkey_url, name, settle_s=1.0), "a") as one:
        await until(lambda: shared_out(one))
        for _ in range(4):
            async with cluster(valkey_url, name).join("b"):
                await until(lambda: one.membership.workers == 2)
            await until(lambda: one.membership.workers == 1)
        async with worker(cluster(valkey_url, name), "b") as other:
            # Had it fallen silent so often, it would have to wait for 16 s.
            await until(lambda: other.leases, 8)


async def test_who_does_not_take_what_is_given_up_for_it_is_given_a_few_at_a_time(
    valkey_url: str, name: str
) -> None:
    """It may be dead, and not yet known to be: nobody would have any of its portals until then."""
    async with worker(cluster(valkey_url, name, handovers=3), "a") as one:
        await until(lambda: shared_out(one))
        async with cluster(valkey_url, name).join("b") as membership:
            two = Worker(membership, PORTALS)
            await until(lambda: len(one.leases) < 40)
            await asyncio.sleep(0.5)
            assert len(one.leases) == 37

            working = asyncio.create_task(two.work())
            await until(lambda: shared_out(one, two) and len(two.leases) > 5)
            assert len(one.gained) == 40
            working.cancel()
            await asyncio.wait({working})


async def test_what_is_on_its_way_to_be_given_up_has_no_other_owner_yet(valkey_url: str, name: str) -> None:
    class Slow(Engine):
        async def run(self, script: Script, *rest: Any) -> Any:
            if script.name == "release":
                await asyncio.sleep(0.4)
            return await super().run(script, *rest)

    recalled = set[str]()
    shared = ValkeyCluster(Slow(valkey_url), name=name, lease_s=6.0, settle_s=0.2, handovers=3)

    async def work(membership: Membership, acquired: set[str], tasks: asyncio.TaskGroup) -> None:
        membership.want(PORTALS)
        async for change in membership.changes():
            match change:
                case Acquired(lease):
                    acquired.add(lease.key)
                case Recalled(lease):
                    recalled.add(lease.key)
                    tasks.create_task(membership.release(lease))
                case Lost():
                    raise AssertionError(change)

    async with shared.join("a") as membership, asyncio.TaskGroup() as tasks:
        working = tasks.create_task(work(membership, acquired := set[str](), tasks))
        await until(lambda: len(acquired) == 40)
        async with cluster(valkey_url, name, lease_s=6.0).join("b"):
            await until(lambda: recalled)
            await asyncio.sleep(2.0)
            assert len(recalled) == 3
        working.cancel()


def test_the_next_end_is_that_of_the_worker_that_was_not_heard_for_the_longest_time() -> None:
    peers = Peers("a", settle_s=1.0)
    assert peers.next_end("a 1") == math.inf
    peers.meet([("a 1", b"{}", 1.0), ("b 1", b"{}", 6.0), ("c 1", b"{}", 2.5)], "a 1", now=100.0)
    assert peers.next_end("a 1") == 102.5
    peers.meet([("a 1", b"{}", 6.0), ("b 1", b"{}", 5.0)], "a 1", now=101.0)
    assert peers.next_end("a 1") == 106.0


async def test_portals_that_are_not_wanted_any_more_are_given_up_and_new_ones_are_claimed(
    valkey_url: str, name: str
) -> None:
    async with worker(cluster(valkey_url, name), "a") as one:
        await until(lambda: shared_out(one))
        one.membership.want(["portal-7", "another"])
        await until(lambda: one.leases.keys() == {"portal-7", "another"})
        one.membership.report({"received": 7})
        await asyncio.sleep(0.6)
        status = await cluster(valkey_url, name).status()
        assert status.owners == {"portal-7": "a", "another": "a"}
        assert status.workers[0].health == {"received": 7}


async def test_workers_of_one_name_do_not_share_a_session(valkey_url: str, name: str) -> None:
    async with worker(cluster(valkey_url, name), "a") as one:
        await until(lambda: shared_out(one))
        async with worker(cluster(valkey_url, name), "a") as two:
            await until(lambda: shared_out(one, two))
            await asyncio.sleep(0.5)
            assert shared_out(one, two)
            assert one.membership.worker != two.membership.worker


async def test_it_works_on_a_cluster_of_three_nodes(name: str) -> None:
    with running_cluster() as url:
        async with worker(cluster(url, name), "a") as one, worker(cluster(url, name), "b") as two:
            await until(lambda: shared_out(one, two) and len(two.leases) > 5 and len(one.leases) > 5)
            assert len((await cluster(url, name).status()).workers) == 2


async def test_after_a_fault_of_our_own_leases_are_renewed_all_the_same(
    valkey_url: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Else they would end for good, and the worker would wait for others that never come."""
    engine = FaultyEngine(valkey_url, after=2)
    async with worker(ValkeyCluster(engine, name=name, lease_s=3.0), "one", ["acme"]) as one:
        await until(lambda: engine.runs["beat"] >= 6)
        assert one.leases["acme"].valid()
        assert one.lost == []
    (told,) = (record for record in caplog.records if record.levelname == "CRITICAL")
    assert told.exc_info


async def test_an_engine_that_is_silent_is_not_asked_once_for_each_portal_that_is_given_up(
    valkey_url: str, name: str
) -> None:
    """The leases end by themselves meanwhile; else to close a hub would take seconds a portal."""

    class Silent(Engine):
        is_silent = False
        releases = 0

        async def run(self, script: Script, *rest: Any) -> Any:
            if self.is_silent:
                self.releases += script.name == "release"
                await asyncio.sleep(0.2)
                raise EngineUnavailable("it does not answer in time")
            return await super().run(script, *rest)

    engine = Silent(valkey_url)
    async with worker(ValkeyCluster(engine, name=name, lease_s=1.0), "one") as one:
        await until(lambda: len(one.leases) == len(PORTALS))
        engine.is_silent = True
        leases = list(one.leases.values())
        one.leases.clear()
        await asyncio.gather(*map(one.membership.release, leases))
        assert engine.releases < 10
        engine.is_silent = False
