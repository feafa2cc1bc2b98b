import platform
import subprocess
import sys

import pytest

from tests.cli.command import run
from tests.cli.conftest import RunHere

COMMANDS = (
    "demo",
    "listen",
    "events",
    "publish",
    "config",
    "doctor",
    "inspect",
    "record",
    "replay",
    "emulator",
)
HEAVY = ("aiohttp", "websockets", "google.protobuf")


async def test_help_names_every_command() -> None:
    outcome = await run("--help")

    assert outcome.code == 0
    for command in (
        "demo",
        "listen",
        "events",
        "publish",
        "config",
        "doctor",
        "inspect",
        "record",
        "replay",
        "emulator",
        "hub",
    ):
        assert command in outcome.out


def test_nothing_at_all_is_a_request_for_help(run_here: RunHere) -> None:
    assert run_here() == run_here("--help")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str, run_here: RunHere) -> None:
    outcome = run_here(command, "--help")

    assert outcome.code == 0
    assert "--json" in outcome.out


def test_version(run_here: RunHere) -> None:
    outcome = run_here("--version")

    assert outcome.code == 0
    first, *others = outcome.out.splitlines()
    assert first.startswith("bitrix-pull 0.")
    # For reports of bugs.
    names = [line.split(" ")[0] for line in others]
    assert names[0] == platform.python_implementation()
    assert {"aiohttp", "websockets", "orjson", "pydantic", "protobuf", "typer"} <= set(names)
    assert all(len(line.split(" ")) >= 2 for line in others)


def test_help_does_not_wait_for_heavy_imports() -> None:
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bitrix_pull", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr

    imported = {line.rpartition("|")[2].strip() for line in told.splitlines()}
    assert "bitrix_pull.cli.app" in imported
    assert not imported.intersection(HEAVY)


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_it_says_how_to_install_it(missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from bitrix_pull.cli import main; main()"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert told.returncode == 2
    assert told.stderr.count("\n") == 1
    assert "pip install 'bitrix-pull[cli]'" in told.stderr
