"""Events made by hand, as a client would have taken them in."""

import itertools
import json
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import BACKEND_SENDER, EventKind, PortalEvent, PullEvent, Sender, SenderType
from bitrix_pull.wire.json_text import encode_json

EXPIRY_S: Final = 86_400
"""How long what portals and applications publish is kept, unless they say otherwise (protocol §2)."""

_EPOCH: Final = 1_800_000_000
_counter = itertools.count(1)


def make_event(
    command: str,
    params: Any = None,
    *,
    module: str = "application",
    mid: str | None = None,
    created: datetime | float | None = None,
    sender: Sender = BACKEND_SENDER,
    extra: Mapping[str, Any] | None = None,
    expiry: int | None = EXPIRY_S,
    replayed: bool = False,
    healed: bool = False,
) -> PullEvent[Any]:
    """Return an event as it comes by the stream.

    Args:
        command: The kind of event within its module.
        params: What becomes JSON: a mapping, a pydantic model, a dataclass; None: an empty map.
        module: The module that has sent it.
        mid: Its id; None: one that is greater than all before.
        created: When the push server took it, aware or unix; None: now.
        sender: Who has published it: the portal's backend, or another client
            (``Sender(SenderType.CLIENT, "…")``), which makes it a "client" event.
        extra: What portals write beside it.
        expiry: Seconds that the push server keeps it.
        replayed: Whether it came from the history after a reconnect.
        healed: Whether the client fetched it afterwards.

    Raises:
        InvalidArgument: The params are no JSON.
    """
    body = encode_json({} if params is None else params)
    unix = created.timestamp() if isinstance(created, datetime) else created
    kind: EventKind = "server"
    if sender.type is SenderType.CLIENT:
        kind = "client"
    elif module.lower() == "online":
        kind = "online"
    return PullEvent(
        mid if mid is not None else f"{_EPOCH}{next(_counter):016}",
        module.lower(),
        command,
        json.loads(body),
        dict(extra or {}),
        sender,
        kind,
        int(time.time() if unix is None else unix),
        expiry,
        replayed,
        healed,
        len(body),
    )


def make_portal_event(
    name: str,
    *,
    id: int | None = None,
    fields: Mapping[str, Any] | None = None,
    data: Any = None,
    user_id: int | None = 1,
    changed_at: datetime | None = None,
    connector: str = "",
) -> PortalEvent[Any]:
    """Return an event of the portal as it comes out of its queue.

    Args:
        name: The portal's name, in any case: "ONCRMDEALUPDATE".
        id: The number of what has changed.
        fields: What stands beside it under ``FIELDS``.
        data: All of what the portal says, in the place of ``id`` and ``fields``.
        user_id: Who did it; None: nobody.
        changed_at: When, aware; None: now.
        connector: The exchange channel in whose queue it was.

    Raises:
        InvalidArgument: The data is no JSON, or given twice.
    """
    from bitrix_pull.portal_events.records import read_record

    at = changed_at if changed_at is not None else datetime.fromtimestamp(time.time()).astimezone()
    record = read_record(
        {
            "ID": str(next(_counter)),
            "TIMESTAMP_X": at.isoformat(timespec="seconds"),
            "EVENT_NAME": name,
            "EVENT_DATA": json.loads(encode_json(portal_data(id, fields, data))),
            "EVENT_ADDITIONAL": False if user_id is None else {"user_id": user_id},
            "MESSAGE_ID": f"{next(_counter):032x}",
        }
    )
    if record is None:
        raise InvalidArgument(f"{name!r:.80} is no name of a portal's event")
    return record.event(connector)


def portal_data(id: int | None, fields: Mapping[str, Any] | None, data: Any) -> Any:
    """Return what the portal says about what has changed.

    Raises:
        InvalidArgument: It is given twice.
    """
    if data is not None:
        if id is not None or fields is not None:
            raise InvalidArgument("give data, or id and fields")
        return data
    # The portal writes numbers as text.
    named = {} if id is None else {"ID": str(id)}
    return {"FIELDS": {**named, **(fields or {})}} if named or fields else False
