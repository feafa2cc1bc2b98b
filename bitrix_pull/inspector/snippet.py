"""An event as a test of a handler: the code that a person goes on with."""

import json
import re
from collections.abc import Mapping
from textwrap import indent
from typing import Any, cast

from bitrix_pull.redaction import HIDDEN, printable
from bitrix_pull.wire.messages import is_object

_WIDTH = 88


def write_test(event: Mapping[str, Any]) -> str:
    """Return a test in which a ``TestClient`` delivers an event as the page shows it.

    Args:
        event: As ``shown_event`` makes it, read.
    """
    arguments = [_line(event["command"]), _literal(json.loads(event["params"]))]
    if event["module"] != "application":
        arguments.append(f"module={_line(event['module'])}")
    imports: list[str] = []
    if event["sender"] == "client":
        imports = ["from bitrix_pull import Sender, SenderType"]
        arguments.append("sender=Sender(SenderType.CLIENT)")
    call = f"await client.deliver({', '.join(arguments)})"
    if len(call) + len("        result = ") > _WIDTH or "\n" in call:
        listed = "".join(f"{indent(argument, '    ')},\n" for argument in arguments)
        call = f"await client.deliver(\n{listed})"
    notes: list[str] = []
    if HIDDEN in event["params"]:
        notes.append(f'# "{HIDDEN}" stands where something looked like a secret.')
    if event["cut"]:
        notes.append("# The event was too large to be shown whole: something is missing here.")
    body = "\n".join([*notes, f"result = {call}"])
    lines = [
        *imports,
        "from bitrix_pull.testing import TestClient",
        "",
        "from my_service import router  # your Router or PullClient",
        "",
        "",
        f"async def test_{_identifier(event['command'])}() -> None:",
        "    async with TestClient(router) as client:",
        indent(body, " " * 8),
        "",
        "    assert result.handled",
    ]
    return "\n".join(lines) + "\n"


def _literal(value: object, room: int = _WIDTH - 12) -> str:
    """Write a JSON value in Python, over as many lines as it needs."""
    line = _line(value)
    if len(line) <= room or not value:
        return line
    if is_object(value):
        opening, closing = "{}"
        inside = [f"{_line(key)}: {_literal(each, room - 4)}" for key, each in value.items()]
    elif isinstance(value, list):
        opening, closing = "[]"
        inside = [_literal(each, room - 4) for each in cast("list[object]", value)]
    else:
        return line
    return "\n".join([opening, *(indent(f"{each},", " " * 4) for each in inside), closing])


def _line(value: object) -> str:
    if is_object(value):
        return f"{{{', '.join(f'{_line(key)}: {_line(each)}' for key, each in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_line, cast('list[object]', value)))}]"
    if isinstance(value, str):
        # What JSON writes for a text means the same in Python.
        return printable(json.dumps(value, ensure_ascii=False))
    return repr(value)


def _identifier(command: str) -> str:
    return re.sub(r"\W+", "_", command, flags=re.ASCII).strip("_").lower() or "event"
