"""What a client hands to its user: events, and notices about the connection."""

import asyncio
import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar, cast

from typing_extensions import TypeVar as DefaultedTypeVar

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.redaction import printable
from bitrix_pull.telemetry import log_fields

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

    from bitrix_pull.client import PullClient

EventKind = Literal["server", "client", "online"]
_LONGEST_FIELD = 100
"""What a server chooses is cut, and escaped, before it is a field of a log record."""

M = TypeVar("M")
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


def adapter_of(model: "type[M] | TypeAdapter[M]") -> "TypeAdapter[M]":
    """Return what validates a model: the same object for the same model.

    Raises:
        InvalidArgument: It is no model, nor anything else that pydantic can validate.
    """
    # Whoever receives without a model does not wait for pydantic.
    from pydantic import BaseModel, PydanticUserError, TypeAdapter

    if isinstance(model, TypeAdapter):
        return model
    # It would take a text for a forward reference, and an object for one of the model's own kind.
    if model is not BaseModel and not isinstance(model, str | BaseModel | None):
        try:
            # Unions are equal in any order of their parts, which matters to pydantic.
            return cast("TypeAdapter[M]", _adapter_of(cast("Hashable", model), repr(model)))
        except (PydanticUserError, TypeError):
            pass
    raise InvalidArgument(f"model must be a type that pydantic can validate, not {model!r:.80}")


@lru_cache(maxsize=1_000)
def _adapter_of(model: Hashable, written: str) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(cast("Any", model))


def validated(adapter: "TypeAdapter[M]", value: object) -> M:
    """Return a value as a model's adapter makes it.

    Raises:
        pydantic.ValidationError: It does not fit. The text does not show the value, which is
            the portal's customers' business; ``errors()`` has it.
    """
    from pydantic import ValidationError

    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise _without_input(error) from None


def _without_input(error: "ValidationError") -> "ValidationError":
    from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError, PydanticKnownError

    def again(item: ErrorDetails) -> InitErrorDetails:
        kind: str | PydanticCustomError = item["type"]
        try:
            PydanticKnownError(cast("Any", kind), item.get("ctx"))
        except (KeyError, TypeError, ValueError):
            # One of the model's own.
            kind = PydanticCustomError(cast("Any", kind), cast("Any", item["msg"]))
        return InitErrorDetails(type=kind, loc=item["loc"], input=item["input"], ctx=item.get("ctx", {}))

    details = list(map(again, error.errors(include_url=False)))
    return type(error).from_exception_data(error.title, details, hide_input=True)


class Settlement(Protocol):
    """Takes the word of a handler that acknowledges its events itself."""

    def ack(self) -> None:
        """The event is handled."""
        ...

    def nack(self, delay_s: float) -> None:
        """The event is wanted again."""
        ...


class Origin:
    """Where events come from: one object a client, which all its events share.

    A copy has the same one. What comes out of a pickle knows the portal's name, and no client.
    """

    __slots__ = ("_client", "portal")

    def __init__(
        self, portal: str = "", client: "PullClient | Callable[[], PullClient] | None" = None
    ) -> None:
        """Describe a client, or what makes one when somebody asks for it."""
        self.portal: str = portal
        self._client = client

    @property
    def client(self) -> "PullClient | None":
        """The client."""
        return self._client() if callable(self._client) else self._client

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.portal,)


NOWHERE = Origin()


