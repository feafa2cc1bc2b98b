"""REST methods of the portal's own events: what can be bound, what is queued (protocol §10)."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from bitrix_pull.emulator import rest_errors
from bitrix_pull.emulator.offline_queue import (
    EVENTS,
    GET_FIELDS,
    LIST_FIELDS,
    Record,
    Selection,
    WrongSelection,
)
from bitrix_pull.emulator.paging import PAGE_SIZE, Page
from bitrix_pull.emulator.portal import Portal
from bitrix_pull.emulator.rest_caller import Caller, Method
from bitrix_pull.emulator.rest_errors import RestError

Params = Mapping[str, Any]


def _events(portal: Portal, caller: Caller, params: Params) -> Any:
    """List what the application may bind, or the events of one scope, or all."""
    _check_application(caller)
    if "scope" in params:
        scopes = {params["scope"]}
    elif params.get("full"):
        scopes = set(EVENTS.values())
    else:
        scopes = {*portal.application_scope, ""}
    return [name for name, scope in EVENTS.items() if scope in scopes]


def _bind(portal: Portal, caller: Caller, params: Params) -> Any:
    name = _offline_event(portal, caller, params)
    scope = EVENTS.get(name)
    if scope is None or scope not in {*portal.application_scope, ""}:
        raise RestError(*rest_errors.EVENT_NOT_FOUND)
    if name == "ONOFFLINEEVENT":
        raise RestError(*rest_errors.EVENT_NOT_OFFLINE)
    binding = (name, caller.connector)
    if binding in portal.offline.bindings:
        raise RestError(*rest_errors.ALREADY_BOUND)
    portal.offline.bindings.append(binding)
    return True


def _unbind(portal: Portal, caller: Caller, params: Params) -> Any:
    binding = (_offline_event(portal, caller, params), caller.connector)
    count = portal.offline.bindings.count(binding)
    if count:
        portal.offline.bindings.remove(binding)
    return {"count": count}


def _offline_event(portal: Portal, caller: Caller, params: Params) -> str:
    """Return the event that a call is about; only offline handlers are modelled."""
    _check_application(caller)
    name = str(params.get("event", "")).upper()
    if not name:
        raise _argument("Argument 'EVENT' is null or empty")
    if str(params.get("event_type", "online")).lower() != "offline":
        raise _argument("Value must be one of {online|offline}")
    if caller.user_id not in portal.admins:
        raise RestError(*rest_errors.OFFLINE_BINDING_ACCESS)
    return name


def _bindings(portal: Portal, caller: Caller, params: Params) -> Any:
    _check_application(caller)
    if caller.user_id not in portal.admins:
        return []
    return [
        {"event": name, "connector_id": connector, "offline": 1}
        for name, connector in portal.offline.bindings
    ]


def _list(portal: Portal, caller: Caller, params: Params) -> Any:
    _check_administrator(portal, caller)
    selection = _selection(params, "ID", LIST_FIELDS)
    page = Page.of(selection.of(portal.offline.of(caller.connector)), params.get("start", 0))
    shown = [
        {**_shown(portal, row), "PROCESS_ID": row.process_id, "ERROR": str(int(row.failed))}
        for row in page.items
    ]
    return Page(shown, page.total, page.next)


def _get(portal: Portal, caller: Caller, params: Params) -> Any:
    """Take records, or show again those of a process.

    A process is taken at its word, an empty one too: that shows what waits, and with
    ``clear`` deletes all that waits, asked for or not.
    """
    _check_administrator(portal, caller)
    clear = _integer(params.get("clear", 1)) != 0
    if not clear and portal.features.get("rest_offline_extended") == "N":
        raise RestError(*rest_errors.NO_RESERVATION)
    limit = _integer(params.get("limit", PAGE_SIZE))
    if limit <= 0:
        raise _argument("Value must be positive integer")
    selection = _selection(params, "TIMESTAMP_X", GET_FIELDS)
    failed = _integer(params.get("error", 0)) == 1
    queue = portal.offline
    process_id = params.get("process_id")
    told = process_id is not None or not clear

    def taken(process: str) -> list[Record]:
        rows = [
            row for row in queue.of(caller.connector) if row.process_id == process and row.failed is failed
        ]
        return selection.of(rows)[:limit]

    if process_id is None:
        process_id = queue.reserve(taken(""))
    process_id = str(process_id).strip()
    shown = [_shown(portal, row) for row in taken(process_id)]
    if clear and shown:
        queue.delete([row for row in queue.of(caller.connector) if row.process_id == process_id])
    return {"process_id": process_id if told else None, "events": shown}


def _clear(portal: Portal, caller: Caller, params: Params) -> Any:
    _check_administrator(portal, caller)
    process_id = _process_id(params)
    rows = [row for row in portal.offline.of(caller.connector) if row.process_id == process_id]
    if "message_id" in params:
        named = _message_ids(params)
        if any(len(message_id) != 32 for message_id in named):
            raise _argument("Value must be array of MESSAGE_ID values")
        rows = [row for row in rows if row.message_id in named]
    elif "id" in params:
        ids = params["id"]
        if not isinstance(ids, list) or any(_integer(row_id) <= 0 for row_id in cast("list[object]", ids)):
            raise _argument("Value must be array of integers")
        numbers = {_integer(row_id) for row_id in cast("list[object]", ids)}
        rows = [row for row in rows if row.id in numbers]
    portal.offline.delete(rows)
    return True


def _error(portal: Portal, caller: Caller, params: Params) -> Any:
    _check_administrator(portal, caller)
    process_id = _process_id(params)
    if not portal.offline.fail(process_id, _message_ids(params), caller.connector):
        raise RestError(*rest_errors.INTERNAL)
    return True


def _feature(portal: Portal, caller: Caller, params: Params) -> Any:
    code = str(params.get("code", ""))
    if not code:
        raise _argument("Argument 'CODE' is null or empty")
    return {"value": portal.features.get(code, "N")}


def _process_id(params: Params) -> str:
    if params.get("process_id") is None:
        raise _argument("Argument 'PROCESS_ID' is null or empty")
    return str(params["process_id"]).strip()


def _message_ids(params: Params) -> list[str]:
    named = params.get("message_id")
    if not isinstance(named, list):
        raise _argument("Value must be array of MESSAGE_ID values")
    return [str(message_id).strip() for message_id in cast("list[object]", named)]


def _selection(params: Params, default_order: str, fields: tuple[str, ...]) -> Selection:
    try:
        return Selection.read(params.get("filter", []), params.get("order", []), default_order, fields)
    except WrongSelection as error:
        raise _argument(str(error)) from None


def _shown(portal: Portal, row: Record) -> dict[str, Any]:
    return {
        "ID": str(row.id),
        "TIMESTAMP_X": portal.atom(row.changed_at),
        "EVENT_NAME": row.name,
        "EVENT_DATA": row.data,
        "EVENT_ADDITIONAL": False if row.user_id is None else {"user_id": str(row.user_id)},
        "MESSAGE_ID": row.message_id,
    }


def _check_application(caller: Caller) -> None:
    if caller.credentials != "application":
        raise RestError(*rest_errors.AUTH_TYPE_DENIED)


def _check_administrator(portal: Portal, caller: Caller) -> None:
    _check_application(caller)
    if caller.user_id not in portal.admins:
        raise RestError(*rest_errors.ACCESS_DENIED)


def _argument(description: str) -> RestError:
    return RestError(400, "ERROR_ARGUMENT", description)


def _integer(value: object) -> int:
    """Read a number as PHP's ``intval`` does."""
    try:
        return int(str(value))
    except ValueError:
        return 0


def _in_any_case(call: Callable[[Portal, Caller, Params], Any]) -> Method:
    """Return a method that takes the names of its parameters in any case."""
    return Method(
        lambda portal, caller, params: call(
            portal, caller, {name.lower(): value for name, value in params.items()}
        )
    )


EVENT_METHODS: Mapping[str, Method] = {
    "events": _in_any_case(_events),
    "event.bind": _in_any_case(_bind),
    "event.unbind": _in_any_case(_unbind),
    "event.get": _in_any_case(_bindings),
    "event.offline.list": _in_any_case(_list),
    "event.offline.get": _in_any_case(_get),
    "event.offline.clear": _in_any_case(_clear),
    "event.offline.error": _in_any_case(_error),
    "feature.get": _in_any_case(_feature),
}
