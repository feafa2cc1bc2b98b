"""The fields of a portal's answers, in all the ways that portals write the same thing (protocol §2).

That is ``[]``, ``false``, ``""`` or null for what is not there, ``"Y"`` or 1 for true, numbers as
text, a list for a map. Every field may be missing, and unknown ones are ignored.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final, cast

from bitrix_pull.wire.messages import is_nothing

MAP_MAX: Final = 10_000
"""Entries of one map at most: each takes a kilobyte."""

PROBLEMS_MAX: Final = 100
"""Malformed fields up to which the first is named."""

_NUMBER_END = 2**63
"""From where on other programs cannot read a number."""

_INTEGER = re.compile(r"([+-]?[0-9]{1,400})(?:\.0{1,20})?")
_UNIX_TIME = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{1,20})?")
_MILLISECONDS_FROM = 2e10
_FLAGS = {
    **dict.fromkeys(("1", "on", "t", "true", "y", "yes"), True),
    **dict.fromkeys(("", "0", "off", "f", "false", "n", "no"), False),
}
_NAME = re.compile(r"[A-Za-z_]{1,24}|[0-9]{1,20}")


class Problems:
    """What of an answer is malformed. Its texts name places and hold none of what stands there."""

    def __init__(self) -> None:
        """Begin without any."""
        self._first = ""
        self._count = 0

    def note(self, place: tuple[str, ...], what: str) -> None:
        """Take note of one more."""
        self._count += 1
        if not self._first:
            # What is neither a field's name nor a user id may be anything, a channel id too.
            named = ".".join(name if _NAME.fullmatch(name) else "…" for name in place)
            self._first = f"{named or 'result'}: {what}"

    def __str__(self) -> str:
        """Say where; nothing if there is none."""
        if self._count > PROBLEMS_MAX:
            return f"in {self._count} places"
        more = f" and {self._count - 1} more" if self._count > 1 else ""
        return f"at {self._first}{more}" if self._first else ""


class Fields:
    """A map of an answer, to be read field by field. What is malformed is noted, and counts as missing."""

    def __init__(self, value: object, problems: Problems, place: tuple[str, ...] = ()) -> None:
        """Read what should be a map.

        Args:
            value: What stands there.
            problems: Takes note of what is malformed.
            place: Where it stands, by the names of the fields around it.
        """
        self._problems = problems
        self._place = place
        self._fields: Mapping[object, object] = {}
        if isinstance(value, Mapping):
            self._fields = cast("Mapping[object, object]", value)
        elif not is_nothing(value):
            problems.note(place, "Input should be a valid dictionary")

    def text(self, *names: str) -> str:
        """Return the first of these fields that holds a text; "" if none does."""
        name, value = self._first(names)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        if value is not None and not isinstance(value, str):
            self._wrong(name, "Input should be a valid string")
            return ""
        return value or ""

    def number(self, name: str) -> int:
        """Return a number of 64 bits; 0 if there is none."""
        _, value = self._first((name,))
        if value is None:
            return 0
        number = _number(value, self._problems, (*self._place, name))
        return 0 if number is None else number

    def flag(self, name: str, *, default: bool) -> bool:
        """Return a yes or no."""
        value = self._fields.get(name)
        if value in (None, [], {}):
            return default
        if isinstance(value, int | float) and value in (0, 1):
            return bool(value)
        flag = _FLAGS.get(value.lower()) if isinstance(value, str) else None
        if flag is None:
            self._wrong(name, "Input should be a valid boolean")
        return default if flag is None else flag

    def time(self, name: str) -> datetime | None:
        """Return a moment, written as ATOM or unix time; None if it is not set."""
        _, value = self._first((name,))
        if not value:
            return None
        moment = _moment(value)
        if moment is None:
            self._wrong(name, "Input should be a valid datetime")
        elif moment.tzinfo is None:
            self._wrong(name, "Input should have timezone info")
            return None
        return moment

    def map(self, name: str) -> "Fields":
        """Return a map within this one."""
        return Fields(self._fields.get(name), self._problems, (*self._place, name))

    def numbered(self, name: str) -> "Iterator[tuple[int, Fields]]":
        """Yield the maps within one whose names are numbers; see ``numbered``."""
        return numbered(self._fields.get(name), self._problems, (*self._place, name))

    def _first(self, names: tuple[str, ...]) -> tuple[str, object]:
        """Return the first of these fields that holds something, and what; None if none does."""
        for name in names:
            if not is_nothing(value := self._fields.get(name)):
                return name, value
        return names[0], None

    def _wrong(self, name: str, what: str) -> None:
        self._problems.note((*self._place, name), what)


def numbered(value: object, problems: Problems, place: tuple[str, ...] = ()) -> Iterator[tuple[int, Fields]]:
    """Yield the maps within one whose names are numbers, by these; arguments as ``Fields`` has them."""
    if isinstance(value, list):
        # PHP writes a map with the names 0, 1, … so.
        value = dict(enumerate(cast("list[object]", value)))
    if not isinstance(value, Mapping):
        Fields(value, problems, place)
        return
    maps = cast("Mapping[object, object]", value)
    if len(maps) > MAP_MAX:
        problems.note(place, f"there are over {MAP_MAX} of them")
        return
    for name, inner in maps.items():
        if is_nothing(inner):
            continue
        at = (*place, str(name))
        number = _number(name, problems, at)
        fields = Fields(inner, problems, at)
        if number is not None:
            yield number, fields


def _number(value: object, problems: Problems, place: tuple[str, ...]) -> int | None:
    number: int | None = None
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        number = int(value)
    elif isinstance(value, str) and (written := _INTEGER.fullmatch(value.strip())):
        number = int(written[1])
    if number is None:
        problems.note(place, "Input should be a valid integer")
    elif not -_NUMBER_END <= number < _NUMBER_END:
        problems.note(place, f"Input should be less than {_NUMBER_END}")
        return None
    return number


def _moment(value: object) -> datetime | None:
    if isinstance(value, str) and _UNIX_TIME.fullmatch(value):
        value = float(value)
    try:
        if isinstance(value, str):
            return datetime.fromisoformat(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value / 1000 if abs(value) > _MILLISECONDS_FROM else value
            return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None
