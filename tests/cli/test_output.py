"""What people and programs see of an event."""

import contextlib
import io
import json
from dataclasses import replace
from typing import Any

import pytest

from bitrix_pull.cli.config import summarize
from bitrix_pull.cli.output import Columns, JsonLines
from bitrix_pull.events import BACKEND_SENDER, UNKNOWN_SENDER, PullEvent, Sender, SenderType
from bitrix_pull.portal.models import read_config


def event(params: Any, sender: Sender = BACKEND_SENDER, **fields: Any) -> PullEvent:
    return PullEvent("1" * 26, "application", "x", params, {}, sender, "server", **fields)


def nested(depth: int) -> Any:
    inner: Any = {}
    for _ in range(depth):
        inner = [inner]
    return inner


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_a_terminal(shown: PullEvent, monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "80", **environment}.items():
        monkeypatch.setenv(name, value)
    with contextlib.redirect_stdout(Terminal()) as terminal:
        Columns().show(shown)
    return terminal.getvalue()


def test_a_terminal_gets_colours_and_folded_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on_a_terminal(event({"text": "x" * 100}, Sender(SenderType.CLIENT, "ab" * 16)), monkeypatch)

    assert "\x1b[36mclient" in shown
    assert shown.count("x" * 20) >= 3
    assert shown.count("\n") > 2


def test_colours_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on_a_terminal(event({}), monkeypatch, NO_COLOR="1")

    assert "portal" in shown
    assert "\x1b[3" not in shown


def test_a_huge_event_is_cut_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    Columns().show(event({"text": "x" * 1_000_000}))

    out = capsys.readouterr().out
    assert len(out) < 3_000
    assert "1,000,012 characters in all" in out


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        (event({}, replayed=True), "portal replayed"),
        (event({}, UNKNOWN_SENDER), "unknown"),
        (event({"a": "é\x07"}), '{"a": "é\\u0007"}'),
        (event({"a": "\x9b\u202e"}), '{"a": "\\x9b\\u202e"}'),
        (event({"a": "[red]b[/red] :smile:"}), '{"a": "[red]b[/red] :smile:"}'),
        (replace(event({}), command="[red]b\x1b[2J\n"), r"application.[red]b\x1b[2J\n"),
        (replace(event({}), module_id="[link=x]im\u202e"), r"[link=x]im\u202e.x"),
        (event(nested(100_000)), "(nested too deeply to be shown)"),
    ],
)
def test_columns(shown: PullEvent, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    Columns().show(shown)

    assert told in capsys.readouterr().out


def test_programs_get_everything(capsys: pytest.CaptureFixture[str]) -> None:
    JsonLines().show(event({"a": "é"}, created_unix=0, expiry=5))

    assert json.loads(capsys.readouterr().out) == {
        "mid": "1" * 26,
        "module_id": "application",
        "command": "x",
        "params": {"a": "é"},
        "extra": {},
        "sender": {"type": "backend", "id": ""},
        "kind": "server",
        "created": "1970-01-01T00:00:00+00:00",
        "expiry": 5,
        "replayed": False,
        "healed": False,
    }


def test_an_event_that_cannot_be_written_is_told_and_ends_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    deep: dict[str, Any] = {}
    for _ in range(500):
        deep = {"a": deep}
    JsonLines().show(event(deep))

    out, err = capsys.readouterr()
    assert out == ""
    assert "application.x" in err


def test_a_configuration_is_summarized_without_what_is_secret() -> None:
    config = read_config(
        {
            "server": {"version": 5, "websocket": "wss://user:pw@push.example/subws/?key=secret"},
            "channels": {"shared": {"id": "secret.secret"}},
            "jwt": "secret",
            "clientId": "secret",
        }
    )
    summary = summarize(config)

    assert "secret" not in str(summary)
    assert summary["server"]["websocket"] == "wss://push.example/subws/"
    assert summary["channels"] == {
        "shared": {"id": "***", "public_id": None, "start": None, "end": None, "remaining_s": None}
    }