class Event:
    """What handlers get, of whatever kind: a message of the stream, a record of a queue.

    A kind of event is a dataclass over this, with fields of its own. What stands here is
    what handlers of all kinds can use, and what dispatch needs to know of it.
    """

    # No fields of the dataclasses below, and unset as long as they are: most events never need them.
    __slots__ = ("_attempts", "_raw", "_settlement", "_typed", "origin")
    _attempts: int
    _raw: Any
    _settlement: Settlement
    _typed: "dict[TypeAdapter[Any], Self]"
    origin: Origin

    topic_of: ClassVar[Callable[[Any], Hashable]]
    """Returns what handlers are chosen by."""

    payload_field: ClassVar[str]
    """The field that ``model=`` is for."""

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

    @property
    def log_fields(self) -> dict[str, Any]:
        """What it is, as the fields of a log record; see ``telemetry``. Never its content."""
        raise NotImplementedError

    @property
    def client(self) -> "PullClient":
        """The client that it came by.

        Raises:
            RuntimeError: It came by none: it was made by hand, or comes out of a pickle.
        """
        client: PullClient | None = getattr(self, "origin", NOWHERE).client
        if client is None:
            raise RuntimeError("this event came by no client: it was made by hand, or comes out of a pickle")
        return client

    @property
    def portal(self) -> str:
        """What the client's portal is called: its ``name``, or else its host; "" without a client."""
        portal: str = getattr(self, "origin", NOWHERE).portal
        return portal

    @property
    def raw(self) -> Any:
        """The payload as it came, as JSON values, also where ``model=`` has made something else of it."""
        return self._raw if hasattr(self, "_raw") else getattr(self, self.payload_field)

    def parse(self, model: "type[M] | TypeAdapter[M]") -> M:
        """Return the payload as an instance of a pydantic model, or of whatever a ``TypeAdapter`` takes.

        Raises:
            pydantic.ValidationError: It does not fit; a model's own code may raise others.
        """
        return validated(adapter_of(model), self.raw)

    def with_model(self, adapter: "TypeAdapter[Any]") -> Self:
        """Return the event with its payload as ``parse`` makes it; for the dispatcher.

        All who ask for the same get the same: it is made once.
        """
        typed: dict[TypeAdapter[Any], Self] | None = getattr(self, "_typed", None)
        if typed is None:
            typed = self._typed = {}
        elif (known := typed.get(adapter)) is not None:
            return known
        made = self.but(**{self.payload_field: validated(adapter, self.raw)})
        made._raw = self.raw
        typed[adapter] = made
        return made

    def but(self, **changes: Any) -> Self:
        """Return a copy with other values in some fields. It is still the same event to its client."""
        # The kinds are dataclasses, each with fields of its own.
        made = cast("Self", replace(cast("Any", self), **changes))
        made.follow(self)
        return made

    def follow(self, other: "Event") -> None:
        """Take over from another event whose place this takes, but what it has of its own."""
        for name in ("_attempts", "_raw", "_settlement", "origin"):
            if not hasattr(self, name) and hasattr(other, name):
                setattr(self, name, getattr(other, name))

    @property
    def attempts(self) -> int:
        """How often the handler was called with it, this time included."""
        return getattr(self, "_attempts", 1)

    def __getstate__(self) -> object:
        # The event alone is copied and pickled: who takes a handler's word stays here.
        names = [each.name for each in fields(cast("Any", self))]
        names += [name for name in ("_attempts", "_raw", "origin") if hasattr(self, name)]
        return None, {name: getattr(self, name) for name in names}

    def for_attempt(self, number: int, settlement: Settlement | None = None) -> Self:
        """Return a copy for one more call of a handler; for the dispatcher.

        Args:
            number: Which one it is, from 1 on.
            settlement: Takes the handler's word, if that acknowledges its events itself.
        """
        made = self.but()
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
    payload_field: ClassVar[str] = "params"

    @property
    def reference(self) -> str:
        """The mid."""
        return self.mid

    @property
    def log_fields(self) -> dict[str, Any]:
        """Its module, command and mid."""
        kind, mid = f"{self.module_id}.{self.command}", self.mid
        return log_fields(event=printable(kind[:_LONGEST_FIELD]), mid=printable(mid[:_LONGEST_FIELD]))

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


_VERBS = ("ADD", "UPDATE", "DELETE")


@dataclass(slots=True, eq=False)
class PortalEvent(Event, Generic[P]):
    """Something that happened on the portal, from its queue. Handlers share it: treat it as read-only.

    The portal merges: however often a deal was updated before the event was taken, there is
    one event, of the last time. It tells *what* has changed, so fetch the present state.

    Attributes:
        name: The portal's name for it in capitals: "ONCRMDEALUPDATE".
        data: What the portal says about it, as JSON values; with ``model=`` an instance of
            that model. What PHP writes for nothing (``false``, ``[]``, ``""``) is ``{}``.
        fields: What stands under ``FIELDS`` in the data; ``{}`` where there is none.
        id: The number of what has changed (``FIELDS.ID``, or that of ``FIELDS_AFTER`` or
            ``FIELDS_BEFORE``); None where there is none.
        user_id: Who did it; None if nobody did, or the portal does not say.
        changed_at: When it happened last, in whole seconds by the portal's clock; None where
            that cannot be read.
        message_id: The portal's name for this event and data; all that is merged has the same.
        connector: The exchange channel in whose queue it was; "" for none.
        record_id: The number of its record in the queue; 0 if it was made by hand.
    """

    topic_of: ClassVar[Callable[[Any], Hashable]] = attrgetter("name")
    payload_field: ClassVar[str] = "data"

    name: str
    data: P
    fields: Mapping[str, Any] = field(repr=False)
    id: int | None
    user_id: int | None
    changed_at: datetime | None
    message_id: str = field(repr=False)
    connector: str = ""
    size: int = field(default=0, repr=False)
    record_id: int = field(default=0, repr=False)

    @property
    def reference(self) -> str:
        """Its ``message_id``."""
        return self.message_id

    @property
    def log_fields(self) -> dict[str, Any]:
        """Its name."""
        return log_fields(event=printable(self.name[:_LONGEST_FIELD]))

    @property
    def label(self) -> str:
        """Its name, and what it is about."""
        return f"{self.name} of {self.id}" if self.id is not None else self.name

    @property
    def entity(self) -> Hashable:
        """What it is about: an addition, update and deletion of the same are kept in this order.

        Name without verb, and id; of what has no id, the event is about itself.
        """
        if self.id is None:
            return self.message_id
        stem = next((self.name.removesuffix(verb) for verb in _VERBS if self.name.endswith(verb)), self.name)
        return stem, str(self.fields.get("ENTITY_TYPE_ID", "")), self.id


