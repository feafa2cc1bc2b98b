"""Each example runs against an emulator when no credentials are set, says so, and ends by itself."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

PROGRAMS = {
    "publisher.py": "order 9: paid, and published by rest",
    "bot.py": "bot: order 7 is sent",
    "background_listener.py": 'GET /health: {"state": "live", "received": 3}',
}


async def run(example: str) -> tuple[int | None, str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BITRIX_PULL_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", str(EXAMPLES / example)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    out, err = await asyncio.wait_for(process.communicate(), 20)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("example", PROGRAMS)
async def test_runs_without_an_account(example: str) -> None:
    code, out, err = await run(example)

    assert (code, err) == (0, "")
    assert "running against an emulated portal" in out
    assert PROGRAMS[example] in out


def test_every_program_among_the_examples_is_run() -> None:
    programs = {path.name for path in EXAMPLES.glob("*.py") if "__main__" in path.read_text()}
    assert programs == PROGRAMS.keys()
