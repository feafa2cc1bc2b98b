"""What is told of a client to those who watch it, under names that last: log fields and metrics."""

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol, TypedDict, Unpack


class LogFields(TypedDict, total=False):
    """What a log record may have beside its text, as attributes of it and as keys of JSON lines.

    Each record of a client's has ``portal``; of the others it has those that it is about. None
    is ever a secret, and none holds what events carry.
    """

    portal: str
    """What the portal is called: the client's ``name``, or else its host."""
    state: str
    """The state that the connection has entered."""
    previous: str
    """The state that it was in before."""
    transport: str
    """How events come: "websocket" or "long_polling"."""
    retry_in_s: float
    """Seconds until it is tried again."""
    event: str
    """The kind of event: ``im.message``, or ``ONCRMDEALUPDATE``."""
    mid: str
    """Which event: its message id on the push server, or in the portal's queue."""
    handler: str
    """The handler that it is about."""
    attempts: int
    """How often the handler was called with the event."""
    count: int
    """How many events it is about."""
    replayed: int
    """Events that were missed, and were delivered after a reconnect."""
    duplicates: int
    """Messages that the push server sent again, and that were dropped."""
    method: str
    """The REST method that was called."""
    status: int
    """The HTTP status that was answered."""
    duration_s: float
    """Seconds that it took."""


FIELDS: Final = (*LogFields.__annotations__, "error")
"""The names of all fields; ``error`` is the class of what went wrong."""


def log_fields(error: BaseException | None = None, **named: Unpack[LogFields]) -> dict[str, Any]:
    """Return fields as ``extra=`` takes them: their names are checked by type checkers.

    Args:
        error: What went wrong, if anything; its class is the field.
        named: The others.
    """
    return dict(named) if error is None else {**named, "error": type(error).__name__}


