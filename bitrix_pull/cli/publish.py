"""``bitrix-pull publish``: one event."""

import contextlib
import json
import sys
from typing import Any, NoReturn, cast

import orjson

from bitrix_pull.cli.account import Account
from bitrix_pull.cli.credentials import credentials_of, options_of
from bitrix_pull.cli.output import people_console
from bitrix_pull.cli.streams import write_line
from bitrix_pull.client import PullClient
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.publish.publisher import Route
from bitrix_pull.publish.receipt import Receipt


async def publish(
    account: Account,
    command: str,
    params: str,
    *,
    users: list[int] | None,
    channels: list[str] | None,
    to_self: bool,
    module: str,
    route: Route,
    as_json: bool,
) -> None:
    """Publish an event and print the receipt."""
    content = read_params(_from_stdin() if params == "-" else params)
    pull = PullClient(credentials_of(account), options=options_of(account))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(pull.close)
        if route == "socket":
            await stack.enter_async_context(pull)
        receipt = await pull.publish(
            command, content, module=module, users=users, channels=channels, to_self=to_self, route=route
        )
    if as_json:
        write_line(orjson.dumps({name: getattr(receipt, name) for name in _FIELDS}))
    else:
        people_console().print(_told(command, receipt))


def _from_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidArgument("what stands on stdin is not UTF-8") from None


def read_params(text: str) -> dict[str, Any]:
    """Read the text of ``--params``.

    Raises:
        InvalidArgument: It is no JSON, or no object.
    """
    try:
        params = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise InvalidArgument(
            f"--params is no JSON: {error.msg} at {where}", advice="""Write it like '{"id": 7}'."""
        ) from None
    except RecursionError:
        raise InvalidArgument("--params is nested too deeply") from None
    except InvalidArgument:
        raise
    except ValueError:
        raise InvalidArgument("--params holds a number with too many digits") from None
    if not isinstance(params, dict):
        raise InvalidArgument("--params must be a JSON object", advice="""Write it like '{"id": 7}'.""")
    return cast("dict[str, Any]", params)


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidArgument(f"--params is no JSON: {name} is no JSON number")


_FIELDS = ("route", "messages", "requests", "confirmed")

_WAYS = {"rest": "REST", "endpoint": "the push server's endpoint", "socket": "the open socket"}


def _told(command: str, receipt: Receipt) -> str:
    requests = f" in {receipt.requests} requests" if receipt.requests > 1 else ""
    outcome = "it was accepted" if receipt.confirmed else "this way is never confirmed"
    return f"published {command} by {_WAYS[receipt.route]}{requests}; {outcome}"
