"""The portal's queue of its own events, and which of them the application has bound (protocol §10).

It behaves as the table behind it does: one row for each message, connector and process, so
a change finds the row that waits and moves its time. A row that is marked as failed waits
too, as its process is taken off it: later changes go into it, and it stays failed.
"""

import hashlib
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter, eq, ge, gt, le, lt
from typing import Any, cast

from bitrix_pull.emulator import json_values
from bitrix_pull.emulator.php import as_php_writes

EVENTS: Mapping[str, str] = {
    **{
        f"ONCRM{entity}{verb}": "crm"
        for entity in ("LEAD", "DEAL", "CONTACT", "COMPANY", "ACTIVITY", "DYNAMICITEM", "TIMELINECOMMENT")
        for verb in ("ADD", "UPDATE", "DELETE")
    },
    **{f"ONTASK{what}{verb}": "task" for what in ("", "COMMENT") for verb in ("ADD", "UPDATE", "DELETE")},
    **dict.fromkeys(("ONVOXIMPLANTCALLINIT", "ONVOXIMPLANTCALLSTART", "ONVOXIMPLANTCALLEND"), "telephony"),
    "ONUSERADD": "user",
    "ONAPPUNINSTALL": "",
    "ONAPPUPDATE": "",
    "ONOFFLINEEVENT": "",
}
"""The events of the portal, and the scope that each needs."""

_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "": eq,
    "=": eq,
    ">=": ge,
    "<=": le,
    ">": gt,
    "<": lt,
}
_CONDITION = re.compile(r"([^A-Za-z]*)([A-Za-z_]+)")


_Key = tuple[str, str, str]


class WrongSelection(Exception):  # noqa: N818 - what is wrong with the request, in the portal's words
    """A filter or order that the portal does not take."""


@dataclass(slots=True)
class Record:
    """One row.

    Attributes:
        id: Its number.
        changed_at: When its message was queued last: whole seconds (unix).
        name: The event.
        data: What the event says.
        user_id: Who did it, if anybody.
        message_id: What name and data come to.
        connector: Whose queue it is in.
        process_id: Under which it is reserved; "" while it waits.
        failed: True once it was marked so.
    """

    id: int
    changed_at: int
    name: str
    data: Any
    user_id: int | None
    message_id: str
    connector: str
    process_id: str = ""
    failed: bool = False

    @property
    def key(self) -> "_Key":
        """What no two rows have in common."""
        return self.message_id, self.connector, self.process_id


_FIELDS: Mapping[str, tuple[Callable[[Record], Any], Callable[[Any], Any]]] = {
    "ID": (attrgetter("id"), int),
    "TIMESTAMP_X": (attrgetter("changed_at"), lambda value: int(datetime.fromisoformat(value).timestamp())),
    "EVENT_NAME": (attrgetter("name"), str),
    "MESSAGE_ID": (attrgetter("message_id"), str),
    "PROCESS_ID": (attrgetter("process_id"), str),
    "ERROR": (attrgetter("failed"), int),
}
"""What can be asked for: how it is read from a record, and from a filter."""

GET_FIELDS = ("ID", "TIMESTAMP_X", "EVENT_NAME", "MESSAGE_ID")
LIST_FIELDS = (*GET_FIELDS, "PROCESS_ID", "ERROR")


@dataclass(slots=True, frozen=True)
class Selection:
    """Which records, and in which order.

    Attributes:
        conditions: All of them must hold.
        order: Field and whether the greatest comes first.
    """

    conditions: Sequence[Callable[[Record], bool]]
    order: Sequence[tuple[Callable[[Record], Any], bool]]

    @classmethod
    def read(cls, filtered: object, order: object, default_order: str, fields: Sequence[str]) -> "Selection":
        """Read ``filter`` and ``order`` of a call.

        Raises:
            WrongSelection: One of them names what cannot be asked for.
        """
        conditions = [_condition(name, value, fields) for name, value in _array("filter", filtered).items()]
        directions = _array("order", order) or {default_order: "ASC"}
        return cls(conditions, [_direction(name, way, fields) for name, way in directions.items()])

    def of(self, records: Iterable[Record]) -> list[Record]:
        """Return those that are meant."""
        found = [record for record in records if all(holds(record) for holds in self.conditions)]
        # Rows that are equal in it come in the order of their numbers.
        found.sort(key=attrgetter("id"))
        for key, descending in reversed(self.order):
            found.sort(key=key, reverse=descending)
        return found


