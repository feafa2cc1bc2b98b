"""What a frame of the push server can hold, as values: a closed set for one ``match``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import orjson

from bitrix_pull.events import EventKind, PullEvent, Sender, SenderType


@dataclass(slots=True, frozen=True)
class Control:
    """A message of module ``pull``: the server steers its client (protocol §5)."""

    mid: str
    command: str
    params: Mapping[str, Any]


@dataclass(slots=True, frozen=True)
class ChannelStatus:
    """Whether anybody is connected to a public channel (32 hex digits)."""

    channel: str
    online: bool


@dataclass(slots=True, frozen=True)
class Malformed:
    """A message that cannot be read amid others that can. ``reason`` holds no content."""

    mid: str
    reason: str


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """True for a JSON object as the parser makes it."""
    return type(value) is dict


Incoming = PullEvent[Any] | Control | ChannelStatus | Malformed


def read_message(
    mid: str,
    body: bytes | str,
    sender: Sender,
    created_unix: int | None = None,
    expiry: int | None = None,
) -> PullEvent[Any] | Control | Malformed:
    """Read the JSON body of one message (protocol §5)."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return Malformed(mid, f"the body is no JSON at character {error.pos}")
    return interpret(mid, content, sender, len(body), created_unix, expiry)


def interpret(
    mid: str,
    content: object,
    sender: Sender,
    size: int,
    created_unix: int | None = None,
    expiry: int | None = None,
) -> PullEvent[Any] | Control | Malformed:
    """Make an event of a message's content, already parsed from JSON."""
    if not is_object(content):
        return Malformed(mid, "the body is no JSON object")
    module_id = content.get("module_id")
    command = content.get("command")
    if type(module_id) is not str or type(command) is not str:
        return Malformed(mid, "the body has no module_id or no command")
    module_id = module_id.lower()
    # PHP writes an empty map as an empty list.
    params: Any = content.get("params")
    if params is None or params == []:
        params = dict[str, Any]()
    kind: EventKind = "server"
    # The sender decides first: what another client sent must never steer this one.
    if sender.type is SenderType.CLIENT:
        kind = "client"
    elif module_id == "pull":
        return Control(mid, command.lower(), params if is_object(params) else {})
    elif module_id == "online":
        kind = "online"
    extra = content.get("extra")
    return PullEvent(
        mid,
        module_id,
        command,
        params,
        extra if is_object(extra) else {},
        sender,
        kind,
        created_unix,
        expiry,
        size=size,
    )
