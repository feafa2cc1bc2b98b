"""A recording: JSON lines, a header first, then what came, one line each. Read by every later version."""

import json
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any, Final, cast

import orjson

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import (
    EventKind,
    Notice,
    PortalEvent,
    PullEvent,
    Sender,
    SenderType,
    StateChanged,
)
from bitrix_pull.redaction import HIDDEN, one_line
from bitrix_pull.wire.json_text import parser_for
from bitrix_pull.wire.messages import is_object

VERSION: Final = 1
"""Of the format. A reader takes all up to its own; unknown kinds of lines and fields are passed over."""

KEY: Final = "bitrix_pull_recording"
"""The field of the header that holds the version, by which a recording is known."""

_READ_BYTES = 256 * 1024
_LINE_MAX_BYTES = 64 * 1024 * 1024

Recorded = PullEvent[Any] | PortalEvent[Any]


@dataclass(slots=True, frozen=True)
class Header:
    """What stands at the beginning of each file.

    Attributes:
        version: Of the format.
        portal: What the portal was called.
        mode: "application" or "user": whose channels were listened on.
        began_unix: When the recording began.
        keeps_params: False if what events carried is hidden: only its form is there.
    """

    version: int
    portal: str
    mode: str
    began_unix: float
    keeps_params: bool

    def line(self) -> bytes:
        """Return it as a line."""
        return orjson.dumps(
            {
                KEY: self.version,
                "portal": self.portal,
                "mode": self.mode,
                "began": self.began_unix,
                "keeps_params": self.keeps_params,
            }
        )


@dataclass(slots=True, frozen=True)
class Entry:
    """One line of a recording.

    Attributes:
        at_unix: When it came.
        event: What came, if it was an event.
        notice: The fields of what was said of the connection, if it was a notice; the kind
            of notice stands under ``notice``.
    """

    at_unix: float
    event: Recorded | None = None
    notice: Mapping[str, Any] | None = None


# -- writing ----------------------------------------------------------------------------


