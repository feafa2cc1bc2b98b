"""Many portals behind one set of handlers, over real sockets."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bitrix_pull import (
    AccessToken,
    InvalidArgument,
    NotRunning,
    OAuth,
    PortalEvent,
    PullClient,
    PullError,
    PullEvent,
    PullOptions,
    Router,
)
from bitrix_pull.connection.stores import MemoryStore
from bitrix_pull.emulator import CloudPortal, EmulatedCloud
from bitrix_pull.events import StateChanged
from bitrix_pull.hub.cluster import Acquired, Lease, Lost, Membership, Recalled, SingleWorker
from bitrix_pull.hub.hub import Hub
from bitrix_pull.hub.notices import HubNotice, PortalFailed, PortalUninstalled
from bitrix_pull.hub.portals import Portal, PortalList
from bitrix_pull.hub.sqlite import SqlitePortals
from bitrix_pull.hub.valkey import ValkeyStream
from bitrix_pull.portal.tokens import Tokens


def of(portal: CloudPortal) -> Portal:
    return Portal(portal.member_id, AccessToken(portal.url, portal.token))


async def until(reached: Callable[[], object], timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not reached():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def live(hub: Hub, count: int) -> AsyncIterator[Hub]:
    async with hub.serving():
        await until(lambda: hub.health().live == count)
        yield hub


@asynccontextmanager
async def noting(hub: Hub) -> AsyncIterator[list[HubNotice]]:
    noted: list[HubNotice] = []

    async def note() -> None:
        async for notice in hub.notices():
            noted.append(notice)

    task = asyncio.create_task(note())
    await asyncio.sleep(0)
    try:
        yield noted
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_the_same_handlers_serve_every_portal() -> None:
    async with EmulatedCloud(5) as cloud:
        hub = Hub([of(portal) for portal in cloud.portals], context={"db": "the database"})
        got: list[tuple[str, Any, str]] = []
        router = Router()
        hub.include(router)

        @router.on("order_update")
        async def order(event: PullEvent, db: str) -> None:
            assert event.client is hub.client(event.portal)
            got.append((event.portal, event.params["id"], db))

        async with live(hub, 5):
            for number, portal in enumerate(cloud.portals):
                portal.send("order_update", {"id": number})
            await until(lambda: len(got) == 5)
        assert sorted(got) == sorted(
            (portal.member_id, number, "the database") for number, portal in enumerate(cloud.portals)
        )
        assert hub.health().served == 0
        assert not hub.health().alive
        assert cloud.push.connections == []


async def test_portal_events_come_by_their_portal() -> None:
    async with EmulatedCloud(3) as cloud:
        hub = Hub([of(portal) for portal in cloud.portals])
        got: list[tuple[str, int | None]] = []

        @hub.on_portal_event("ONCRMDEALUPDATE")
        async def deal(event: PortalEvent) -> None:
            got.append((event.portal, event.id))

        async with live(hub, 3):
            for number, portal in enumerate(cloud.portals):
                portal.change("ONCRMDEALUPDATE", {"FIELDS": {"ID": str(number + 1)}})
            await until(lambda: len(got) == 3)
        assert sorted(got) == sorted((each.member_id, n + 1) for n, each in enumerate(cloud.portals))


async def test_publishing_to_one_portal_of_many() -> None:
    async with EmulatedCloud(2) as cloud:
        hub = Hub([of(portal) for portal in cloud.portals])
        got: list[str] = []

        @hub.on("hello")
        async def hello(event: PullEvent) -> None:
            got.append(event.portal)

        async with live(hub, 2):
            await hub.client(cloud.portals[1].member_id).publish("hello")
            await until(lambda: got)
            assert got == [cloud.portals[1].member_id]
            with pytest.raises(InvalidArgument, match="no portal"):
                hub.client("nobody")
        with pytest.raises(NotRunning):
            hub.client(cloud.portals[1].member_id)


async def test_a_portal_that_fails_for_good_touches_no_other_and_is_tried_again() -> None:
    async with EmulatedCloud(3) as cloud:
        bad = cloud.portals[1]
        bad.application_scope.discard("pull")
        hub = Hub([of(portal) for portal in cloud.portals], retry_failed_s=0.2)
        async with noting(hub) as noted, live(hub, 2):
            await until(lambda: sum(isinstance(notice, PortalFailed) for notice in noted) >= 2)
            failed = [notice for notice in noted if isinstance(notice, PortalFailed)]
            assert {notice.portal for notice in failed} == {bad.member_id}
            assert [notice.attempts for notice in failed[:2]] == [1, 2]
            assert all(0.2 <= notice.retry_in_s <= 0.3 for notice in failed)
            (status,) = [each for each in hub.list() if each.key == bad.member_id]
            assert status.state in ("failed", "starting")
            others = {notice.portal for notice in noted if isinstance(notice, StateChanged)}
            assert others == {portal.member_id for portal in cloud.portals}
            bad.application_scope.add("pull")
            await until(lambda: hub.health().live == 3)
            assert hub.health().failed == {}


async def test_a_failed_portal_is_tried_at_once_when_told_to() -> None:
    async with EmulatedCloud(1) as cloud:
        (bad,) = cloud.portals
        bad.application_scope.discard("pull")
        hub = Hub([of(bad)])
        async with hub.serving():
            await until(lambda: hub.health().failed)
            assert "pull" in hub.health().failed[bad.member_id]
            bad.application_scope.add("pull")
            await hub.resume(bad.member_id)
            await until(lambda: hub.health().live == 1)


async def test_a_client_that_a_handler_closes_is_told_as_failed_and_begun_anew() -> None:
    async with EmulatedCloud(1) as cloud:
        (portal,) = cloud.portals
        hub = Hub([of(portal)], retry_failed_s=0.2)
        got: list[int] = []

        @hub.on("order", ack="on_receive")
        async def order(event: PullEvent) -> None:
            got.append(event.params["id"])
            if event.params["id"] == 1:
                await event.client.close()

        async with noting(hub) as noted, live(hub, 1):
            portal.send("order", {"id": 1})
            await until(lambda: any(isinstance(notice, PortalFailed) for notice in noted))
            await until(lambda: hub.health().live == 1)
            portal.send("order", {"id": 2})
            await until(lambda: got == [1, 2])
        (failed,) = (notice for notice in noted if isinstance(notice, PortalFailed))
        assert "hub.pause" in str(failed.error)


async def test_a_refused_grant_and_a_portal_that_is_gone_are_told_as_uninstalled() -> None:
    async with EmulatedCloud(2) as cloud:
        refused, deleted = cloud.portals
        deleted.faults.maintenance = "PORTAL_DELETED"
        tokens = Tokens(access_token="old", refresh_token="spent", expires=1.0)
        oauth = OAuth(
            refused.url,
            client_id=refused.client_id,
            client_secret=refused.client_secret,
            oauth_url=refused.oauth_url,
            tokens=tokens,
        )
        hub = Hub([Portal("refused", oauth), Portal("deleted", of(deleted).credentials)], retry_failed_s=0.05)
        async with noting(hub) as noted, hub.serving():
            both = {"refused", "deleted"}
            await until(
                lambda: {each.portal for each in noted if isinstance(each, PortalUninstalled)} == both
            )
        attempts = defaultdict[str, int](int)
        for notice in noted:
            if isinstance(notice, PortalFailed):
                attempts[notice.portal] = notice.attempts
            elif isinstance(notice, PortalUninstalled):
                assert attempts[notice.portal] >= (3 if notice.portal == "deleted" else 1)


async def test_an_uninstallation_is_told() -> None:
    async with EmulatedCloud(1) as cloud:
        hub = Hub([of(cloud.portals[0])])
        seen: list[str] = []

        @hub.on_portal_event("ONAPPUNINSTALL")
        async def uninstalled(event: PortalEvent) -> None:
            seen.append(event.portal)

        async with noting(hub) as noted, live(hub, 1):
            cloud.portals[0].change("ONAPPUNINSTALL")
            await until(lambda: seen)
            await until(lambda: PortalUninstalled(cloud.portals[0].member_id) in noted)


@pytest.mark.parametrize("kept", ["list", "sqlite"])
async def test_portals_come_and_go_while_it_runs(tmp_path: Path, kept: str) -> None:
    async with EmulatedCloud(3) as cloud:
        source = PortalList() if kept == "list" else SqlitePortals(tmp_path / "portals.db")
        hub = Hub(source)
        one, two, three = (portal.member_id for portal in cloud.portals)
        async with hub.serving():
            for portal in cloud.portals:
                await hub.add(of(portal))
            await until(lambda: hub.health().live == 3)
            await hub.pause(one)
            await until(lambda: hub.health().live == 2)
            await hub.remove(two)
            await until(lambda: hub.health().portals == 2)
            await until(lambda: hub.health().served == 1)
            assert {each.key: each.state for each in hub.list()} == {one: "paused", three: "live"}
            assert len(cloud.push.connections) == 1
            await hub.resume(one)
            await until(lambda: hub.health().live == 2)
            with pytest.raises(InvalidArgument, match="no portal"):
                await hub.remove(two)
        assert cloud.push.connections == []


async def test_new_credentials_take_the_place_of_the_old_ones() -> None:
    async with EmulatedCloud(1) as cloud:
        (portal,) = cloud.portals
        hub = Hub([Portal("acme", AccessToken(portal.url, "nonsense"))])
        async with hub.serving():
            await until(lambda: hub.health().failed)
            await hub.add(Portal("acme", AccessToken(portal.url, portal.token)))
            await until(lambda: hub.health().live == 1)


async def test_what_came_while_it_was_down_is_handled_after_the_restart(tmp_path: Path) -> None:
    async with EmulatedCloud(2) as cloud:
        got: list[tuple[str, int]] = []

        def hub() -> Hub:
            made = Hub(SqlitePortals(tmp_path / "portals.db"))

            @made.on("order")
            async def order(event: PullEvent) -> None:
                got.append((event.portal, event.params["id"]))

            return made

        first = hub()
        async with first.serving():
            for portal in cloud.portals:
                await first.add(of(portal))
            await until(lambda: first.health().live == 2)
            for portal in cloud.portals:
                portal.send("order", {"id": 1})
            await until(lambda: len(got) == 2)
        for portal in cloud.portals:
            portal.send("order", {"id": 2})
        async with live(hub(), 2):
            await until(lambda: len(got) == 4)
        assert sorted(got) == sorted((portal.member_id, n) for portal in cloud.portals for n in (1, 2))


async def test_closing_drains_what_was_received() -> None:
    async with EmulatedCloud(3) as cloud:
        hub = Hub([of(portal) for portal in cloud.portals])
        begun, done = [], []

        @hub.on("slow")
        async def slow(event: PullEvent) -> None:
            begun.append(event.portal)
            await asyncio.sleep(0.2)
            done.append(event.portal)

        async with live(hub, 3):
            for portal in cloud.portals:
                portal.send("slow")
            await until(lambda: len(begun) == 3)
        assert len(done) == 3


async def test_one_portals_storm_does_not_hold_up_the_others() -> None:
    """With 20,000 events of one portal waiting, that of another has its turn after some hundreds."""
    async with EmulatedCloud(2) as cloud:
        stormy, calm = cloud.portals
        cloud.push.gather_s = 0.0
        hub = Hub([of(portal) for portal in cloud.portals])
        handled: list[str] = []
        sent_at: list[int] = []
        gate = asyncio.Event()

        @hub.on("order")
        async def order(event: PullEvent) -> None:
            await gate.wait()
            end = time.perf_counter() + 2e-5  # What a handler does without waiting.
            while time.perf_counter() < end:
                pass
            handled.append(event.portal)

        async with live(hub, 2):
            for number in range(20_000):
                stormy.send("order", {"id": number})
                if number % 500 == 0:
                    await asyncio.sleep(0)
            await until(lambda: hub.client(stormy.member_id).health().waiting >= 5_000)
            calm.send("order", {"id": 1})
            await until(lambda: hub.client(calm.member_id).health().waiting == 1)
            sent_at.append(len(handled))
            gate.set()
            await until(lambda: calm.member_id in handled)
            before = handled.index(calm.member_id) - sent_at[0]
            assert before <= 500
            assert handled.count(stormy.member_id) < 20_000


async def test_a_storm_takes_no_more_than_its_share_of_the_room() -> None:
    async with EmulatedCloud(2) as cloud:
        stormy, calm = cloud.portals
        cloud.push.gather_s = 0.0
        hub = Hub([of(portal) for portal in cloud.portals], inbox_max_bytes=200_000)
        got: list[str] = []
        gate = asyncio.Event()

        @hub.on("big")
        async def big(event: PullEvent) -> None:
            await gate.wait()

        @hub.on("small")
        async def small(event: PullEvent) -> None:
            got.append(event.portal)

        async with live(hub, 2):
            for _ in range(100):
                stormy.send("big", {"text": "x" * 10_000})
                await asyncio.sleep(0)
            await until(lambda: hub.health().waiting_bytes >= 200_000)
            calm.send("small")
            await until(lambda: got == [calm.member_id])
            assert hub.health().waiting_bytes < 400_000
            gate.set()
            await until(lambda: hub.health().waiting_bytes == 0)


async def test_a_portal_that_is_served_no_more_leaves_its_room_to_the_others() -> None:
    async with EmulatedCloud(1) as cloud:
        portal = cloud.portals[0]
        hub = Hub([of(portal)], options=PullOptions(close_drain_s=0.01))

        @hub.on("big")
        async def big(event: PullEvent) -> None:
            await asyncio.Event().wait()

        async with live(hub, 1):
            portal.send("big", {"text": "x" * 10_000})
            await until(lambda: hub.health().waiting_bytes >= 10_000)
            await hub.pause(portal.member_id)
            await until(lambda: hub.health().served == 0)
            assert hub.health().waiting_bytes == 0


async def test_starts_are_never_faster_than_the_rate() -> None:
    async with EmulatedCloud(12) as cloud:
        hub = Hub([of(portal) for portal in cloud.portals], starts_per_s=20.0)
        async with live(hub, 12):
            starts = [entry.at for entry in cloud.journal.entries("subscribed")][:12]
        # Twelve starts at 20 a second take 11 twentieths at least, whatever the machine does.
        assert max(starts) - min(starts) >= 0.5


class Handed(SingleWorker):
    """A cluster that takes portals away when a test says so."""

    def __init__(self) -> None:
        self.changes = asyncio.Queue[Acquired | Recalled | Lost | InvalidArgument | None]()
        self.released: list[Lease] = []
        self.wanted: list[list[str]] = []

    @asynccontextmanager
    async def join(self, worker: str | None = None) -> AsyncIterator[Membership]:
        yield _Handed(self)


class _Handed:
    worker = "a worker"
    workers = 1
    leaving = False

    def __init__(self, cluster: Handed) -> None:
        self._cluster = cluster
        self._leases: list[Lease] = []

    def want(self, keys: Collection[str]) -> None:
        self._cluster.wanted.append(list(keys))

    async def changes(self) -> AsyncIterator[Acquired | Recalled | Lost]:
        while (change := await self._cluster.changes.get()) is not None:
            if isinstance(change, InvalidArgument):
                raise change
            if isinstance(change, Acquired):
                self._leases.append(change.lease)
            yield change

    async def release(self, lease: Lease) -> None:
        self._cluster.released.append(lease)
        self._leases.remove(lease)

    def leave(self) -> None:
        for lease in self._leases:
            self._cluster.changes.put_nowait(Recalled(lease))
        self._cluster.changes.put_nowait(None)

    def report(self, health: object) -> None: ...


async def test_a_cluster_is_told_once_of_a_burst_of_new_portals() -> None:
    cluster, keys = Handed(), [f"portal-{number}" for number in range(1000)]
    hub = Hub(cluster=cluster)
    async with hub.serving():
        for key in keys:
            await hub.add(Portal(key, AccessToken("portal.invalid", "token")))
        await until(lambda: cluster.wanted and cluster.wanted[-1] == keys)
        # At each call it gets them all: a call for each new one would be half a million keys.
        assert sum(map(len, cluster.wanted)) < 10_000
        await hub.remove(keys[0])
        await until(lambda: cluster.wanted[-1] == keys[1:])


async def test_a_portal_that_is_recalled_is_drained_and_then_released() -> None:
    async with EmulatedCloud(1) as cloud:
        cluster, done = Handed(), []
        key = cloud.portals[0].member_id
        hub = Hub([of(cloud.portals[0])], cluster=cluster)
        begun = asyncio.Event()

        @hub.on("slow")
        async def slow(event: PullEvent) -> None:
            begun.set()
            await asyncio.sleep(0.2)
            assert cluster.released == []
            done.append(event.portal)

        async with hub.serving():
            lease = Lease(key, "a", 1)
            cluster.changes.put_nowait(Acquired(lease))
            await until(lambda: hub.health().live == 1)
            cloud.portals[0].send("slow")
            await begun.wait()
            cluster.changes.put_nowait(Recalled(lease))
            await until(lambda: cluster.released == [lease])
            assert done == [key]
            assert [each.state for each in hub.list()] == ["elsewhere"]


async def test_a_worker_whose_lease_has_ended_hands_nothing_on() -> None:
    async with EmulatedCloud(1) as cloud:
        cluster, got = Handed(), []
        portal = cloud.portals[0]
        hub = Hub([of(portal)], cluster=cluster)

        @hub.on("order")
        async def order(event: PullEvent) -> None:
            got.append(event.params["id"])

        async with hub.serving():
            first = Lease(portal.member_id, "a", 1)
            cluster.changes.put_nowait(Acquired(first))
            await until(lambda: hub.health().live == 1)
            portal.send("order", {"id": 1})
            await until(lambda: got == [1])
            first.end()  # By its own clock; nobody has told yet.
            portal.send("order", {"id": 2})
            await until(lambda: hub.client(portal.member_id).health().waiting == 1)
            assert got == [1]
            cluster.changes.put_nowait(Lost(first))
            cluster.changes.put_nowait(Acquired(Lease(portal.member_id, "a", 2)))
            # It was not settled, so the next owner gets it.
            await until(lambda: got == [1, 2])
            assert cluster.released == []


@pytest.mark.parametrize("kind", ["stream", "portal"])
async def test_an_iterator_hands_nothing_on_once_the_lease_has_ended(kind: str) -> None:
    async with EmulatedCloud(1) as cloud:
        cluster, got = Handed(), list[str]()
        portal = cloud.portals[0]
        hub = Hub([of(portal)], cluster=cluster)

        def happen(id: str) -> None:
            if kind == "stream":
                portal.send("order", {"id": id})
            else:
                portal.change("ONCRMDEALADD", {"FIELDS": {"ID": id}})

        entered = asyncio.Event()

        async def iterate(client: PullClient) -> None:
            if kind == "stream":
                async with client.subscribe("order") as orders:
                    entered.set()
                    async for order in orders:
                        got.append(order.params["id"])
            else:
                async with client.portal_events("ONCRMDEALADD") as deals:
                    entered.set()
                    async for deal in deals:
                        got.append(str(deal.id))

        async with hub.serving():
            first = Lease(portal.member_id, "a", 1)
            cluster.changes.put_nowait(Acquired(first))
            await until(lambda: hub.health().live == 1)
            client = hub.client(portal.member_id)
            iterating = asyncio.create_task(iterate(client))
            await entered.wait()
            happen("1")
            await until(lambda: got == ["1"] and not portal.offline.records)
            received = client.health().received
            first.end()  # By its own clock; nobody has told yet.
            happen("2")
            if kind == "stream":
                await until(lambda: client.health().received > received)
            else:
                await until(lambda: any(record.process_id for record in portal.offline.records))
            await asyncio.sleep(0.1)
            assert got == ["1"]
            cluster.changes.put_nowait(Lost(first))
            await asyncio.wait_for(iterating, 30)
            # Nor is it at the end, and it is not taken out of the portal's queue: the next owner gets it.
            assert got == ["1"]
            assert len(portal.offline.records) == (kind == "portal")


class Store:
    """A token store of the user's own, which may be out of reach."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.cut_after_saves: int | None = None

    async def load(self) -> Tokens:
        self._check()
        return self.tokens

    async def save(self, tokens: Tokens) -> None:
        self._check()
        self.tokens = tokens
        if self.cut_after_saves is not None:
            self.cut_after_saves -= 1

    def _check(self) -> None:
        if self.cut_after_saves == 0:
            raise ConnectionError("out of reach")


