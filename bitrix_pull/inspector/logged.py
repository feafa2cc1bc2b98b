"""What the page shows of a hub's log."""

from collections.abc import Mapping
from typing import Any, cast

import orjson

from bitrix_pull.inspector.shown import Copier, shown_name, written
from bitrix_pull.wire.json_text import parser_for
from bitrix_pull.wire.messages import is_object


def shown_entry(raw: bytes, received_at: float) -> bytes | None:
    """Return an entry of the log as the page gets it; None for what is no event.

    It is what ``shown_event`` gives, and which portal it is of.
    """
    event = _read(raw)
    if event is None:
        return None
    copier = Copier()
    is_portals = event.get("kind") == "portal"
    created = event.get("created")
    params = written(copier.copy(event.get("data" if is_portals else "params")))
    extra = {name: event.get(name) for name in ("epoch", *(_OF_PORTAL if is_portals else ()))}
    return orjson.dumps(
        {
            "at": round(received_at, 3),
            "created": created if isinstance(created, int | float) else None,
            "portal": _text(event, "portal"),
            "mid": _text(event, "mid"),
            "module": "portal" if is_portals else _text(event, "module"),
            "command": _text(event, "name" if is_portals else "command"),
            "sender": "client" if event.get("kind") == "client" else "backend",
            "kind": _text(event, "kind"),
            "replayed": False,
            "healed": event.get("healed") is True,
            "size": len(raw),
            "extra": written(copier.copy(extra)),
            "params": params,
            "cut": copier.is_cut,
        }
    )


_OF_PORTAL = ("user_id", "message_id", "record")


def _read(raw: bytes) -> Mapping[str, Any] | None:
    try:
        event: object = parser_for(raw, len(raw), mids=False)(raw)
    except (ValueError, RecursionError):
        return None
    return cast("Mapping[str, Any]", event) if is_object(event) else None


def _text(event: Mapping[str, Any], name: str) -> str:
    value = event.get(name)
    return shown_name(value) if isinstance(value, str) else ""
