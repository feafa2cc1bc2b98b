"""Habits of PHP that show in what a portal takes and gives."""

import re
from collections.abc import Iterable
from typing import Any, cast

_BRACKETS = re.compile(r"\[([^\]]*)\]")


class _Fields(dict[str, Any]):
    """A level of brackets while it is being filled."""


def as_php_writes(value: Any) -> Any:
    """Return JSON as it looks after a way through PHP's arrays.

    PHP has one type for lists and maps: a map with the keys 0, 1, 2, … comes out as a
    list, and so does an empty one (protocol §2).
    """
    if isinstance(value, dict):
        items = {str(key): as_php_writes(item) for key, item in cast("dict[object, object]", value).items()}
        if list(items) == [str(index) for index in range(len(items))]:
            return list(items.values())
        return items
    if isinstance(value, list):
        return [as_php_writes(item) for item in cast("list[object]", value)]
    return value


def read_form(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Read form fields: ``A=1``, ``USERS[]=5`` and ``PARAMS[order][id]=7`` alike."""
    fields = _Fields()
    for name, value in pairs:
        first, bracket, rest = name.partition("[")
        keys = [first, *_BRACKETS.findall(bracket + rest)]
        place = fields
        for key in keys[:-1]:
            inner = place.get(key or str(len(place)))
            if not isinstance(inner, _Fields):
                inner = place[key or str(len(place))] = _Fields()
            place = inner
        place[keys[-1] or str(len(place))] = value
    return {name: as_php_writes(value) for name, value in fields.items()}