class JsonFormatter(logging.Formatter):
    """Writes each log record as one JSON object: time, level, logger, message, and its fields.

    Example:
        handler = logging.StreamHandler()
        handler.setFormatter(bitrix_pull.telemetry.JsonFormatter())
        logging.basicConfig(level="INFO", handlers=[handler])
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. What an error's traceback says stands under ``traceback``."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            # The portal is a field of its own here.
            "message": record.getMessage().removeprefix(f"{getattr(record, 'portal', '')}: "),
        }
        told |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            told["traceback"] = record.exc_text
        return json.dumps(told, ensure_ascii=False, default=str)


@dataclass(slots=True, frozen=True)
class Metric:
    """A figure that ``bitrix_pull.otel`` gives to OpenTelemetry.

    Attributes:
        kind: "counter" for what only grows, "gauge" for what is so at present, "histogram" for
            durations.
        unit: In the notation of OpenTelemetry (UCUM).
        about: What it says.
        attributes: What it is told apart by, beside ``server.address``, the portal's name, which
            what is told of a hub as a whole does not have.
        operation: What its ``messaging.operation.name`` is, where the conventions want one.
    """

    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    about: str
    attributes: tuple[str, ...] = ()
    operation: str = ""


METRICS: Final[Mapping[str, Metric]] = {
    # By OpenTelemetry's conventions for messaging, where these have a name.
    "messaging.client.consumed.messages": Metric(
        "counter", "{message}", "Events received.", operation="receive"
    ),
    "messaging.client.sent.messages": Metric(
        "counter", "{message}", "Events published.", ("bitrix_pull.route", "error.type"), "send"
    ),
    "messaging.client.operation.duration": Metric(
        "histogram", "s", "How long publishing took.", ("bitrix_pull.route", "error.type"), "send"
    ),
    "messaging.process.duration": Metric(
        "histogram",
        "s",
        "How long calls of a handler took: those of all calls that are recorded, see recorded_per_s=.",
        ("bitrix_pull.handler", "error.type"),
        "process",
    ),
    "bitrix_pull.handler.calls": Metric(
        "counter", "{call}", "Calls of handlers, recorded or not.", ("bitrix_pull.handler",), "process"
    ),
    "bitrix_pull.handler.retries": Metric(
        "counter",
        "{call}",
        "Those of them that were not the first.",
        ("bitrix_pull.handler",),
        "process",
    ),
    "bitrix_pull.handler.failures": Metric(
        "counter",
        "{event}",
        "Events that a handler failed on for good.",
        ("bitrix_pull.handler", "error.type"),
    ),
    "bitrix_pull.duplicates": Metric("counter", "{message}", "Messages that came again and were dropped."),
    "bitrix_pull.malformed": Metric("counter", "{message}", "Messages that could not be read."),
    "bitrix_pull.ignored": Metric("counter", "{message}", "Events of modules that are ignored."),
    "bitrix_pull.healed": Metric("counter", "{message}", "Events that the push server had left out."),
    "bitrix_pull.dropped": Metric("counter", "{message}", "Events dropped, as handlers were too slow."),
    "bitrix_pull.unrouted": Metric("counter", "{message}", "Events that no handler wants."),
    "bitrix_pull.gaps": Metric("counter", "{gap}", "How often the push server's history was gone."),
    "bitrix_pull.connects": Metric("counter", "{connection}", "Connections opened."),
    "bitrix_pull.disconnects": Metric("counter", "{connection}", "Backing off, by cause.", ("error.type",)),
    "bitrix_pull.live": Metric("gauge", "", "1 while the client is live, else 0; of a hub, how many are."),
    "bitrix_pull.state": Metric(
        "gauge", "", "1 for the state that it is in; of a hub, how many are.", ("bitrix_pull.state",)
    ),
    "bitrix_pull.silence": Metric("gauge", "s", "Time since the push server was heard from; the longest."),
    "bitrix_pull.lag": Metric("gauge", "s", "Age of the oldest event that is not settled."),
    "bitrix_pull.inbox.events": Metric("gauge", "{event}", "Events that handlers have not finished with."),
    "bitrix_pull.inbox.size": Metric("gauge", "By", "Bytes of those events' bodies."),
    "bitrix_pull.store.saves": Metric("counter", "{save}", "Saves of the resume point that the store took."),
    "bitrix_pull.store.failures": Metric("counter", "{save}", "Those that it did not take."),
    "bitrix_pull.store.time": Metric("counter", "s", "How long all of both took together."),
    "bitrix_pull.store.failing": Metric("gauge", "", "1 while the resume point cannot be saved, else 0."),
    "bitrix_pull.rest.duration": Metric(
        "histogram", "s", "How long a REST call took, waits included.", ("bitrix_pull.method", "error.type")
    ),
    "bitrix_pull.rest.waited": Metric("counter", "s", "Time that REST calls waited for limits."),
    "bitrix_pull.token.refreshes": Metric(
        "counter", "{refresh}", "Refreshes of access tokens; failed ones by cause.", ("error.type",)
    ),
    # What is told of a hub, beside what its clients tell.
    "bitrix_pull.hub.portals": Metric(
        "gauge",
        "{portal}",
        "Portals by how they are doing, here or elsewhere.",
        ("bitrix_pull.portal.state",),
    ),
    "bitrix_pull.hub.leases": Metric("gauge", "{lease}", "Portals that this worker has the right to serve."),
    "bitrix_pull.hub.leases.gained": Metric("counter", "{lease}", "Portals that this worker was given."),
    "bitrix_pull.hub.leases.ended": Metric(
        "counter",
        "{lease}",
        "Portals that it has no more, by cause; see HubHealth.ended.",
        ("bitrix_pull.cause",),
    ),
    "bitrix_pull.hub.workers": Metric("gauge", "{worker}", "Workers that live, as far as this one knows."),
}
"""All metrics by name."""


class Around(Protocol):
    """What is around an operation while telemetry is on: measures it, and makes a span of it."""

    def __call__(self, name: str) -> AbstractContextManager[Callable[[Any], None]]:
        """Return the context to do it in, which gives what is to be told of the result.

        Args:
            name: The REST method, or the route that was asked for.
        """
        ...
