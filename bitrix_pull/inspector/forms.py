"""The page's forms: what they hold, and how they are answered."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, TypeVar, cast

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from bitrix_pull.errors import InvalidArgument, PullError
from bitrix_pull.redaction import one_line

OrderT = TypeVar("OrderT", bound=BaseModel)


class Order(BaseModel):
    """What a form holds; unknown fields are refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


def read_params(text: str) -> dict[str, Any]:
    """Return params as they were typed.

    Raises:
        InvalidArgument: They are no JSON object.
    """
    try:
        params = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        where = f": {error}" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidArgument(f"the params are no JSON{where}") from None
    if not isinstance(params, dict):
        raise InvalidArgument("the params must be a JSON object", advice='Write them like {"id": 7}.')
    return cast("dict[str, Any]", params)


def read_users(text: str) -> list[int]:
    """Return user ids as they were typed.

    Raises:
        InvalidArgument: They are none.
    """
    parts = [part for part in re.split(r"[\s,;]+", text) if part]
    if not parts or not all(re.fullmatch(r"[0-9]{1,18}", part) for part in parts):
        raise InvalidArgument("these are no user ids", advice="Write them like 1, 5.")
    return [int(part) for part in parts]


def answering(
    kind: type[OrderT], act: Callable[[OrderT], Awaitable[Mapping[str, Any]]]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return a handler: a form in, an answer or the words of an error out."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.content_type != "application/json":
            return as_json({"error": "Send JSON."}, 415)
        try:
            return as_json(await act(kind.model_validate_json(await request.read())))
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
            return as_json({"error": f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"}, 422)
        except PullError as error:
            return as_json({"error": one_line(str(error))}, 422)

    return handle


def as_json(value: Mapping[str, Any], status: int = 200) -> web.Response:
    """Return an answer."""
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")
