"""What the buttons of a hub's page do."""

import time
from collections.abc import Mapping
from typing import Any, Final, Literal

import orjson
from aiohttp import web
from pydantic import Field

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.hub.valkey import Engine, ValkeyPublisher
from bitrix_pull.inspector.forms import Order, answering, as_json, read_params, read_users
from bitrix_pull.inspector.hub_watcher import HubWatcher, number_of
from bitrix_pull.inspector.snippet import write_test
from bitrix_pull.publish.publisher import Route
from bitrix_pull.redaction import one_line

_PORTALS_SHOWN: Final = 200
_WORKERS_SHOWN: Final = 200
_ASKED_FOR_S: Final = 15.0
"""Within which a hub must come to publish what the page asks for."""


class HubPublishOrder(Order):
    """What the form for publishing holds."""

    portal: str = Field(min_length=1)
    command: str
    params: str = "{}"
    module: str = "application"
    to: Literal["everybody", "users"] = "everybody"
    users: str = ""
    route: Route = "auto"


class PortalsOrder(Order):
    """Which portals to show."""

    text: str = ""
    wrong: bool = False


class HubDesk:
    """Does what the page asks for, with what the engine tells; publishing is asked of the hubs."""

    def __init__(self, engine: Engine, name: str, shards: int, watcher: HubWatcher) -> None:
        """Work beside the hubs of an engine."""
        self._engine = engine
        self._name = name
        self._shards = shards
        self._watcher = watcher

    def add_routes(self, app: web.Application) -> None:
        """Serve its paths."""
        app.router.add_post("/publish", answering(HubPublishOrder, self._publish))
        app.router.add_post("/cluster", answering(Order, self._cluster))
        app.router.add_post("/portals", answering(PortalsOrder, self._portals))
        app.router.add_get(r"/events/{number:\d{1,18}}/test", self._test)

    async def _publish(self, order: HubPublishOrder) -> Mapping[str, Any]:
        began = time.monotonic()
        async with ValkeyPublisher(self._engine, name=self._name, shards=self._shards) as publisher:
            answer = await publisher.publish(
                order.portal,
                order.command,
                read_params(order.params),
                module=order.module,
                users=read_users(order.users) if order.to == "users" else None,
                route=order.route,
                expires_in_s=_ASKED_FOR_S,
            )
        if answer.outcome == "refused":
            raise InvalidArgument(f"it was not published: {answer.error or 'no reason is told'}")
        return {
            "outcome": answer.outcome,
            "told": one_line(answer.error),
            "route": answer.route,
            "confirmed": answer.confirmed,
            "took_s": time.monotonic() - began,
        }

    async def _cluster(self, order: Order) -> Mapping[str, Any]:
        """Tell of workers, and of who reads the log."""
        status = self._watcher.status
        workers = () if status is None else status.workers
        return {
            "known": status is not None,
            "more": max(len(workers) - _WORKERS_SHOWN, 0),
            "workers": [
                {
                    "name": one_line(worker.name),
                    "leaving": worker.leaving,
                    "expires_in_s": round(worker.expires_in_s, 1),
                    "portals": worker.portals,
                    "live": number_of(worker, "live"),
                    "waiting_bytes": number_of(worker, "waiting_bytes"),
                }
                for worker in workers[:_WORKERS_SHOWN]
            ],
            "groups": [
                {
                    "name": one_line(group.group),
                    "stream": group.stream,
                    "behind": group.behind,
                    "length": group.length,
                    "lost": group.lost,
                    "endangered": group.endangered,
                }
                for group in self._watcher.groups
            ],
        }

    async def _portals(self, order: PortalsOrder) -> Mapping[str, Any]:
        """Tell of portals: those first that have failed, and then those that nobody has."""
        status = self._watcher.status
        if status is None:
            return {"known": False, "portals": [], "count": 0}
        failed, owners, text = self._watcher.failed, status.owners, order.text.strip().lower()
        found = [
            (0 if key in failed else 2 if key in owners else 1, key)
            for key in status.epochs.keys() | owners.keys()
            if text in key.lower() or text in owners.get(key, "").lower()
        ]
        if order.wrong:
            found = [(rank, key) for rank, key in found if rank < 2]
        return {
            "known": True,
            "count": len(found),
            "portals": [
                {
                    "key": one_line(key),
                    "worker": one_line(owners.get(key, "")),
                    "epoch": status.epochs.get(key, 0),
                    "error": failed.get(key, ""),
                }
                for _, key in sorted(found)[:_PORTALS_SHOWN]
            ],
        }

    async def _test(self, request: web.Request) -> web.StreamResponse:
        entry = self._watcher.tapes.events.entry(int(request.match_info["number"]))
        if entry is None:
            return as_json({"error": "This event is too old: it is not kept any more."}, 410)
        event = orjson.loads(entry)
        if event["kind"] == "portal":
            return as_json({"error": "Only messages can be written as a test."}, 422)
        return as_json({"test": write_test(event)})
