"""What a frame of the push server can hold, as values: a closed set for one ``match``."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard, TypeVar

import orjson

from bitrix_pull.events import (
    BACKEND_SENDER,
    UNKNOWN_SENDER,
    EventKind,
    PullEvent,
    Sender,
    SenderType,
)
from bitrix_pull.wire.json_guard import LIGHT_BYTES, TOO_DENSE, is_dense
from bitrix_pull.wire.json_text import Parse, parser_for
from bitrix_pull.wire.skim import Topic

E = TypeVar("E", bound="Envelope")

_CLIENT, _BACKEND = SenderType.CLIENT, SenderType.BACKEND


@dataclass(slots=True, frozen=True)
class Control:
    """A message of module ``pull``: the server steers its client (protocol §5)."""

    mid: str
    command: str
    params: Mapping[str, Any] = field(repr=False)
    extra: Mapping[str, Any] = field(repr=False)
    created_unix: int | None = None


@dataclass(slots=True, frozen=True)
class ChannelStatus:
    """Whether anybody is connected to a public channel (32 hex digits)."""

    channel: str = field(repr=False)
    online: bool


@dataclass(slots=True, frozen=True)
class Malformed:
    """A message that cannot be read amid others that can. ``reason`` holds no content."""

    mid: str
    reason: str


@dataclass(slots=True, frozen=True)
class Position:
    """Where a server of version 2 or older stands: it has no mids (protocol §4)."""

    tag: str
    time: str


@dataclass(slots=True, frozen=True)
class Ping:
    """A JSON-RPC server asks whether we are there; to be answered with ``pong``."""


@dataclass(slots=True, frozen=True)
class Reply:
    """The answer to one of our own JSON-RPC calls: a result, or an error.

    ``id`` is None where it names none of ours.
    """

    id: int | None
    result: Any = field(default=None, repr=False)
    error_code: int | None = None
    error_text: str = ""


@dataclass(slots=True, frozen=True)
class UnknownRequest:
    """A JSON-RPC request of the server that this client does not know."""

    id: int | str | None


def is_nothing(value: object) -> bool:
    """True for what PHP may write where there is no map and no text: null, ``false``, ``""``, ``[]``."""
    return value is None or value is False or value == "" or value == [] or value == {}


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """True for a JSON object as the parser makes it."""
    return type(value) is dict


class Envelope(Protocol):
    """A message as it lies in its frame."""

    body: bytes
    expiry: int


class Unread:
    """An event that nobody wants, whose body was not parsed: not even whether that is JSON is known.

    Attributes:
        mid: The message's id.
        topic: What it is about.
        sent_unix: The portal's time in it.
        created_unix: When the push server took it, or None where it does not say.
    """

    __slots__ = ("_envelope", "_read", "created_unix", "mid", "sent_unix", "topic")

    def __init__(
        self,
        mid: str,
        topic: Topic,
        sent_unix: float,
        created_unix: int | None,
        envelope: E,
        read: Callable[[E], "PullEvent[Any] | Control | Malformed"],
    ) -> None:
        """Keep it as it came, and what reads it."""
        self.mid: str = mid
        self.topic: Topic = topic
        self.sent_unix: float = sent_unix
        self.created_unix: int | None = created_unix
        self._envelope: Envelope = envelope
        self._read: Callable[[Any], PullEvent[Any] | Control | Malformed] = read

    @property
    def expiry(self) -> int:
        """Seconds that the push server keeps it."""
        return self._envelope.expiry

    @property
    def size(self) -> int:
        """Bytes of its body."""
        return len(self._envelope.body)

    def read(self) -> "PullEvent[Any] | Control | Malformed":
        """Parse it after all."""
        return self._read(self._envelope)


Incoming = (
    PullEvent[Any] | Unread | Control | ChannelStatus | Malformed | Position | Ping | Reply | UnknownRequest
)


def read_message(
    mid: str,
    body: bytes,
    sender: Sender,
    created_unix: int | None = None,
    expiry: int | None = None,
    parse: Parse = orjson.loads,
) -> PullEvent[Any] | Control | Malformed:
    """Read the JSON body of one message (protocol §5), with the parser for the frame that it was in."""
    size = len(body)
    if size > LIGHT_BYTES and is_dense(body):
        return Malformed(mid, TOO_DENSE)
    try:
        content = parse(body)
    except json.JSONDecodeError as error:
        return Malformed(mid, f"the body is no JSON at character {error.pos}")
    except UnicodeError:
        return Malformed(mid, "the body is no UTF-8")
    except ValueError as error:
        return Malformed(mid, f"the body cannot be read: {error}")
    return interpret(mid, content, sender, size, created_unix, expiry)


def read_json_text(mid: str, text: str, sender: Sender) -> PullEvent[Any] | Control | Malformed:
    """Read a message whose body lies in a frame of JSON as a string that is JSON itself."""
    body = text.encode(errors="replace")
    return read_message(mid, body, sender, parse=parser_for(body, len(body)))


def interpret(
    mid: str,
    content: Any,
    sender: Sender,
    size: int,
    created_unix: int | None = None,
    expiry: int | None = None,
) -> PullEvent[Any] | Control | Malformed:
    """Make an event of a message's content, already parsed from JSON."""
    # Every event comes through here, so there are no calls that it can do without.
    body: dict[str, Any] = content
    if type(body) is not dict:
        return Malformed(mid, "the body is no JSON object")
    module_id, command, params = body.get("module_id"), body.get("command"), body.get("params")
    extra: dict[str, Any] | None = body.get("extra")
    if type(module_id) is not str or type(command) is not str:
        return Malformed(mid, "the body has no module_id or no command")
    module_id = module_id.lower()
    if not params and is_nothing(params):
        params = dict[str, Any]()
    if type(extra) is not dict:
        extra = {}
    kind: EventKind = "server"
    # The sender decides first: what another client sent must never steer this one.
    if sender.type is _CLIENT:
        kind = "client"
    elif module_id == "pull":
        return Control(mid, command.lower(), params if is_object(params) else {}, extra, created_unix)
    elif module_id == "online":
        kind = "online"
    return PullEvent(
        mid, module_id, command, params, extra, sender, kind, created_unix, expiry, False, False, size
    )


def read_sender(sender: Any) -> Sender:
    """Read a sender as the JSON formats write it."""
    fields: dict[str, Any] = sender
    if type(fields) is not dict:
        return UNKNOWN_SENDER
    kind = fields.get("type")
    if kind == _BACKEND:
        return BACKEND_SENDER
    if kind == _CLIENT:
        return Sender(_CLIENT, str(fields.get("id") or ""))
    return UNKNOWN_SENDER
