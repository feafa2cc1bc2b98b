"""JSON as it is sent and received."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any, cast
from uuid import UUID

import orjson

from bitrix_pull.errors import InvalidArgument

Parse = Callable[[bytes], Any]

_LONG = 19
"""Digits from which on an integer may not fit into 64 bits with a sign."""

_TOO_LONG = 4_300
"""Digits beyond which an integer is not read: that takes time with their square."""

_KINDS = bytes(
    ord("1") if byte in b"0123456789" else ord(":") if byte in b":,[- \t\r\n" else 0 for byte in range(256)
)
"""Makes every digit a 1, and a colon of whatever may stand before a number in JSON."""

_LONG_INTEGER = b":" + b"1" * _LONG
"""It stands behind one of those marks. A string of digits, as every mid is one, does not."""

_SHORT = 2 * 1024
"""Up to here a message is short: looking at every ninth character saves nothing."""

_BLOCK = 512
"""How much to look at closely where some of those are digits."""


def parser_for(text: bytes, message_bytes: int, *, mids: bool = True) -> Parse:
    """Return what parses JSON, or all the JSON in a frame, with integers of any size exactly.

    That is orjson, unless there may be an integer that it would round to a float. The
    parser raises ValueError for what is no JSON, and for what it cannot read exactly.

    Args:
        text: The JSON, or the frame that holds it.
        message_bytes: About how long one message in it is. Only speed depends on this and
            the next.
        mids: Whether the ids of messages stand in it as digits.
    """
    if message_bytes > _SHORT:
        found = _has_long_integer(text, step=9)
    elif not mids:
        found = _has_long_integer(text, step=4)
    else:
        found = _LONG_INTEGER in (b":" + text).translate(_KINDS)
    return _parse_exactly if found else orjson.loads


def _has_long_integer(text: bytes, step: int) -> bool:
    """Tell whether there is an integer that may not fit into 64 bits.

    Looks at every so many characters, and closely only where as many in a row are digits as
    any such integer has among them. Other digits in a row so cost more, though never much.
    """
    sample = text[::step].translate(_KINDS)
    digits = b"1" * (_LONG // step)
    at = sample.find(digits)
    while at >= 0:
        # The integer begins behind the character before in the sample.
        start = (at - 1) * step
        block = text[start : start + _BLOCK + _LONG] if at else b":" + text[: _BLOCK + _LONG]
        if _LONG_INTEGER in block.translate(_KINDS):
            return True
        at = sample.find(digits, (max(start, 0) + _BLOCK) // step)
    return False


class TooLong:
    """Stands where an integer was that is too long to be read."""


def parse_leniently(text: bytes) -> Any:
    """Parse JSON that holds integers of any size; a ``TooLong`` takes the place of the longest.

    Raises:
        ValueError: It is no JSON, by the strict measure of orjson, or nested too deeply.
    """
    try:
        content = json.loads(
            text.decode(), parse_int=_integer, parse_float=_finite, parse_constant=_refuse_constant
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if b"\\ud" in text or b"\\uD" in text:
        # Half a character cannot be written as UTF-8.
        json.dumps(content, ensure_ascii=False, default=repr).encode()
    return content


def has_too_long(value: object) -> bool:
    """Tell whether there is a ``TooLong`` somewhere in a value."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            left.extend(cast("dict[str, object]", item).values())
        elif isinstance(item, list):
            left.extend(cast("list[object]", item))
        elif isinstance(item, TooLong):
            return True
    return False


def _parse_exactly(text: bytes) -> Any:
    content = parse_leniently(text)
    if has_too_long(content):
        raise ValueError("an integer in it has too many digits")
    return content


def _integer(digits: str) -> int | TooLong:
    return int(digits) if len(digits) <= _TOO_LONG else TooLong()


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number in it is too large")
    return number


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def encode_json(value: Any, what: str = "the params") -> bytes:
    """Write a value as compact UTF-8 JSON.

    The standard encoder rather than orjson's: it takes integers of any size, and refuses
    NaN where orjson writes ``null``.

    Args:
        value: Mappings, lists, tuples, strings, integers of any size, floats, booleans, None;
            dates and times (ISO 8601), UUIDs and enums (their values) as orjson writes them, a
            Decimal as text with all its digits, dataclasses and pydantic models as maps.
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


def as_json_value(value: object) -> Any:
    """Return what stands in JSON for a value that the encoder does not know.

    Raises:
        TypeError: Nothing does.
    """
    match value:
        case Mapping():
            return dict(cast("Mapping[object, object]", value))
        case datetime() | date() | time():
            return value.isoformat()
        case UUID():
            return str(value)
        case Decimal() if value.is_finite():
            # As a number it would be rounded where it is read.
            return str(value)
        case Enum():
            return value.value
        case _ if (serializer := getattr(type(value), "__pydantic_serializer__", None)) is not None:
            return serializer.to_python(value, mode="json")
        case _ if is_dataclass(value) and not isinstance(value, type):
            names = (item.name for item in fields(value) if not item.name.startswith("_"))
            return {name: getattr(value, name) for name in names}
        case _:
            raise TypeError(f"{type(value).__name__} is no JSON type")


_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=as_json_value)
