"""``batch``: up to 50 calls in one request. References between them (``$result``) are not modelled."""

from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import parse_qsl

from bitrix_pull.emulator import rest_errors
from bitrix_pull.emulator.paging import Page
from bitrix_pull.emulator.php import as_php_writes, read_form
from bitrix_pull.emulator.rest_errors import RestError

BATCH = "batch"
MAX_COMMANDS = 50


def run_batch(params: Mapping[str, Any], call: Callable[[str, Mapping[str, Any]], Any]) -> Any:
    """Run the commands of ``cmd`` one after the other, and return what the portal answers.

    Args:
        params: Of the call: ``cmd``, a list or map of ``method?query``, and ``halt``.
        call: Calls a method.

    Raises:
        RestError: They are too many.
    """
    given: Any = params.get("cmd") or {}
    if isinstance(given, list):
        given = {str(index): command for index, command in enumerate(cast("list[object]", given))}
    commands: Mapping[str, Any] = given
    if len(commands) > MAX_COMMANDS:
        raise RestError(*rest_errors.BATCH_TOO_LONG)
    answer: dict[str, dict[str, Any]] = {
        kind: {} for kind in ("result", "result_error", "result_total", "result_next", "result_time")
    }
    for key, command in commands.items():
        method, _, query = str(command).partition("?")
        try:
            if method.lower() == BATCH:
                raise RestError(*rest_errors.NOT_IN_BATCH)
            result = call(method.lower(), read_form(parse_qsl(query, keep_blank_values=True)))
        except RestError as error:
            answer["result_error"][key] = {"error": error.code, "error_description": error.description}
            if str(params.get("halt", "0")) not in ("0", ""):
                break
            continue
        if isinstance(result, Page):
            answer["result_total"][key] = result.total
            if result.next is not None:
                answer["result_next"][key] = result.next
            result = result.items
        answer["result"][key] = result
    return {name: as_php_writes(found) for name, found in answer.items()}