def _array(what: str, value: object) -> Mapping[str, object]:
    """Return an array of PHP's with names as keys, of which an empty one is a list in JSON."""
    if value == []:
        return {}
    if not isinstance(value, dict):
        raise WrongSelection(f"The {what} is not an array.")
    return {str(name): item for name, item in cast("dict[object, object]", value).items()}


def _condition(name: str, value: object, fields: Sequence[str]) -> Callable[[Record], bool]:
    match = _CONDITION.fullmatch(name)
    if match is None or match[2] not in fields:
        raise WrongSelection(f"Filter field not allowed: {name}")
    compare = _OPERATORS.get(match[1])
    if compare is None:
        raise WrongSelection(f"Filter operation not allowed: {match[1]}")
    if isinstance(value, dict | list):
        raise WrongSelection(f"The value of an argument '{name}' has an invalid type")
    of_record, read = _FIELDS[match[2]]
    try:
        wanted = read(value)
    except (TypeError, ValueError):
        raise WrongSelection(f"The value of an argument '{name}' has an invalid type") from None
    return lambda record: compare(of_record(record), wanted)


def _direction(name: str, way: object, fields: Sequence[str]) -> tuple[Callable[[Record], Any], bool]:
    if name not in fields:
        raise WrongSelection(f"Order field not allowed: {name}")
    if str(way).upper() not in ("ASC", "DESC"):
        raise WrongSelection("Order direction should be one of {ASC|DESC}")
    return _FIELDS[name][0], str(way).upper() == "DESC"


class OfflineQueue:
    """The queue of one application.

    Attributes:
        bindings: Event and connector of each offline handler, in the order of binding.
        created: How many records there have been: changes of what waited made none.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Create an empty queue of a portal with this clock."""
        self.bindings: list[tuple[str, str]] = []
        self._clock = clock
        self._rows: dict[_Key, Record] = {}
        self.created: int = 0

    @property
    def records(self) -> list[Record]:
        """All records, by number."""
        return sorted(self._rows.values(), key=attrgetter("id"))

    def add(self, name: str, data: object, user_id: int | None, connector: str) -> None:
        """Queue a message, or move the time of the one that waits."""
        message_id = hashlib.md5(name.encode() + b"|" + json_values.dumps(data)).hexdigest()
        now = int(self._clock())
        waiting = self._rows.get((message_id, connector, ""))
        if waiting is not None:
            waiting.changed_at, waiting.user_id = now, user_id
            return
        self.created += 1
        row = Record(self.created, now, name, as_php_writes(data), user_id, message_id, connector)
        self._rows[row.key] = row

    def of(self, connector: str) -> list[Record]:
        """Return the records of a connector's queue."""
        return [record for record in self._rows.values() if record.connector == connector]

    def reserve(self, records: Iterable[Record]) -> str:
        """Put records under a new process, and return its id."""
        process_id = secrets.token_hex(16)
        for record in records:
            self._move(record, process_id)
        return process_id

    def delete(self, records: Iterable[Record]) -> None:
        """Delete records."""
        for record in records:
            del self._rows[record.key]

    def fail(self, process_id: str, message_ids: Iterable[str], connector: str) -> bool:
        """Mark the records of a process as failed; return False where the database refuses.

        What else is queued of the same messages is deleted, reserved or not: the portal does so.
        """
        named = set(message_ids)
        rows = [row for row in self.of(connector) if row.message_id in named and not row.failed]
        self.delete(row for row in rows if row.process_id != process_id)
        for row in rows:
            if row.process_id == process_id:
                if process_id and (row.message_id, connector, "") in self._rows:
                    return False  # Two rows with one key.
                self._move(row, "")
                row.failed = True
        return True

    def _move(self, record: Record, process_id: str) -> None:
        del self._rows[record.key]
        record.process_id = process_id
        self._rows[record.key] = record
