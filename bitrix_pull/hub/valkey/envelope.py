"""How an event is written down for other services: one JSON object, version 1.

Every entry of the log has one field, ``event``, whose text is this object. Fields may be added
without another version; read what you know, and leave the rest.

============== ============================================================================
``v``          1
``portal``     the portal's key in the hub
``epoch``      which owner of the portal wrote it: never smaller than before it in one portal
``kind``       ``server``, ``client`` or ``online`` for a message; ``portal`` for a portal event
``created``    when the push server took the message, or the thing last happened, in unix seconds; or null
``mid``        of a message: its id. With ``portal`` the key to tell what was handled before
``module``     of a message: the sending module, in lower case
``command``    of a message
``params``     of a message: its payload
``healed``     of a message: true if the push server had left it out, and it was fetched afterwards
``message_id`` of a portal event: its id. The same again is the same name and data, at another time
``record``     of a portal event: the number of its record in the portal's queue. With ``portal``
               and ``created`` the key to tell what was handled before
``name``       of a portal event, in capitals
``data``       of a portal event: its payload
``user_id``    of a portal event: who did it, or null
============== ============================================================================
"""

import json
from typing import Any, Final

import orjson

from bitrix_pull.events import PortalEvent, PullEvent

VERSION: Final = 1


def envelope(portal: str, epoch: int, event: PullEvent[Any] | PortalEvent[Any]) -> bytes:
    """Return an event as the log has it. Raises ``ValueError`` for what is no JSON."""
    head: dict[str, Any] = {"v": VERSION, "portal": portal, "epoch": epoch}
    if isinstance(event, PortalEvent):
        changed_at = event.changed_at
        content = {
            **head,
            "kind": "portal",
            "created": None if changed_at is None else changed_at.timestamp(),
            "message_id": event.message_id,
            "record": event.record_id,
            "name": event.name,
            "data": event.raw,
            "user_id": event.user_id,
        }
    else:
        content = {
            **head,
            "kind": event.kind,
            "created": event.created_unix,
            "mid": event.mid,
            "module": event.module_id,
            "command": event.command,
            "params": event.raw,
            "healed": event.healed,
        }
    try:
        return orjson.dumps(content)
    except TypeError:
        # Integers and text that only a lenient parser reads.
        return json.dumps(content, allow_nan=False).encode()
