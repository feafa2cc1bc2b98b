"""A hub with handlers, in a process of its own: ``python -m tests.soak.hub_worker ORDER``.

It writes a JSON line for each event that is handed on: portal, number, epoch of its lease, when.
"""

import asyncio
import contextlib
import json
import logging
import sys
import time
from typing import Any

from bitrix_pull import Hub, OAuth, Portal, PullError, PullEvent
from bitrix_pull.hub.postgres import PostgresStore
from bitrix_pull.hub.valkey import Engine, ValkeyCluster, ValkeyResumeStore, ValkeyTokenStore

_CALL_EVERY = 5
"""How many events a call takes, so that tokens are refreshed all the time."""


class ValkeyStores(ValkeyResumeStore):
    """Both kinds of stores, on one engine."""

    def __init__(self, url: str, name: str) -> None:
        self._shared = Engine(url, timeout_s=1.0)
        super().__init__(self._shared, name=name)
        self._called = name

    def tokens(self, key: str) -> ValkeyTokenStore:
        """Return where a portal's tokens are."""
        return ValkeyTokenStore(self._shared, key, name=self._called)


def stores(url: str, postgres: str, name: str) -> ValkeyStores | PostgresStore:
    """Return where resume points and tokens are kept: in PostgreSQL where there is one."""
    return PostgresStore(postgres, schema=name) if postgres else ValkeyStores(url, name)


async def main(order: dict[str, Any]) -> None:
    """Serve until killed."""
    name, lease_s = order["name"], order["lease_s"]
    kept = stores(order["url"], order["postgres"], name)
    hub = Hub(
        [
            Portal(
                key,
                OAuth(
                    url,
                    client_id=client_id,
                    client_secret=secret,
                    oauth_url=f"{url}/oauth/token/",
                    tokens=kept.tokens(key),
                ),
            )
            for key, url, client_id, secret in order["portals"]
        ],
        cluster=ValkeyCluster(order["url"], name=name, lease_s=lease_s, settle_s=lease_s / 2),
        resume=kept,
        worker=order["worker"],
    )

    @hub.on("numbered")
    async def hand(event: PullEvent) -> None:
        at = time.time()
        epoch = next(each.epoch for each in hub.list() if each.key == event.portal)
        sys.stdout.write(json.dumps([event.portal, event.params["n"], epoch, at]) + "\n")
        sys.stdout.flush()
        if event.params["n"] % _CALL_EVERY == 0:
            with contextlib.suppress(PullError):
                await event.client.call("server.time")

    while True:
        with contextlib.suppress(PullError):
            await hub.run()
        await asyncio.sleep(0.2)


if __name__ == "__main__":
    # What befalls it is on purpose.
    logging.disable(logging.CRITICAL)
    asyncio.run(main(json.loads(sys.argv[1])))
