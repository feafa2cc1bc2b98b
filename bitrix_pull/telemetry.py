"""What is told of a client to those who watch it, under names that last: the fields of log records."""

import json
import logging
from datetime import UTC, datetime
from typing import Any, Final, TypedDict, Unpack


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
