"""JSON as it is sent."""

import json
from collections.abc import Mapping
from typing import Any, cast

from bitrix_pull.errors import InvalidArgument


def encode_json(value: Any, what: str = "the params") -> bytes:
    """Write a value as compact UTF-8 JSON.

    The standard encoder rather than orjson's: it takes integers of any size, and refuses
    NaN where orjson writes ``null``.

    Args:
        value: Mappings, lists, tuples, strings, numbers, booleans and None.
        what: What it is to the caller; opens the error text.

    Raises:
        InvalidArgument: The value is no JSON, or holds a lone surrogate, which the portal
            would answer with "Wrong authorization data" (protocol §2).
    """
    try:
        return _encoder.encode(value).encode()
    except UnicodeEncodeError:
        # The cause holds the whole text.
        raise InvalidArgument(f"{what} hold half a character (a lone surrogate)") from None
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{what} are no JSON: {error}") from error
    except RecursionError:
        raise InvalidArgument(f"{what} are nested too deeply") from None


def _as_dict(value: object) -> dict[Any, Any]:
    """Take a mapping that is no dict, which the encoder does not know, for one."""
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    raise TypeError(f"{type(value).__name__} is no JSON type")


_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_as_dict)
