"""Hubs of an emulated cloud beside an engine of the tests' own, with their page."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from bitrix_pull import AccessToken
from bitrix_pull.emulator.cloud import CloudPortal, EmulatedCloud
from bitrix_pull.hub import Hub, Portal
from bitrix_pull.hub.valkey import ValkeyCluster, ValkeyStream
from bitrix_pull.inspector.hub import HubInspector
from tests.hub.engine import until

KEYS = ("acme", "beta", "gamma")


class Hubs:
    """Hubs that share three portals, and a page beside them.

    Attributes:
        inspector: The page.
        portals: The portals by key.
        hubs: The hubs.
    """

    def __init__(
        self, inspector: HubInspector, portals: Mapping[str, CloudPortal], hubs: Sequence[Hub]
    ) -> None:
        self.inspector = inspector
        self.portals = portals
        self.hubs = hubs

    def send(self, key: str, command: str, params: Any = None, **options: Any) -> None:
        self.portals[key].send(command, params, **options)


def hub_at(url: str, name: str, portals: Mapping[str, CloudPortal], worker: str, *, broken: str = "") -> Hub:
    """A hub; the token of one portal may be wrong."""
    return Hub(
        [
            Portal(key, AccessToken(portal.url, "of_nobody" if key == broken else portal.token))
            for key, portal in portals.items()
        ],
        cluster=ValkeyCluster(url, name=name, settle_s=0.2),
        stream=ValkeyStream(url, name=name),
        log_portal_events=["ONCRMDEALUPDATE"],
        worker=worker,
    )


@asynccontextmanager
async def hubs_beside(url: str, name: str, *workers: str, broken: str = "") -> AsyncGenerator[Hubs]:
    """Hubs that are live, but for a broken portal, and their page."""
    async with AsyncExitStack() as stack:
        cloud = await stack.enter_async_context(EmulatedCloud(len(KEYS)))
        cloud.push.gather_s = 0.02
        portals = dict(zip(KEYS, cloud.portals, strict=True))
        inspector = await stack.enter_async_context(HubInspector(url, name=name))
        hubs = [hub_at(url, name, portals, worker, broken=broken) for worker in workers]
        for hub in hubs:
            await stack.enter_async_context(hub.serving())
        await until(lambda: sum(hub.health().live for hub in hubs) == len(KEYS) - bool(broken))
        yield Hubs(inspector, portals, hubs)
