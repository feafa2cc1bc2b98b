"""Records of the portal's offline queue, and the events that they become (protocol §10)."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bitrix_pull.events import PortalEvent
from bitrix_pull.wire.messages import is_object

_NUMBER = re.compile(r"[0-9]{1,18}")
_MESSAGE_ID = re.compile(r"[0-9a-zA-Z]{1,100}")
_ENTITIES = ("FIELDS", "FIELDS_AFTER", "FIELDS_BEFORE")


@dataclass(slots=True, frozen=True)
class Record:
    """One row of the queue.

    Attributes:
        id: Its number. It keeps it as long as it is there.
        message_id: What name and data come to.
        name: The event, in capitals.
        stamp: ``TIMESTAMP_X`` as the portal writes it: when it happened last.
        changed_at: The same as a time, or None where it cannot be read.
        data: ``EVENT_DATA`` as it came.
        user_id: Who did it.
        process_id: Under which it is reserved; "" while it waits.
        failed: True if it is marked so.
    """

    id: int
    message_id: str
    name: str
    stamp: str
    changed_at: datetime | None
    data: Any = field(repr=False)
    user_id: int | None
    process_id: str = ""
    failed: bool = False

    @property
    def version(self) -> tuple[int, str]:
        """What differs as soon as the record has changed, but for a change in the same second."""
        return self.id, self.stamp

    def event(self, connector: str) -> PortalEvent[Any]:
        """Return the event that it is about."""
        data: Any = self.data or {}
        fields = data.get("FIELDS") if is_object(data) else None
        return PortalEvent(
            name=self.name,
            data=data,
            fields=fields if is_object(fields) else {},
            id=_entity_id(data),
            user_id=self.user_id,
            changed_at=self.changed_at,
            message_id=self.message_id,
            connector=connector,
            record_id=self.id,
        )


def read_record(value: object, process_id: str | None = None) -> Record | None:
    """Read a record of ``event.offline.get`` or ``event.offline.list``; None if it is none.

    Args:
        value: What stands in the list.
        process_id: Under which it was taken, where the record does not say itself.
    """
    if not is_object(value):
        return None
    record_id, name, message_id = _number(value.get("ID")), value.get("EVENT_NAME"), value.get("MESSAGE_ID")
    if record_id is None or not isinstance(name, str) or not name:
        return None
    if not isinstance(message_id, str) or not _MESSAGE_ID.fullmatch(message_id):
        return None
    stamp = value.get("TIMESTAMP_X")
    reserved_by = process_id if process_id is not None else value.get("PROCESS_ID")
    additional = value.get("EVENT_ADDITIONAL")
    return Record(
        id=record_id,
        message_id=message_id,
        name=name.upper(),
        stamp=stamp if isinstance(stamp, str) else "",
        changed_at=_time(stamp),
        data=value.get("EVENT_DATA"),
        user_id=_number(additional.get("user_id")) if is_object(additional) else None,
        process_id=reserved_by if isinstance(reserved_by, str) else "",
        failed=_number(value.get("ERROR")) == 1,
    )


def _entity_id(data: object) -> int | None:
    if not is_object(data):
        return None
    named = (data.get(name) for name in _ENTITIES)
    ids = (_number(fields.get("ID")) for fields in named if is_object(fields))
    return next((found for found in ids if found is not None), None)


def _number(value: object) -> int | None:
    """Return a number greater than 0, which may be written as text."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return (int(value) or None) if isinstance(value, str) and _NUMBER.fullmatch(value) else None


def _time(value: object) -> datetime | None:
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return at if at is not None and at.tzinfo is not None else None
