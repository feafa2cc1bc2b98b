"""A hub in a process of its own: ``python -m tests.soak.hub_worker ORDER``.

With "log" in its order, its portals, their tokens and the log are at the engine. Without, it has
handlers, and the portals that stand in the order: it writes a JSON line for each event that is
handed on: portal, number, epoch of its lease, when.
"""

import asyncio
import contextlib
import json
import logging
import random
import signal
import socket
import sys
import time
from typing import Any

from bitrix_pull import Hub, OAuth, Portal, PullError, PullEvent
from bitrix_pull.hub.postgres import PostgresStore
from bitrix_pull.hub.valkey import (
    Engine,
    ValkeyCluster,
    ValkeyPortals,
    ValkeyResumeStore,
    ValkeyStream,
    ValkeyTokenStore,
)
from bitrix_pull.program import collect_less_often

_CALL_EVERY = 5
"""How many events a call takes, so that tokens are refreshed all the time."""

real_time = time.time
real_getaddrinfo = socket.getaddrinfo


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


def _with_log(order: dict[str, Any], cluster: ValkeyCluster) -> Hub:
    url, name = order["url"], order["name"]
    return Hub(
        ValkeyPortals(url, name=name),
        cluster=cluster,
        stream=ValkeyStream(url, name=name, max_events=0),
        worker=order["worker"],
    )


def _with_handlers(order: dict[str, Any], cluster: ValkeyCluster) -> Hub:
    kept = stores(order["url"], order["postgres"], order["name"])
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
        cluster=cluster,
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

    return hub


async def main(order: dict[str, Any]) -> None:
    """Serve until killed, or told to leave by SIGTERM."""
    if "names_at" in order:
        _set_names(order["names_at"])
    if "clock_off_s" in order:
        _set_clock(order["clock_off_s"], random.Random(order["worker"]))
    lease_s = order["lease_s"]
    cluster = ValkeyCluster(order["url"], name=order["name"], lease_s=lease_s, settle_s=lease_s / 2)
    hub = (_with_log if order.get("log") else _with_handlers)(order, cluster)
    leaving = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leaving.set)
    serving = asyncio.create_task(_serve(hub))
    await leaving.wait()
    await hub.close()
    serving.cancel()


async def _serve(hub: Hub) -> None:
    while True:
        with contextlib.suppress(PullError):
            await hub.run()
        await asyncio.sleep(0.2)


def _set_names(address: str) -> None:
    """Let the names of the cloud lead to an address, as this machine's DNS would."""

    def getaddrinfo(host: Any, *about: Any, **more: Any) -> Any:
        return real_getaddrinfo(address if str(host).endswith(".localhost") else host, *about, **more)

    socket.getaddrinfo = getaddrinfo


def _set_clock(off_s: float, rng: random.Random) -> None:
    """Let this process's wall clock be wrong, and jump."""
    began = time.monotonic()
    jumps = [rng.uniform(-off_s, off_s) for _ in range(1000)]
    time.time = lambda: real_time() + jumps[int(time.monotonic() - began) % len(jumps)]


if __name__ == "__main__":
    # What befalls it is on purpose.
    logging.disable(logging.CRITICAL)
    collect_less_often()
    asyncio.run(main(json.loads(sys.argv[1])))
