"""What the page shows of events, notices and figures: JSON, bounded in size, without secrets."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final, assert_never, cast

import orjson

from bitrix_pull.events import (
    Continuity,
    EventsDropped,
    Gap,
    HandlerFailed,
    InboxFull,
    MessageDropped,
    Notice,
    PortalTrouble,
    PullEvent,
    State,
    StateChanged,
)
from bitrix_pull.health import Health, OldestEvent, StoreHealth
from bitrix_pull.redaction import HIDDEN, hide, one_line

_SECRET_NAME: Final = re.compile(
    r"auth|auth_id|refresh_id|authorization|cookie|\w*token|\w*secret|password|passwd|sessid"
    r"|channel_?id|client_?id|signature|jwt|api_?key",
    re.IGNORECASE,
)
"""Names whose values are secrets whatever they look like."""

_DEEPEST = 40
_ROOM = 64 * 1024
_LONGEST_TEXT = 16 * 1024
_LONGEST_NAME = 200


class Copier:
    """Copies JSON values without secrets, until there is no room any more.

    Attributes:
        is_cut: Whether something was left out for want of room.
    """

    def __init__(self) -> None:
        self.is_cut: bool = False
        self._room = _ROOM

    def copy(self, value: object, depth: int = 0) -> Any:
        """Return a value as it may be shown."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return self._map(cast("Mapping[object, object]", value), depth)
        if isinstance(value, list | tuple):
            return self._list(cast("Sequence[object]", value), depth)
        self._room -= 8
        return value if isinstance(value, bool | int | float) or value is None else self._text(repr(value))

    def _text(self, text: str, longest: int = _LONGEST_TEXT) -> str:
        limit = max(min(longest, self._room), 0)
        if len(text) > limit:
            self.is_cut = True
            text = f"{text[:limit]}… ({len(text):,} characters)"
        self._room -= len(text) + 4
        return hide(text)

    def _map(self, values: Mapping[object, object], depth: int) -> dict[str, Any]:
        copied: dict[str, Any] = {}
        for number, (key, value) in enumerate(values.items()):
            if self._room <= 0 or depth >= _DEEPEST:
                self.is_cut = True
                copied["…"] = f"{len(values) - number:,} more"
                break
            name = self._text(str(key), _LONGEST_NAME)
            is_secret = isinstance(value, str | int | float) and _SECRET_NAME.fullmatch(name) is not None
            copied[name] = HIDDEN if is_secret and value else self.copy(value, depth + 1)
        return copied

    def _list(self, values: Sequence[object], depth: int) -> list[Any]:
        copied: list[Any] = []
        for number, value in enumerate(values):
            if self._room <= 0 or depth >= _DEEPEST:
                self.is_cut = True
                copied.append(f"… {len(values) - number:,} more")
                break
            copied.append(self.copy(value, depth + 1))
        return copied


def shown_value(value: object) -> Any:
    """Return a JSON value as it may be shown."""
    return Copier().copy(value)


def written(value: object) -> str:
    """Return JSON values as text, in any shape that Python's reader of JSON gives."""
    try:
        return orjson.dumps(value).decode()
    except (orjson.JSONEncodeError, UnicodeError):
        # Integers of more than 64 bits, and halves of surrogate pairs.
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "replace").decode()


def shown_event(event: PullEvent[Any], received_at: float) -> bytes:
    """Return an event as the page gets it. Its params are JSON within the JSON: few are ever looked at."""
    copier = Copier()
    params = written(copier.copy(event.raw))
    return orjson.dumps(
        {
            "at": round(received_at, 3),
            "created": event.created_unix,
            "mid": event.mid,
            "module": shown_name(event.module_id),
            "command": shown_name(event.command),
            # Not its id: that is a channel.
            "sender": event.sender.type.name.lower(),
            "kind": event.kind,
            "replayed": event.replayed,
            "healed": event.healed,
            "size": event.size,
            "extra": written(copier.copy(event.extra)),
            "params": params,
            "cut": copier.is_cut,
        }
    )


def shown_name(text: str) -> str:
    """Return a name as it may be shown."""
    return one_line(text[:_LONGEST_NAME]).encode("utf-8", "replace").decode()


def shown_notice(notice: Notice, at: float) -> bytes:
    """Return a notice as the page gets it: what kind it is, how grave, and a sentence."""
    kind, level, text = _told(notice)
    shown: dict[str, Any] = {"at": round(at, 3), "kind": kind, "level": level, "text": one_line(text)}
    if isinstance(notice, StateChanged):
        shown["state"] = notice.state
    return orjson.dumps(shown)


def _told(notice: Notice) -> tuple[str, str, str]:  # noqa: C901 - one case a kind of notice
    match notice:
        case StateChanged(state=State.FAILED, error=error):
            return "state", "bad", f"Failed for good: {error}"
        case StateChanged(state=State.BACKOFF, error=error, retry_in_s=retry_in_s):
            return (
                "state",
                "warn",
                f"Not connected: {_sentence(error)} Next attempt in {retry_in_s or 0:.1f} s.",
            )
        case StateChanged(state=State.LIVE):
            return "state", "good", "Live."
        case StateChanged(state=state):
            return "state", "", f"{str(state).replace('_', ' ').capitalize()}."
        case Gap():
            return "gap", "bad", "The push server's history was gone: events may be lost."
        case Continuity(audited=False):
            return "continuity", "warn", "The server could not be asked for what it may have left out."
        case Continuity(replayed=replayed, offline_s=offline_s, recovered=recovered):
            known = {"yes": "nothing was missed", "unknown": "nothing to tell by whether all came"}
            missed = f"{replayed:,} missed events are delivered now" if replayed else known.get(recovered, "")
            away = "" if offline_s is None else f" after {offline_s:.1f} s"
            return "continuity", "good", f"Back{away}: {missed or 'what was before is too old to tell'}."
        case MessageDropped(reason=reason, total=total):
            return "dropped", "warn", f"Left out an unreadable message ({total:,} in all): {reason}"
        case EventsDropped(total=total):
            return "dropped", "bad", f"Handlers are too slow; events dropped so far: {total:,}."
        case InboxFull(event=waiting, handler=handler):
            return "full", "warn", f"Reading has stopped until {handler} is through with {waiting}."
        case HandlerFailed(handler=handler, event=event, error=error):
            return "handler", "bad", f"{handler} failed on {event.label}: {type(error).__name__}."
        case PortalTrouble(error=error, retry_in_s=retry_in_s):
            return "portal", "warn", f"{_sentence(error)} It is asked again in {retry_in_s:.0f} s."
    assert_never(notice)


def _sentence(error: Exception | None) -> str:
    return f"{str(error or 'no reason is known').rstrip('.')}."


def shown_health(health: Health, at: float) -> bytes:
    """Return the figures of a moment as the page gets them."""
    # Nothing is unrouted where the inspector listens to everything.
    shown = {each.name: getattr(health, each.name) for each in fields(health) if each.name != "unrouted"}
    return orjson.dumps({"at": round(at, 3), **shown}, default=_plain)


def _plain(value: object) -> Any:
    match value:
        case OldestEvent():
            return {"event": one_line(value.event), "handler": value.handler, "age_s": value.age_s}
        case StoreHealth():
            return {"saved_at": value.saved_at, "error": one_line(value.error)}
        case datetime():
            return value.timestamp()
        case _:
            raise TypeError(type(value).__name__)
