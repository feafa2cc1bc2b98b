"""Several calls in one request: the REST method ``batch``, and lists that come in pages."""

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import quote_plus

from bitrix_pull.errors import InvalidArgument, NotAPortal, PortalError
from bitrix_pull.portal.answers import refusal
from bitrix_pull.portal.rest import RestClient, check_method, check_params
from bitrix_pull.wire.json_text import encode_json
from bitrix_pull.wire.messages import is_object

BATCH = "batch"
BATCH_MAX = 50
"""Calls in one batch; the portal takes no more."""

PAGE_SIZE = 50
"""Rows on a page of any list of the portal's."""

Call = tuple[str, Mapping[str, Any]]


async def call_batch(
    rest: RestClient,
    calls: Iterable[Call],
    common: Mapping[str, Any] = {},
    *,
    timeout_s: float | None = None,
) -> list[Any]:
    """Make up to 50 calls in one request, one after the other.

    Args:
        rest: Calls the portal.
        calls: Method and parameters of each; a parameter that is None is left out.
        common: Parameters of the batch itself.
        timeout_s: Deadline over everything; None: that of the options.

    Returns:
        Of each call, in order, what stands under ``result``, or the error.

    Raises:
        InvalidArgument: They are too many, or one of them cannot be sent; nothing was.
        PullError: The batch as a whole failed, as any call may.
    """
    commands = {str(index): _command(*_pair(each)) for index, each in enumerate(calls)}
    if len(commands) > BATCH_MAX:
        raise InvalidArgument(f"a batch holds {BATCH_MAX} calls at most, not {len(commands)}")
    if not commands:
        return []
    answer = await rest.call(BATCH, {"halt": 0, "cmd": commands, **common}, timeout_s=timeout_s)
    if not is_object(answer):
        raise NotAPortal(f"{BATCH}: the answer is no map", method=BATCH)
    results, errors = _by_key(answer.get("result")), _by_key(answer.get("result_error"))
    return [
        _result(results, errors, key, command.partition("?")[0], rest.secrets)
        for key, command in commands.items()
    ]


def _result(
    results: Mapping[str, Any],
    errors: Mapping[str, Any],
    key: str,
    method: str,
    secrets: Iterable[str],
) -> Any:
    if key in errors:
        return refusal(errors[key], method, secrets)
    if key in results:
        return results[key]
    return PortalError(f"{method}: the portal did not answer this call of the batch", method=method)


def _by_key(value: Any) -> Mapping[str, Any]:
    """Read a map, which PHP writes as a list where its keys are 0, 1, 2 and so on."""
    if isinstance(value, list):
        return {str(index): item for index, item in enumerate(cast("list[object]", value))}
    return value if is_object(value) else {}


def _pair(each: object) -> Call:
    if not isinstance(each, tuple | list) or len(pair := cast("Sequence[Any]", each)) != 2:
        raise InvalidArgument('calls must be pairs of method and params, as in [("crm.deal.get", {"id": 7})]')
    return pair[0], check_params(pair[1])


def _command(method: str, params: Mapping[str, Any]) -> str:
    check_method(method)
    # Refuses what JSON cannot hold either, and gives dates and the like the same form.
    plain = json.loads(encode_json(params))
    pairs = [f"{quote_plus(name)}={quote_plus(value)}" for name, value in _fields(plain)]
    return f"{method}?{'&'.join(pairs)}" if pairs else method


def _fields(params: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yield parameters as PHP reads them from a query: ``filter[=ID]`` for what is nested."""
    for key, value in params.items():
        name = f"{prefix}[{key}]" if prefix else str(key)
        match value:
            case None:
                pass
            case bool():
                yield name, "1" if value else "0"
            case Mapping():
                yield from _fields(cast("Mapping[str, Any]", value), name)
            case list() | tuple():
                items = enumerate(cast("Sequence[Any]", value))
                yield from _fields({str(index): item for index, item in items}, name)
            case _:
                yield name, str(value)


async def pages(
    rest: RestClient, method: str, params: Mapping[str, Any], *, timeout_s: float | None = None
) -> AsyncIterator[Sequence[Any]]:
    """Yield the rows of a list, page by page, as ``next`` says.

    A list by itself, or the only one in a map, as ``tasks.task.list`` answers.

    Raises:
        InvalidArgument: The method answers no list.
        PullError: As any call may.
    """
    start: int | None = None
    while True:
        page = await rest.ask(
            method, params if start is None else {**params, "start": start}, timeout_s=timeout_s
        )
        rows = _rows(page.result)
        if rows is None:
            raise InvalidArgument(f"{method} answers no list", advice="Use call() for it.")
        yield rows
        following = page.next
        if following is None and not rest.sees_whole_answers and len(rows) >= PAGE_SIZE:
            following = (start or 0) + PAGE_SIZE
        if following is None:
            return
        if following <= (start or 0):
            raise NotAPortal(f"{method}: the next page would begin where this one does", method=method)
        start = following


def _rows(result: Any) -> Sequence[Any] | None:
    inside: list[object] = list(result.values()) if is_object(result) else [result]
    lists = [cast("list[object]", value) for value in inside if isinstance(value, list)]
    return lists[0] if len(lists) == 1 else None
