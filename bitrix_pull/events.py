"""What a client hands to its user: events, and notices about the connection."""

import asyncio
import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar, cast

from typing_extensions import TypeVar as DefaultedTypeVar

from bitrix_pull.errors import InvalidArgument

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
    id: str = field(default="", repr=False)


UNKNOWN_SENDER = Sender(SenderType.UNKNOWN)
BACKEND_SENDER = Sender(SenderType.BACKEND)


class Settlement(Protocol):
    """Takes the word of a handler that acknowledges its events itself."""

    def ack(self) -> None:
        """The event is handled."""
        ...

    def nack(self, delay_s: float) -> None:
        """The event is wanted again."""
        ...


class Event:
    """What handlers get, of whatever kind: a message of the stream, a record of a queue.

    A kind of event is a dataclass over this, with fields of its own. What stands here is
    what dispatch needs to know of it.
    """

    # No fields of the dataclasses below, and unset as long as they are: most events never need them.
    __slots__ = ("_attempts", "_settlement")
    _attempts: int
    _settlement: Settlement

    topic_of: ClassVar[Callable[[Any], Hashable]]
    """Returns what handlers are chosen by."""

    size: int
    """Bytes that it takes, about."""

    @property
    def reference(self) -> str:
        """What it is called where it came from."""
        raise NotImplementedError

    @property
    def label(self) -> str:
        """What it is and which one, for a log. Never its content."""
        raise NotImplementedError

    def with_model(self, model: "type[BaseModel]") -> Self:
        """Return a copy whose payload is an instance of a model.

        Raises:
            pydantic.ValidationError: It does not fit; a model's own code may raise others.
        """
        raise NotImplementedError

    @property
    def attempts(self) -> int:
        """How often the handler was called with it, this time included."""
        return getattr(self, "_attempts", 1)

    def __getstate__(self) -> object:
        # The event alone is copied and pickled: who takes a handler's word stays here.
        return None, {each.name: getattr(self, each.name) for each in fields(cast("Any", self))}

    def for_attempt(self, number: int, settlement: Settlement | None = None) -> Self:
        """Return a copy for one more call of a handler; for the dispatcher.

        Args:
            number: Which one it is, from 1 on.
            settlement: Takes the handler's word, if that acknowledges its events itself.
        """
        # The kinds are dataclasses, each with fields of its own.
        made = cast("Self", replace(cast("Any", self)))
        made._attempts = number
        if settlement is not None:
            made._settlement = settlement
        return made

    def ack(self) -> None:
        """Say that the event is handled, in a handler registered with ``ack="manual"`` or later.

        The first word counts: after an ``ack``, a ``nack``, or a failure of the handler,
        this call does nothing. Call it on the event loop.

        Raises:
            RuntimeError: This event is acknowledged by itself, or this is no event loop's thread.
        """
        self._manual().ack()

    def nack(self, delay: float = 0.0) -> None:
        """Ask for the event again, in a handler registered with ``ack="manual"`` or later.

        The handler gets it as a new event, whose own ``ack`` and ``nack`` then count. With
        ``retries=`` each time counts as an attempt; without, it comes as often as asked for.

        Args:
            delay: Seconds to wait first.

        Raises:
            InvalidArgument: The delay is negative or not finite.
            RuntimeError: As for ``ack``.
        """
        settlement = self._manual()
        if not 0 <= delay < math.inf:
            raise InvalidArgument(f"delay must be seconds, 0 or more, not {delay!r:.40}")
        settlement.nack(delay)

    def _manual(self) -> Settlement:
        settlement: Settlement | None = getattr(self, "_settlement", None)
        if settlement is None:
            raise RuntimeError('ack() and nack() are for events of a handler with @pull.on(…, ack="manual")')
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "ack() and nack() are for the event loop; from a thread: loop.call_soon_threadsafe(event.ack)"
            ) from None
        return settlement


@dataclass(slots=True, eq=False)
class PullEvent(Event, Generic[P]):
    """One message of the realtime stream. Handlers share it: treat it as read-only.

    Attributes:
        mid: The message's id on the push server: 26 digits that order by text.
        module_id: The sending module in lower case: "application", "im", "crm", …
        command: The kind of message within its module.
        params: The payload, as JSON values; with ``model=`` an instance of that model.
            An empty map is ``{}``, however the portal's PHP wrote it (``[]``, ``false``, null).
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
    extra: Mapping[str, Any] = field(repr=False)
    sender: Sender
    kind: EventKind
    created_unix: int | None = None
    expiry: int | None = None
    replayed: bool = False
    healed: bool = False
    size: int = field(default=0, repr=False)

    topic_of: ClassVar[Callable[[Any], Hashable]] = attrgetter("module_id", "command")

    @property
    def reference(self) -> str:
        """The mid."""
        return self.mid

    @property
    def label(self) -> str:
        """Its module, command and mid."""
        return f"{self.module_id}.{self.command} (mid {self.mid})"

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

    def with_model(self, model: "type[BaseModel]") -> "PullEvent[P]":
        """Return a copy whose ``params`` are an instance of a model, as ``parse`` makes it."""
        return replace(self, params=cast("P", self.parse(model)))


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
class _OfClient:
    """What all notices have.

    Attributes:
        portal: What the client's portal is called: its ``name``, or else its host.
    """

    portal: str = field(default="", kw_only=True, compare=False)


@dataclass(slots=True, frozen=True)
class StateChanged(_OfClient):
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
class MessageDropped(_OfClient):
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
class HandlerFailed(_OfClient):
    """A handler failed for good on an event, which then counts as settled.

    Attributes:
        event: The event, with its params as they came.
        handler: The name of the handler's function.
        error: What it raised last, or why it could not be called.
        attempts: How many were made.
    """

    event: Event
    handler: str
    error: Exception
    attempts: int = 1


@dataclass(slots=True, frozen=True)
class EventsDropped(_OfClient):
    """Handlers are too slow and the inbox is full: events are being dropped, as the options say.

    There is one such notice until handlers have caught up with half of the inbox.

    Attributes:
        overflow: "drop_oldest" or "drop_newest".
        mid: The first that was dropped.
        total: How many were dropped since the client was created, with this one.
    """

    overflow: str
    mid: str
    total: int


@dataclass(slots=True, frozen=True)
class Continuity(_OfClient):
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


Notice = StateChanged | Continuity | MessageDropped | EventsDropped | HandlerFailed
