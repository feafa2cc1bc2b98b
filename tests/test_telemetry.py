"""Log records have documented fields, each of them its portal; JSON lines have nothing else."""

import asyncio
import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import bitrix_pull
from bitrix_pull import AccessToken, PullClient, PullEvent, PullOptions, State
from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.faults import ConnectionFaults
from bitrix_pull.telemetry import FIELDS, JsonFormatter, LogFields
from tests import virtual_time
from tests.cli.command import start
from tests.connection.listening import emulator

PACKAGE = Path(bitrix_pull.__file__).parent

PLAIN = {*vars(logging.LogRecord("", 0, "", 0, "", None, None)), "message", "asctime"}
"""What every record has."""


def own_fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in PLAIN}


Records = list[logging.LogRecord]


@pytest.fixture(scope="module")
def records() -> Records:
    """What is logged in a busy life."""
    kept: Records = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record)

    handler = Keeper()
    logger = logging.getLogger("bitrix_pull")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        busy_life()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return kept


def busy_life() -> None:
    """Let a client of the portal "acme" meet what makes it write records."""

    async def main() -> None:
        async with emulator(channel_life_s=7_200) as emu:
            options = PullOptions(inbox_max_events=2, overflow="drop_newest", rest_limit=None)
            pull = PullClient(AccessToken(emu.portal_url, emu.token), name="acme", options=options)

            @pull.on("x")
            def fail(event: PullEvent) -> None:
                raise ValueError

            @pull.on("slow", retries=1, retry_delay=1.0)
            async def slow(event: PullEvent) -> None:
                await asyncio.sleep(30)
                raise LookupError

            @pull.on_portal_event("ONCRMDEALUPDATE")
            async def deal(event: object) -> None: ...

            serving = asyncio.create_task(pull.run())
            await asyncio.sleep(1)
            for command in ("x", "y", *["slow"] * 10):
                emu.portal.send(command)
            emu.portal.change("ONCRMDEALUPDATE", {"FIELDS": {"ID": "7"}})
            await asyncio.sleep(100)
            for refusal in (403, 503, "reset"):
                emu.push.faults.websocket_refusal = emu.push.faults.poll_refusal = refusal
                await emu.push.disconnect_all()
                await asyncio.sleep(100)
            emu.push.faults.websocket_refusal = emu.push.faults.poll_refusal = None
            emu.push.faults.script = lambda _: ConnectionFaults(garbled=1.0)
            await asyncio.sleep(100)
            emu.portal.send("x")
            await asyncio.sleep(100)
            emu.push.faults.script = None
            emu.push.drop_history()
            await emu.push.disconnect_all()
            emu.portal.faults.locked_channels = frozenset({"private"})
            await asyncio.sleep(8_000)
            emu.portal.faults.locked_channels = frozenset()
            await pull.publish("x")
            await asyncio.sleep(100)
            emu.portal.expire_token(emu.token)
            emu.portal.rotate()
            await asyncio.sleep(100)
            assert pull.state is State.FAILED
            await asyncio.wait({serving})
            assert serving.exception() is not None

    virtual_time.run(main)


def test_every_record_has_its_portal_and_documented_fields_only(records: Records) -> None:
    rooms = {record.name for record in records}
    assert {"bitrix_pull.connection", "bitrix_pull.dispatch", "bitrix_pull.portal"} < rooms
    assert [record.getMessage() for record in records if getattr(record, "portal", "") != "acme"] == []
    seen = {name for record in records for name in own_fields(record)}
    assert seen <= set(FIELDS)
    # The scenario is one that says something.
    assert seen >= {
        "state",
        "previous",
        "retry_in_s",
        "error",
        "event",
        "mid",
        "handler",
        "attempts",
        "count",
    }
    assert seen >= {"method", "status", "duration_s"}


def test_fields_say_what_the_text_says(records: Records) -> None:
    (failure, *_) = [record for record in records if "handler" in own_fields(record)]
    told = own_fields(failure)
    assert told["handler"].endswith("fail")
    assert (told["event"], told["error"], told["attempts"]) == ("application.x", "ValueError", 1)
    assert told["mid"] in failure.getMessage()
    (last,) = [record for record in records if own_fields(record).get("state") == "failed"]
    assert (last.levelname, own_fields(last)["error"]) == ("ERROR", "TokenExpired")


def test_no_logger_is_made_past_the_gate() -> None:
    making = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if "emulator" not in path.parts and re.search(r"logging\.(getLogger|Logger)\(", path.read_text())
    ]
    # The last two look for handlers of others, and add one.
    assert sorted(making) == ["cli/running.py", "program.py", "redaction.py"]


def test_every_field_is_documented() -> None:
    text = Path(sys.modules[LogFields.__module__].__file__ or "").read_text()
    for name in LogFields.__annotations__:
        assert re.search(rf'^    {name}: \w+\n    """\w', text, re.MULTILINE), name


def test_json_lines_hold_the_fields_and_the_traceback(records: Records) -> None:
    lines = [json.loads(JsonFormatter().format(record)) for record in records]
    assert {line["portal"] for line in lines} == {"acme"}
    assert not any(line["message"].startswith("acme: ") for line in lines)
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert {name for line in lines for name in line} <= {
        *("time", "level", "logger", "message", "traceback"),
        *FIELDS,
    }
    (failure, *_) = [line for line in lines if line.get("error") == "ValueError"]
    assert "raise ValueError" in failure["traceback"]


@pytest.fixture
def account(emu: Emulator) -> dict[str, str]:
    return {"BITRIX_PULL_PORTAL": emu.portal_url, "BITRIX_PULL_TOKEN": emu.token}


@pytest.fixture
async def emu() -> Any:
    async with Emulator() as emulator:
        yield emulator


async def test_the_command_line_says_all_in_json(emu: Emulator, account: dict[str, str]) -> None:
    listener = await start("listen", "--events", "1", "--log-format", "json", env=account)
    told = await listener.told("live on")
    assert json.loads(told)["logger"] == "bitrix_pull.cli"
    emu.portal.send("x", {"n": 1})
    outcome = await listener.end()
    lines = [json.loads(line) for line in outcome.err.splitlines()]
    assert outcome.code == 0
    assert all(line["level"] in ("INFO", "WARNING") for line in lines)

    listener = await start(
        "listen",
        "--log-format",
        "json",
        "--verbose",
        env=account | {"BITRIX_PULL_TOKEN": "a-wrong-token-here"},
    )
    outcome = await listener.end()
    lines = [json.loads(line) for line in outcome.err.splitlines()]
    assert outcome.code == 3
    assert (lines[-1]["level"], lines[-1]["logger"]) == ("ERROR", "bitrix_pull.cli")
    assert {"state", "previous"} <= {name for line in lines for name in line}


async def test_a_program_may_log_so_too(emu: Emulator) -> None:
    program = (
        "import bitrix_pull; bitrix_pull.run(bitrix_pull.PullClient(bitrix_pull.AccessToken("
        f"{emu.portal_url!r}, 'a-wrong-token-here'), name='acme'), log_format='json')"
    )
    outcome = await (await start(program=("-c", program))).end()
    assert outcome.code == 3
    lines = [json.loads(line) for line in outcome.err.splitlines()]
    assert lines[-1]["portal"] == "acme"
    assert lines[-1]["state"] == "failed"
