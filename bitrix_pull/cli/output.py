"""How events look: a JSON line for programs, aligned columns for people."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bitrix_pull.cli import streams
from bitrix_pull.events import PortalEvent, PullEvent, SenderType
from bitrix_pull.redaction import printable

_PARAMS_SHOWN = 2_000
"""Characters of the params that people are shown; programs get all."""

_PIPE_WIDTH = 10_000
"""Columns where the output is no terminal: nothing is folded there."""


Shown = PullEvent[Any] | PortalEvent[Any]


class EventPrinter(Protocol):
    """Shows events."""

    def show(self, event: Shown) -> None:
        """Show an event.

        Raises:
            BrokenPipeError: Nobody reads the output any more.
        """
        ...


class JsonLines:
    """Writes each event as one JSON object on a line of its own."""

    def show(self, event: Shown, **beside: str) -> None:
        """Write an event, after what else there is to say."""
        try:
            line = orjson.dumps({**beside, **event_as_json(event)})
        except orjson.JSONEncodeError:
            # Params can be nested deeper than the encoder goes; anybody may send such.
            streams.say(f"{event.label} cannot be written as JSON")
        else:
            streams.write_line(line)


class Columns:
    """Writes events as aligned columns, in colours on a terminal."""

    def __init__(self) -> None:
        self._console = people_console()

    def show(self, event: Shown, *, mark: str = "", at: datetime | None = None) -> None:
        """Write an event; ``at`` stands in for the time of its creation."""
        if isinstance(event, PortalEvent):
            at = (at or event.changed_at or datetime.now()).astimezone()
            who = Text("portal" if event.user_id is None else f"user {event.user_id}", "green")
            self.row(at, Text(printable(event.name), "bold"), who, Text(_shown_params(event.data)), mark)
            return
        at = (at or event.created or datetime.now()).astimezone()
        name = Text.assemble((f"{printable(event.module_id)}.", "dim"), (printable(event.command), "bold"))
        self.row(at, name, _sender(event), Text(_shown_params(event.params)), mark)

    def row(self, at: datetime, what: Text, who: Text, rest: Text, mark: str = "") -> None:
        """Write a line; ``mark`` stands before the second column."""
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_column(style="dim", no_wrap=True)
        if mark:
            line.add_column(no_wrap=True)
        line.add_column(min_width=24, no_wrap=True)
        line.add_column(min_width=8, no_wrap=True)
        line.add_column(overflow="fold")
        line.add_row(f"{at:%H:%M:%S}", *([mark] if mark else []), what, who, rest)
        self._console.print(line)


class _PeopleConsole(Console):
    def on_broken_pipe(self) -> None:
        """Let the error out, rather than exit on the spot."""
        raise  # rich calls this while it handles the BrokenPipeError


def people_console() -> Console:
    """Return a console over standard output: colours and folding on a terminal, neither elsewhere."""
    console = _PeopleConsole(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


def event_as_json(event: Shown) -> Mapping[str, Any]:
    """Return what programs get of an event."""
    if isinstance(event, PortalEvent):
        return {
            "event": event.name,
            "id": event.id,
            "data": event.data,
            "user_id": event.user_id,
            "changed_at": event.changed_at,
            "message_id": event.message_id,
            "connector": event.connector,
        }
    return {
        "mid": event.mid,
        "module_id": event.module_id,
        "command": event.command,
        "params": event.params,
        "extra": event.extra,
        "sender": {"type": event.sender.type.name.lower(), "id": event.sender.id},
        "kind": event.kind,
        "created": event.created,
        "expiry": event.expiry,
        "replayed": event.replayed,
        "healed": event.healed,
    }


def _sender(event: PullEvent[Any]) -> Text:
    match event.sender.type:
        case SenderType.BACKEND:
            who = Text("portal", "green")
        case SenderType.CLIENT:
            who = Text("client", "cyan")
        case SenderType.UNKNOWN:
            who = Text("unknown", "dim")
    return Text.assemble(who, (" replayed", "yellow")) if event.replayed else who


def _shown_params(params: Any) -> str:
    try:
        text = json.dumps(params, ensure_ascii=False)
    except RecursionError:
        return "(nested too deeply to be shown)"
    if len(text) > _PARAMS_SHOWN:
        return f"{printable(text[:_PARAMS_SHOWN])}… ({len(text):,} characters in all)"
    return printable(text)
