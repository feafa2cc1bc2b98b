"""What tests of your own handlers need. ``pytest_plugin.py`` brings its fixtures to pytest."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitrix_pull.testing.answers import Call
    from bitrix_pull.testing.client import NotSettled, TestClient
    from bitrix_pull.testing.clock import Clock
    from bitrix_pull.testing.events import make_event, make_portal_event
    from bitrix_pull.testing.outcomes import Delivered, Handling
    from bitrix_pull.testing.post import Published
    from bitrix_pull.testing.recorder import Recorder
    from bitrix_pull.testing.recording import Recording
    from bitrix_pull.testing.replay import Replay, Replayed
    from bitrix_pull.testing.stores import check_resume_store, check_token_store

__all__ = [
    "Call",
    "Clock",
    "Delivered",
    "Handling",
    "NotSettled",
    "Published",
    "Recorder",
    "Recording",
    "Replay",
    "Replayed",
    "TestClient",
    "check_resume_store",
    "check_token_store",
    "make_event",
    "make_portal_event",
]

_HOMES = {
    "Call": "answers",
    "Clock": "clock",
    "Delivered": "outcomes",
    "Handling": "outcomes",
    "NotSettled": "client",
    "Published": "post",
    "Recorder": "recorder",
    "Recording": "recording",
    "Replay": "replay",
    "Replayed": "replay",
    "TestClient": "client",
    "check_resume_store": "stores",
    "check_token_store": "stores",
    "make_event": "events",
    "make_portal_event": "events",
}

if not TYPE_CHECKING:
    # The plugin lives here too, and a run of pytest that does not use it shall not wait.

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = importlib.import_module(f"bitrix_pull.testing.{_HOMES[name]}")
        value = globals()[name] = getattr(home, name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