def event_line(event: Recorded, at_unix: float, *, keep_params: bool) -> bytes:
    """Return an event as a line.

    Raises:
        RecursionError: It is nested deeper than any encoder goes.
    """
    if isinstance(event, PortalEvent):
        told: dict[str, Any] = {
            "kind": "portal_event",
            "at": at_unix,
            "name": event.name,
            "data": event.raw if keep_params else hidden(event.raw),
            "user_id": event.user_id,
            "changed_at": event.changed_at,
            "connector": event.connector,
        }
    else:
        told = {
            "kind": "event",
            "at": at_unix,
            "mid": event.mid,
            "module": event.module_id,
            "command": event.command,
            "params": event.raw if keep_params else hidden(event.raw),
            "extra": event.extra if keep_params else _times_of(event.extra),
            # Never the id of the sender's channel, to which anybody could publish.
            "sender": event.sender.type.name.lower(),
            "event": event.kind,
            "created": event.created_unix,
            "expiry": event.expiry,
            "replayed": event.replayed,
            "healed": event.healed,
            "size": event.size,
        }
    try:
        return orjson.dumps(told, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError:
        # Integers of any size are exact.
        return json.dumps(told, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")


def notice_line(notice: Notice, at_unix: float) -> bytes:
    """Return a notice as a line: that there was one, and of a change of state what it was."""
    told: dict[str, Any] = {"kind": "notice", "at": at_unix, "notice": type(notice).__name__}
    if isinstance(notice, StateChanged):
        error = "" if notice.error is None else one_line(str(notice.error))
        told |= {"state": notice.state, "previous": notice.previous, "error": error}
    return orjson.dumps(told)


def hidden(value: Any) -> Any:
    """Return JSON of the same form without what it held: texts, numbers and odd names are gone."""
    match value:
        case bool() | None:
            return value
        case int() | float():
            return 0
        case str():
            return HIDDEN if value else ""
        case Mapping():
            named = cast("Mapping[object, Any]", value)
            return {_hidden_name(name, index): hidden(named[name]) for index, name in enumerate(named)}
        case list() | tuple():
            return [hidden(item) for item in cast("list[Any]", value)]
        case _:
            return HIDDEN


def _hidden_name(name: object, index: int) -> str:
    text = str(name)
    # A field's name is the program's, but maps have names and ids of people too.
    is_field = text.isascii() and text.isidentifier() and len(text) <= 40 and not text.isdigit()
    return text if is_field else f"{HIDDEN}{index}"


def _times_of(extra: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        name: value
        for name, value in extra.items()
        if name in ("server_time", "server_time_unix") and isinstance(value, str | int | float)
    }


# -- reading ----------------------------------------------------------------------------


class Recording:
    """Reads a recording, whole or cut off by a kill, with the files that it was rotated into.

    Example:
        for entry in Recording("events.jsonl.gz"):
            print(entry.at_unix, entry.event)

    Attributes:
        header: What stands at its beginning.

    Args:
        path: The file that was recorded to; older parts lie beside it.

    Raises:
        InvalidArgument: It cannot be read, or is no recording, or one of a later version.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = Path(path)
        self._parts = [*reversed(older_parts(self._path)), self._path]
        lines = _lines(self._parts[0])
        try:
            self.header: Header = _read_header(next(lines, b""), self._parts[0])
        finally:
            lines.close()

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries in order. What a kill has left half written at an end is left out."""
        for part in self._parts:
            lines = _lines(part)
            _read_header(next(lines, b""), part)
            for line in lines:
                if (entry := _read_entry(line)) is not None:
                    yield entry

    def events(self) -> Iterator[Recorded]:
        """Yield the events in order."""
        return (entry.event for entry in self if entry.event is not None)


def older_parts(path: Path) -> list[Path]:
    """Return the files that a recording was rotated into, the newest first."""
    parts: list[Path] = []
    while (part := part_of(path, len(parts) + 1)).exists():
        parts.append(part)
    return parts


def part_of(path: Path, number: int) -> Path:
    """Return where the part of a number lies: ``events.1.jsonl.gz``."""
    stem, dot, suffixes = path.name.partition(".")
    return path.with_name(f"{stem}.{number}{dot}{suffixes}")


def _lines(path: Path) -> Generator[bytes]:
    """Yield the whole lines of a file, compressed or not."""
    unpack: Callable[[bytes], bytes] | None = None
    rest = b""
    try:
        with path.open("rb") as file:
            while chunk := file.read(_READ_BYTES):
                if unpack is None:
                    is_packed = chunk.startswith(b"\x1f\x8b")
                    unpack = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress if is_packed else bytes
                pieces = (rest + unpack(chunk)).split(b"\n")
                rest = pieces.pop()
                if len(rest) > _LINE_MAX_BYTES:
                    raise InvalidArgument(f"{path} is no recording: a line has no end")
                yield from pieces
    except zlib.error:
        # A file system may leave anything behind after a crash of the machine.
        return
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}") from None


def _read_header(line: bytes, path: Path) -> Header:
    try:
        told: Any = orjson.loads(line)
        version = told[KEY]
        began_unix, keeps_params = float(told["began"]), bool(told["keeps_params"])
        header = Header(int(version), str(told["portal"]), str(told["mode"]), began_unix, keeps_params)
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError):
        raise InvalidArgument(f"{path} is no recording of bitrix_pull") from None
    if header.version > VERSION:
        raise InvalidArgument(
            f"{path} is a recording of version {header.version}, and this reads up to {VERSION}",
            advice="Read it with a newer bitrix_pull.",
        )
    return header


def _read_entry(line: bytes) -> Entry | None:
    try:
        told: Any = parser_for(line, len(line))(line)
        match told["kind"]:
            case "event":
                return Entry(float(told["at"]), event=_read_event(told))
            case "portal_event":
                return Entry(float(told["at"]), event=_read_portal_event(told))
            case "notice":
                return Entry(float(told["at"]), notice=told)
            case _:
                return None
    except (LookupError, TypeError, ValueError):
        return None


def _read_event(told: Mapping[str, Any]) -> PullEvent[Any]:
    kinds: dict[str, EventKind] = {"client": "client", "online": "online"}
    created, expiry = told.get("created"), told.get("expiry")
    return PullEvent(
        mid=str(told["mid"]),
        module_id=str(told["module"]),
        command=str(told["command"]),
        params=told.get("params", {}),
        extra=cast("Mapping[str, Any]", told["extra"]) if is_object(told.get("extra")) else {},
        sender=Sender(SenderType[str(told.get("sender", "backend")).upper()]),
        kind=kinds.get(str(told.get("event")), "server"),
        created_unix=None if created is None else int(created),
        expiry=None if expiry is None else int(expiry),
        replayed=bool(told.get("replayed")),
        healed=bool(told.get("healed")),
        size=int(told.get("size", 0)),
    )


def _read_portal_event(told: Mapping[str, Any]) -> PortalEvent[Any]:
    from bitrix_pull.portal_events.records import Record

    changed_at = told.get("changed_at")
    record = Record(
        id=0,
        message_id="",
        name=str(told["name"]),
        stamp="",
        changed_at=None if changed_at is None else datetime.fromisoformat(changed_at).astimezone(UTC),
        data=told.get("data"),
        user_id=None if told.get("user_id") is None else int(told["user_id"]),
    )
    return record.event(str(told.get("connector", "")))
