import ast
import json
import sys
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitrix_pull import PullEvent, Router
from bitrix_pull.inspector.snippet import write_test
from tests.inspector.test_shown import JSON


def a_shown_event(params: Any, **others: Any) -> dict[str, Any]:
    known = {"module": "application", "command": "order_update", "sender": "backend", "cut": False}
    return {**known, "params": json.dumps(params, ensure_ascii=False), **others}


def delivered(code: str) -> ast.Call:
    """Return the call that delivers the event."""
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    (call,) = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "deliver"]
    return call


@given(st.dictionaries(st.text(), JSON))
def test_the_test_delivers_the_params_that_came(params: dict[str, Any]) -> None:
    command, written = delivered(write_test(a_shown_event(params))).args
    assert ast.literal_eval(command) == "order_update"
    assert ast.literal_eval(written) == params


@given(st.text(min_size=1))
def test_any_name_of_a_command_makes_a_test(command: str) -> None:
    code = write_test(a_shown_event({}, command=command))
    assert ast.literal_eval(delivered(code).args[0]) == command
    (test,) = [node.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.AsyncFunctionDef)]
    assert test.startswith("test_")
    assert test.isascii()


async def test_it_runs_and_its_handler_gets_the_event(monkeypatch: pytest.MonkeyPatch) -> None:
    router = Router()
    got: list[PullEvent[Any]] = []

    @router.on("order_update", module="im")
    async def handle(event: PullEvent[Any]) -> None:
        got.append(event)

    service = ModuleType("my_service")
    service.router = router  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_service", service)
    params = {"id": 7, "customer": {"name": "Юрий", "big": 10**30, "line": "a\u2028b\n"}, "paid": None}
    names: dict[str, Any] = {}
    exec(write_test(a_shown_event(params, module="im", sender="client")), names)

    await names["test_order_update"]()
    assert [(event.params, event.kind) for event in got] == [(params, "client")]


def test_it_reads_as_a_person_would_have_written_it() -> None:
    params = {"id": 1001, "customer": {"name": "Юрий", "tags": ["vip", "eu"]}, "paid": True, "note": None}
    event = a_shown_event({**params, "token": "***", "text": "Packed and sent"}, module="im", sender="client")
    assert (
        write_test(event)
        == """\
from bitrix_pull import Sender, SenderType
from bitrix_pull.testing import TestClient

from my_service import router  # your Router or PullClient


async def test_order_update() -> None:
    async with TestClient(router) as client:
        # "***" stands where something looked like a secret.
        result = await client.deliver(
            "order_update",
            {
                "id": 1001,
                "customer": {"name": "Юрий", "tags": ["vip", "eu"]},
                "paid": True,
                "note": None,
                "token": "***",
                "text": "Packed and sent",
            },
            module="im",
            sender=Sender(SenderType.CLIENT),
        )

    assert result.handled
"""
    )
