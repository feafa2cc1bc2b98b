"""What a client hands to its user: events, and notices about the connection."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from typing_extensions import TypeVar as DefaultedTypeVar

if TYPE_CHECKING:
    from pydantic import BaseModel

EventKind = Literal["server", "client", "online"]
M = TypeVar("M", bound="BaseModel")
P = DefaultedTypeVar("P", default=Any)


class SenderType(IntEnum):
    """Who published a message (protocol §4.2, ``Sender.type``)."""

    UNKNOWN = 0
    CLIENT = 1
    BACKEND = 2


@dataclass(slots=True, frozen=True)
class Sender:
    """Who published a message.

    Attributes:
        type: Unknown, another client, or the portal's backend.
        id: The public channel id of a client as 32 hex digits, "" otherwise.
    """

    type: SenderType
    id: str = ""


UNKNOWN_SENDER = Sender(SenderType.UNKNOWN)
BACKEND_SENDER = Sender(SenderType.BACKEND)


@dataclass(slots=True, eq=False)
class PullEvent(Generic[P]):
    """One message of the realtime stream. Handlers share it: treat it as read-only.

    Attributes:
        mid: The message's id on the push server: 26 digits that order by text.
        module_id: The sending module in lower case: "application", "im", "crm", …
        command: The kind of message within its module.
        params: The payload, as JSON values; with ``model=`` an instance of that model.
            An empty map is ``{}``, also where the portal wrote PHP's ``[]``.
        extra: What the portal adds: ``server_time``, ``server_name``, revisions.
        sender: Who published it.
        kind: "client" if another client sent it, "online" for presence, else "server".
        created: When the push server took it (UTC), or None where the protocol does not say.
        expiry: Seconds that the push server keeps it for replay, or None where unknown.
        replayed: True if it came from the server's history after a reconnect.
        healed: True if the server had left it out and the client fetched it afterwards.
    """

    mid: str
    module_id: str
    command: str
    params: P
    extra: Mapping[str, Any]
    sender: Sender
    kind: EventKind
    created_unix: int | None = None
    expiry: int | None = None
    replayed: bool = False
    healed: bool = False
    size: int = field(default=0, repr=False)

    @property
    def created(self) -> datetime | None:
        """When the push server took the message, or None where the protocol does not say."""
        if self.created_unix is None:
            return None
        return datetime.fromtimestamp(self.created_unix, UTC)

    def parse(self, model: "type[M]") -> M:
        """Return ``params`` as an instance of a pydantic model.

        Raises:
            pydantic.ValidationError: The params do not fit the model.
        """
        return model.model_validate(self.params)


class State(StrEnum):
    """Where the connection is in its life. ``connection/states.py`` lists the legal moves."""

    IDLE = "idle"
    CONFIGURING = "configuring"
    CONNECTING = "connecting"
    CATCHING_UP = "catching_up"
    LIVE = "live"
    RENEWING = "renewing"
    BACKOFF = "backoff"
    CLOSING = "closing"
    CLOSED = "closed"
    FAILED = "failed"


@dataclass(slots=True, frozen=True)
class StateChanged:
    """The connection moved from one state to another.

    Attributes:
        error: What made it move, for BACKOFF and FAILED.
        retry_in_s: For BACKOFF: seconds until the next attempt.
    """

    previous: State
    state: State
    error: Exception | None = None
    retry_in_s: float | None = None


@dataclass(slots=True, frozen=True)
class MessageDropped:
    """A message that cannot be read was left out; the others around it were delivered.

    Attributes:
        mid: Its id, or "" where not even that could be read.
        reason: What is wrong with it. Never holds the content.
        total: How many were dropped since the client started.
    """

    mid: str
    reason: str
    total: int


@dataclass(slots=True, frozen=True)
class HandlerFailed:
    """A handler raised, or its params did not fit its ``model=``."""

    event: PullEvent
    handler: str
    error: Exception


@dataclass(slots=True, frozen=True)
class Continuity:
    """What a reconnect has brought back. Comes before the first event after it.

    Attributes:
        recovered: "yes" if the server's history still held a message that was known, so
            that what followed it came too; "no" if it should have held one and did not
            (the notice is a ``Gap`` then); "unknown" if there was nothing to tell by.
        replayed: Messages that were missed and are delivered now.
        duplicates: Messages that the server sent again and that are dropped.
        offline_s: Seconds without a connection; None after a restart of the client.
    """

    recovered: Literal["yes", "no", "unknown"]
    replayed: int
    duplicates: int
    offline_s: float | None


@dataclass(slots=True, frozen=True)
class Gap(Continuity):
    """The server's history was gone: events may be lost. Fetch the state anew over REST."""


Notice = StateChanged | Continuity | MessageDropped | HandlerFailed