class State(StrEnum):
    """Where the connection is in its life. ``connection/states.py`` lists the legal moves.

    Attributes:
        IDLE: Not started.
        CONFIGURING: Asking the portal for addresses and channels.
        CONNECTING: Opening the stream.
        CATCHING_UP: Taking what was missed: ``event.replayed``.
        LIVE: The stream is open.
        PAUSED: Handlers are behind: nothing more is read until the inbox has room. ``InboxFull`` names them.
        RENEWING: The stream is open, and its channels are being replaced.
        BACKOFF: Waiting before the next attempt, or for channels that are good.
        CLOSING: Ending the connection.
        CLOSED: Ended; it can be started again.
        FAILED: Only a person can help.
    """

    IDLE = "idle"
    CONFIGURING = "configuring"
    CONNECTING = "connecting"
    CATCHING_UP = "catching_up"
    LIVE = "live"
    PAUSED = "paused"
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

    Of events that no handler and no iterator wants it is not always said: bodies of theirs may not
    be looked at, and then nobody knows.

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
class InboxFull(_OfClient):
    """Handlers are too slow and the inbox is full: for some time little or nothing was read.

    There is one such notice until reading goes on; the state is PAUSED meanwhile. What is not read
    waits on the push server, which gives up a client that does not read for long: what its
    history keeps then comes after the reconnect.

    Attributes:
        event: The event that has waited longest, and which one: ``im.message (mid …)``.
        handler: Who has not finished with it: the name of a handler, of several, or an iterator's.
        waiting: How many events wait.
    """

    event: str
    handler: str
    waiting: int


@dataclass(slots=True, frozen=True)
class Continuity(_OfClient):
    """What a reconnect has brought back. Comes before the first event after it.

    Attributes:
        recovered: "yes" if the server's history still held what was known, so that what
            followed it came too; "no" if it should have held it and did not (the notice is a
            ``Gap`` then), or if nothing was heard for longer than a day, for which it keeps messages
            at most; "unknown" if there was nothing to tell by.
        replayed: Messages that were missed and are delivered now.
        duplicates: Messages that the server sent again and that are dropped.
        offline_s: Seconds without a connection; None after a restart of the client.
        more: True if the server sends more than was counted here: of over 5,000 missed
            messages, or 2 MiB of them, only the first are read by now.
        audited: False in a notice of its own, some time after a connect: the server could not be
            asked for what it may have left out. What it did leave out is lost after the next cut.
    """

    recovered: Literal["yes", "no", "unknown"]
    replayed: int
    duplicates: int
    offline_s: float | None
    more: bool = False
    audited: bool = True


@dataclass(slots=True, frozen=True)
class Gap(Continuity):
    """Events may be lost: the server's history was gone. Fetch the state anew over REST.

    That is: it lost its data, wholly or back to an older state, which shows after a reconnect or
    in the open stream; or the portal has moved to another push server. What the history holds all
    the same is delivered after this.
    """


@dataclass(slots=True, frozen=True)
class PortalTrouble(_OfClient):
    """The portal's configuration is not what it should be, and there is no better one for now.

    As long as the present channels are good, the client stays live by them. If a channel was
    left out, what is sent there arrives once the portal tells it, from the history.

    Attributes:
        error: What is wrong: ``IncompleteConfig``, ``ChannelsEnded``, or why the portal
            could not be asked.
        retry_in_s: Seconds until it is asked again.
    """

    error: Exception
    retry_in_s: float


Notice = (
    PortalTrouble | StateChanged | Continuity | MessageDropped | EventsDropped | InboxFull | HandlerFailed
)
