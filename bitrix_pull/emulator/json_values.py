"""JSON that keeps integers of any size, which orjson alone does not."""

import json
from typing import Any

import orjson

from bitrix_pull.wire.json_text import encode_json


def loads(text: bytes | str) -> Any:
    """Read JSON.

    Raises:
        orjson.JSONDecodeError: It is none, or holds a lone surrogate.
    """
    # The stricter of the two decides what is JSON, the exact one what it says.
    orjson.loads(text)
    return json.loads(text)


def dumps(value: Any) -> bytes:
    """Write JSON."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return encode_json(value)