def of_store(portal: CloudPortal, store: Store) -> OAuth:
    return OAuth(
        portal.url,
        client_id=portal.client_id,
        client_secret=portal.client_secret,
        oauth_url=portal.oauth_url,
        tokens=store,
    )


@pytest.mark.parametrize("how", ["goes on", "ends"])
async def test_new_tokens_are_stored_also_when_their_portal_has_gone_to_another_worker(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitrix_pull.hub.unsaved_tokens.STORE_AGAIN_S", 0.02 if how == "goes on" else 3600.0)
    async with EmulatedCloud(1) as cloud:
        (portal,) = cloud.portals
        store = Store(Tokens(access_token=portal.token, refresh_token=portal.refresh_token))
        auth = of_store(portal, store)
        cluster = Handed()
        hub = Hub([Portal(portal.member_id, auth)], cluster=cluster)
        async with hub.serving():
            lease = Lease(portal.member_id, "a", 1)
            cluster.changes.put_nowait(Acquired(lease))
            await until(lambda: hub.health().live == 1)
            # The first save shows that the store works; then the refresh token is spent.
            store.cut_after_saves = 1
            portal.expire_token(portal.token)
            with pytest.raises(PullError):
                await hub.client(portal.member_id).call("server.time")
            assert store.tokens.refresh_token == portal.refresh_token
            lease.end()
            cluster.changes.put_nowait(Lost(lease))
            await until(lambda: hub.health().served == 0)
            store.cut_after_saves = None
            if how == "goes on":
                await until(lambda: store.tokens.refresh_token != portal.refresh_token)
        assert store.tokens.refresh_token != portal.refresh_token
        assert [request.granted for request in portal.token_requests] == [True]


async def test_tokens_that_cannot_be_stored_in_the_end_are_told(caplog: pytest.LogCaptureFixture) -> None:
    async with EmulatedCloud(1) as cloud:
        (portal,) = cloud.portals
        store = Store(Tokens(access_token=portal.token, refresh_token=portal.refresh_token))
        auth = of_store(portal, store)
        async with live(Hub([Portal(portal.member_id, auth)]), 1) as hub:
            store.cut_after_saves = 1
            portal.expire_token(portal.token)
            with pytest.raises(PullError):
                await hub.client(portal.member_id).call("server.time")
        assert "authorise the application again" in caplog.text
        assert auth.unsaved


async def test_a_hub_cannot_run_twice_and_can_run_again() -> None:
    async with EmulatedCloud(1) as cloud:
        hub = Hub([of(cloud.portals[0])])
        for _ in range(2):
            async with live(hub, 1):
                with pytest.raises(RuntimeError, match="running already"):
                    await hub.run()


async def test_run_ends_when_closed_and_when_cancelled() -> None:
    async with EmulatedCloud(1) as cloud:
        hub = Hub([of(cloud.portals[0])])
        running = asyncio.create_task(hub.run())
        await until(lambda: hub.health().live == 1)
        await hub.close()
        await running
        running = asyncio.create_task(hub.run())
        await until(lambda: hub.health().live == 1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert cloud.push.connections == []


async def test_a_source_that_cannot_be_used_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be used"):
        await Hub(SqlitePortals(tmp_path / "nowhere" / "portals.db")).run()


@pytest.mark.parametrize(
    "arguments",
    [
        {"portals": ["acme"]},
        {"cluster": "redis://"},
        {"stream": "redis://"},
        {"stream": ValkeyStream("redis://127.0.0.1"), "resume": MemoryStore()},
        {"log_portal_events": ["ONCRMDEALADD"]},
        {"starts_per_s": 0},
        {"options": {}},
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        Hub(**arguments)


async def test_handlers_that_no_client_could_serve_fail_the_hub_at_once() -> None:
    """With the error of a client's start, whether or not there is a portal yet."""

    async def deal(event: PortalEvent, client: PullClient, db: str) -> None: ...

    def hub(**given: Any) -> Hub:
        made = Hub(**given)
        router = Router()
        router.on_portal_event("ONCRMDEALADD")(deal)
        made.include(router)
        return made

    client = PullClient(AccessToken("acme.bitrix24.com", "token"))
    client.on_portal_event("ONCRMDEALADD")(deal)
    with pytest.raises(InvalidArgument, match="deal asks for db, which nothing provides") as alone:
        await client.run()
    for run in (hub().run(), hub().serving().__aenter__()):
        with pytest.raises(InvalidArgument) as together:
            await run
        assert str(together.value) == str(alone.value)

    fine = hub(context={"db": "the database"})
    async with fine.serving():
        with pytest.raises(InvalidArgument, match="nothing provides"):

            @fine.on("order")
            async def order(event: PullEvent, pool: object) -> None: ...

        assert fine.health().alive
    fine.context = {"not a name": 1}
    with pytest.raises(InvalidArgument, match="names that an argument can have"):
        await fine.run()


async def test_its_end_can_be_waited_for() -> None:
    hub = Hub()
    async with hub.serving():
        waiting = asyncio.create_task(hub.wait_closed())
        await asyncio.sleep(0.05)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 30)

    cluster = Handed()
    cluster.changes.put_nowait(InvalidArgument("the cluster is no more"))
    hub = Hub(cluster=cluster)
    async with hub.serving():
        with pytest.raises(InvalidArgument, match="no more"):
            await hub.wait_closed()


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ([Portal("acme", AccessToken("acme.bitrix24.com", "token"))] * 2, "two portals have the key 'acme'"),
        (["acme"], "Wrong told str, not Portal"),
    ],
)
async def test_a_source_that_tells_what_cannot_be_fails_the_hub_at_once(told: list[Any], text: str) -> None:
    class Wrong(PortalList):
        async def portals(self) -> list[Any]:
            return told

    with pytest.raises(InvalidArgument, match=text):
        await Hub(Wrong()).run()


async def test_a_method_of_no_instance_fails_the_hub_at_once() -> None:
    class Bot:
        router = Router()

        @router.on("order")
        async def order(self, event: PullEvent) -> None: ...

    hub = Hub()
    hub.include(Bot.router)
    with pytest.raises(InvalidArgument, match="a method, and of no instance"):
        await hub.run()
