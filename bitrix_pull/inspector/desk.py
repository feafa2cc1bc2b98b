"""What the page's buttons do."""

import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Final, Literal, TypeVar, cast

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from bitrix_pull.client import PullClient
from bitrix_pull.errors import InvalidArgument, PullError
from bitrix_pull.inspector.shown import shown_value, written
from bitrix_pull.inspector.snippet import write_test
from bitrix_pull.inspector.watcher import Watcher
from bitrix_pull.publish.publisher import Route
from bitrix_pull.redaction import one_line
from bitrix_pull.wire.messages import is_object

_RECORDS_MAX: Final = 500
_RECORDS_SHOWN: Final = 50

Answer = Awaitable[Mapping[str, Any]]
OrderT = TypeVar("OrderT", bound=BaseModel)


class _Order(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


class PublishOrder(_Order):
    """What the form for publishing holds."""

    command: str
    params: str = "{}"
    module: str = "application"
    to: Literal["everybody", "myself", "users"] = "everybody"
    users: str = ""
    route: Route = "auto"


class OnlineOrder(_Order):
    """What the form for presence holds."""

    users: str


class DiagnosisOrder(_Order):
    """What the doctor may do."""

    publish: bool = False


class Desk:
    """Does what the page asks for, with the client that is watched."""

    def __init__(self, pull: PullClient, watcher: Watcher) -> None:
        """Work for a client."""
        self._pull = pull
        self._watcher = watcher

    def add_routes(self, app: web.Application) -> None:
        """Serve its paths."""
        app.router.add_post("/publish", _answering(PublishOrder, self._publish))
        app.router.add_post("/online", _answering(OnlineOrder, self._online))
        app.router.add_post("/queue", _answering(_Order, self._queue))
        app.router.add_post("/diagnose", _answering(DiagnosisOrder, self._diagnose))
        app.router.add_get(r"/events/{number:\d{1,18}}/test", self._test)

    async def _publish(self, order: PublishOrder) -> Mapping[str, Any]:
        began = time.monotonic()
        receipt = await self._pull.publish(
            order.command,
            _params(order.params),
            module=order.module,
            users=_users(order.users) if order.to == "users" else None,
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
        known = await self._pull.online(_users(order.users))
        return {
            "users": [
                {"id": user, "online": presence.online, "last_seen_s": presence.last_seen_s}
                for user, presence in sorted(known.items())
            ]
        }

    async def _queue(self, order: _Order) -> Mapping[str, Any]:
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
        entry = self._watcher.events.entry(int(request.match_info["number"]))
        if entry is None:
            return _json({"error": "This event is too old: it is not kept any more."}, 410)
        return _json({"test": write_test(orjson.loads(entry))})


def _standing(record: Mapping[str, Any]) -> str:
    if str(record.get("ERROR") or "0") not in ("0", "N"):
        return "failed"
    return "reserved" if record.get("PROCESS_ID") else "waiting"


def _params(text: str) -> dict[str, Any]:
    try:
        params = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        where = f": {error}" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidArgument(f"the params are no JSON{where}") from None
    if not isinstance(params, dict):
        raise InvalidArgument("the params must be a JSON object", advice='Write them like {"id": 7}.')
    return cast("dict[str, Any]", params)


def _users(text: str) -> list[int]:
    parts = [part for part in re.split(r"[\s,;]+", text) if part]
    if not parts or not all(re.fullmatch(r"[0-9]{1,18}", part) for part in parts):
        raise InvalidArgument("these are no user ids", advice="Write them like 1, 5.")
    return [int(part) for part in parts]


def _answering(
    kind: type[OrderT], act: Callable[[OrderT], Answer]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return a handler: a form in, an answer or the words of an error out."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.content_type != "application/json":
            return _json({"error": "Send JSON."}, 415)
        try:
            return _json(await act(kind.model_validate_json(await request.read())))
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
            return _json({"error": f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"}, 422)
        except PullError as error:
            return _json({"error": one_line(str(error))}, 422)

    return handle


def _json(value: Mapping[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")
