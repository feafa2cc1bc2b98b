"""What the page's buttons do."""

import time
from collections.abc import Mapping
from typing import Any, Final, Literal, cast

import orjson
from aiohttp import web

from bitrix_pull.client import PullClient
from bitrix_pull.inspector.forms import Order, answering, as_json, read_params, read_users
from bitrix_pull.inspector.shown import shown_value, written
from bitrix_pull.inspector.snippet import write_test
from bitrix_pull.inspector.tape import Tapes
from bitrix_pull.publish.publisher import Route
from bitrix_pull.redaction import one_line
from bitrix_pull.wire.messages import is_object

_RECORDS_MAX: Final = 500
_RECORDS_SHOWN: Final = 50


class PublishOrder(Order):
    """What the form for publishing holds."""

    command: str
    params: str = "{}"
    module: str = "application"
    to: Literal["everybody", "myself", "users"] = "everybody"
    users: str = ""
    route: Route = "auto"


class OnlineOrder(Order):
    """What the form for presence holds."""

    users: str


class DiagnosisOrder(Order):
    """What the doctor may do."""

    publish: bool = False


class Desk:
    """Does what the page asks for, with the client that is watched."""

    def __init__(self, pull: PullClient, tapes: Tapes) -> None:
        """Work for a client."""
        self._pull = pull
        self._tapes = tapes

    def add_routes(self, app: web.Application) -> None:
        """Serve its paths."""
        app.router.add_post("/publish", answering(PublishOrder, self._publish))
        app.router.add_post("/online", answering(OnlineOrder, self._online))
        app.router.add_post("/queue", answering(Order, self._queue))
        app.router.add_post("/diagnose", answering(DiagnosisOrder, self._diagnose))
        app.router.add_get(r"/events/{number:\d{1,18}}/test", self._test)

    async def _publish(self, order: PublishOrder) -> Mapping[str, Any]:
        began = time.monotonic()
        receipt = await self._pull.publish(
            order.command,
            read_params(order.params),
            module=order.module,
            users=read_users(order.users) if order.to == "users" else None,
            to_self=order.to == "myself",
            route=order.route,
        )
        return {
            "route": receipt.route,
            "messages": receipt.messages,
            "confirmed": receipt.confirmed,
            "took_s": time.monotonic() - began,
        }

    async def _online(self, order: OnlineOrder) -> Mapping[str, Any]:
        known = await self._pull.online(read_users(order.users))
        return {
            "users": [
                {"id": user, "online": presence.online, "last_seen_s": presence.last_seen_s}
                for user, presence in sorted(known.items())
            ]
        }

    async def _queue(self, order: Order) -> Mapping[str, Any]:
        """Look at the offline queue, and change nothing there (protocol §10)."""
        handlers = await self._pull.call("event.get")
        bound = [
            {"event": str(each.get("event", "")), "connector": str(each.get("connector_id") or "")}
            for each in (cast("list[object]", handlers) if isinstance(handlers, list) else [])
            if is_object(each) and str(each.get("offline")) == "1"
        ]
        records: list[Mapping[str, Any]] = []
        async for record in self._pull.fetch_all("event.offline.list", {"order": {"ID": "DESC"}}):
            if is_object(record):
                records.append(record)
            if len(records) > _RECORDS_MAX:
                break
        standings = [_standing(record) for record in records[:_RECORDS_MAX]]
        return {
            "bound": bound,
            "counts": {name: standings.count(name) for name in ("waiting", "reserved", "failed")},
            "more": len(records) > _RECORDS_MAX,
            "records": [
                {
                    "id": str(record.get("ID", "")),
                    "event": one_line(str(record.get("EVENT_NAME", ""))),
                    "changed_at": one_line(str(record.get("TIMESTAMP_X", ""))),
                    "standing": _standing(record),
                    "data": written(shown_value(record.get("EVENT_DATA"))),
                }
                for record in records[:_RECORDS_SHOWN]
            ],
        }

    async def _diagnose(self, order: DiagnosisOrder) -> Mapping[str, Any]:
        diagnosis = (await self._pull.diagnose(publish=order.publish)).as_json()
        findings = [
            {**finding, "told": one_line(finding["told"]), "advice": one_line(finding["advice"])}
            for finding in diagnosis["findings"]
        ]
        return {"level": diagnosis["level"], "findings": findings}

    async def _test(self, request: web.Request) -> web.StreamResponse:
        entry = self._tapes.events.entry(int(request.match_info["number"]))
        if entry is None:
            return as_json({"error": "This event is too old: it is not kept any more."}, 410)
        return as_json({"test": write_test(orjson.loads(entry))})


def _standing(record: Mapping[str, Any]) -> str:
    if str(record.get("ERROR") or "0") not in ("0", "N"):
        return "failed"
    return "reserved" if record.get("PROCESS_ID") else "waiting"
