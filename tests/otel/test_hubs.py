"""A hub's figures: its clients' together, or each portal's, and who has which portal."""

from typing import Any

from bitrix_pull import PullEvent
from bitrix_pull.emulator import EmulatedCloud
from bitrix_pull.hub.cluster import Acquired, Lease, Lost, Recalled
from bitrix_pull.hub.hub import Hub
from bitrix_pull.telemetry import METRICS
from tests.hub.test_hub import Handed, live, of
from tests.otel.sdk import Sdk, until


async def test_portals_are_told_of_together_and_hubs_of_their_leases(sdk: Sdk) -> None:
    async with EmulatedCloud(3) as cloud:
        hub = Hub([of(portal) for portal in cloud.portals])
        sdk.telemetry().watch(hub)
        handled: list[str] = []

        @hub.on("x")
        async def handle(event: PullEvent[Any]) -> None:
            handled.append(event.portal)

        async with live(hub, 3):
            for portal in cloud.portals:
                portal.send("x")
            await until(lambda: len(handled) == 3)
            await hub.pause(cloud.portals[0].member_id)
            await until(lambda: hub.health().leases == 2)
            await until(lambda: hub.health().served == 2)
            points = sdk.points()
            assert points["messaging.client.consumed.messages"] == [
                ({"messaging.system": "bitrix24", "messaging.operation.name": "receive"}, 3)
            ]
            assert sdk.value("bitrix_pull.handler.calls") == 3
            assert sdk.value("bitrix_pull.live") == 2
            assert sdk.value("bitrix_pull.state", bitrix_pull__state="live") == 2
            assert sdk.value("bitrix_pull.hub.leases") == 2
            assert sdk.value("bitrix_pull.hub.leases.gained") == 3
            assert sdk.value("bitrix_pull.hub.leases.ended", bitrix_pull__cause="unwanted") == 1
            assert sdk.value("bitrix_pull.hub.workers") == 1
            assert sdk.value("bitrix_pull.hub.portals", bitrix_pull__portal__state="live") == 2
            assert sdk.value("bitrix_pull.hub.portals", bitrix_pull__portal__state="paused") == 1
            # However many portals there are, no figure is of one of them.
            assert not [has for values in points.values() for has, _ in values if "server.address" in has]
            for name in (name for name in METRICS if name.startswith("bitrix_pull.hub.")):
                own = {"messaging.system", *METRICS[name].attributes}
                assert all(set(has) == own for has, _ in points[name]), name
            await hub.resume(cloud.portals[0].member_id)
            await until(lambda: hub.health().live == 3)
            # The portal's new client goes on where the one before it ended.
            assert sdk.value("messaging.client.consumed.messages") == 3
        assert sdk.value("bitrix_pull.hub.leases.ended") == 4
        assert sdk.value("bitrix_pull.hub.leases.ended", bitrix_pull__cause="leaving") == 3


async def test_each_portal_can_be_told_of_on_its_own(sdk: Sdk) -> None:
    async with EmulatedCloud(2) as cloud:
        first, second = (portal.member_id for portal in cloud.portals)
        hub = Hub([of(portal) for portal in cloud.portals])
        sdk.telemetry().watch(hub, portals=True)

        def portals() -> set[str]:
            return {has["server.address"] for has, _ in sdk.points()["bitrix_pull.live"]}

        async with live(hub, 2):
            cloud.portals[1].send("x")
            await until(lambda: sdk.value("messaging.client.consumed.messages", server__address=second) == 1)
            assert sdk.value("messaging.client.consumed.messages", server__address=first) == 0
            assert portals() == {first, second}
            await hub.pause(first)
            await until(lambda: hub.health().served == 1)
            assert portals() == {second}
            assert sdk.value("bitrix_pull.hub.leases") == 1


async def test_leases_end_for_a_cause(sdk: Sdk) -> None:
    async with EmulatedCloud(1) as cloud:
        cluster, key = Handed(), cloud.portals[0].member_id
        hub = Hub([of(cloud.portals[0])], cluster=cluster)
        sdk.telemetry().watch(hub)
        async with hub.serving():
            for epoch, cause in enumerate(("fenced", "forgotten", "gone_back", "rebalanced"), 1):
                lease = Lease(key, "a", epoch)
                cluster.changes.put_nowait(Acquired(lease))
                await until(lambda: hub.health().live == 1)
                if cause == "rebalanced":
                    cluster.changes.put_nowait(Recalled(lease))
                else:
                    lease.end(cause)  # type: ignore[arg-type]
                    cluster.changes.put_nowait(Lost(lease))
                await until(lambda: hub.health().leases == 0)
                assert sdk.value("bitrix_pull.hub.leases.ended", bitrix_pull__cause=cause) == 1
            assert sdk.value("bitrix_pull.hub.leases.gained") == 4
