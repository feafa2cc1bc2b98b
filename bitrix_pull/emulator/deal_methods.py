"""REST methods of deals, in as much as events about them need it."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from bitrix_pull.emulator.paging import Page
from bitrix_pull.emulator.portal import Portal
from bitrix_pull.emulator.rest_caller import Caller, Method
from bitrix_pull.emulator.rest_errors import RestError

Params = Mapping[str, Any]


def _add(portal: Portal, caller: Caller, params: Params) -> Any:
    return portal.deals.add(_fields(params))


def _get(portal: Portal, caller: Caller, params: Params) -> Any:
    return portal.deals.get(_id(params))


def _update(portal: Portal, caller: Caller, params: Params) -> Any:
    portal.deals.update(_id(params), _fields(params))
    return True


def _delete(portal: Portal, caller: Caller, params: Params) -> Any:
    portal.deals.delete(_id(params))
    return True


def _list(portal: Portal, caller: Caller, params: Params) -> Any:
    """List deals by id; conditions are ``FIELD`` or ``=FIELD``, and ``>ID``."""
    wanted: Any = params.get("filter") or {}
    deals = portal.deals.all()
    for name, value in wanted.items():
        if name == ">ID":
            deals = [deal for deal in deals if int(deal["ID"]) > int(value)]
        else:
            deals = [deal for deal in deals if deal.get(name.removeprefix("=").upper()) == str(value)]
    page = Page.of(deals, params.get("start", 0))
    fields = {str(field).upper() for field in cast("list[object]", params.get("select") or [])}
    if not fields or "*" in fields:
        return page
    shown = [{name: value for name, value in deal.items() if name in {*fields, "ID"}} for deal in page.items]
    return Page(shown, page.total, page.next)


def _id(params: Params) -> int:
    try:
        return int(str(params.get("id")))
    except ValueError:
        raise RestError(400, "", "ID is not defined or invalid.") from None


def _fields(params: Params) -> Mapping[str, Any]:
    fields = params.get("fields")
    if not isinstance(fields, dict):
        raise RestError(400, "", "Parameter 'fields' must be array.")
    return cast("dict[str, Any]", fields)


def _method(call: Callable[[Portal, Caller, Params], Any]) -> Method:
    def called(portal: Portal, caller: Caller, params: Params) -> Any:
        try:
            return call(portal, caller, {name.lower(): value for name, value in params.items()})
        except KeyError:
            raise RestError(400, "", "Not found") from None

    return Method(called, "crm")


DEAL_METHODS: Mapping[str, Method] = {
    "crm.deal.add": _method(_add),
    "crm.deal.get": _method(_get),
    "crm.deal.update": _method(_update),
    "crm.deal.delete": _method(_delete),
    "crm.deal.list": _method(_list),
}
