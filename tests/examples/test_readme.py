"""The first program of the README does what the README says, and its commands are some."""

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from bitrix_pull.cli.app import app
from bitrix_pull.emulator import Emulator

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def first_program() -> str:
    program = re.search(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert program is not None
    return program[1]


async def test_the_first_program_prints_the_deal() -> None:
    async with Emulator() as emulator:
        address, token = '"acme.bitrix24.com"', '"access token of an application"'
        program = first_program()
        assert address in program
        assert token in program
        program = program.replace(address, repr(emulator.portal_url)).replace(token, repr(emulator.token))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", "-c", program), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(60):
                while not emulator.push.connections:
                    await asyncio.sleep(0.01)
                deal = emulator.portal.deals.add({"TITLE": "Chairs", "STAGE_ID": "WON"})
                assert await process.stdout.readline() == b"deal %d is WON by user 1\n" % deal
        finally:
            process.terminate()
            await process.communicate()


@pytest.mark.parametrize("line", re.findall(r"bitrix-pull ((?:[^`\n#$])+)", README))
def test_its_commands_exist_and_take_those_options(line: str) -> None:
    words = line.split()
    command: Any = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    taken = {name for option in command.params for name in option.opts} | {"--help"}
    assert {word for word in words if word.startswith("--")} <= taken
    # All that is left of a group are options of its own, or "…".
    assert not hasattr(command, "commands") or words[:1] in ([], ["…"]) or words[0].startswith("--")
