"""The first program of the README does what the README says."""

import asyncio
import re
import sys
from pathlib import Path

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
            async with asyncio.timeout(20):
                while not emulator.push.connections:
                    await asyncio.sleep(0.01)
                deal = emulator.portal.deals.add({"TITLE": "Chairs", "STAGE_ID": "WON"})
                assert await process.stdout.readline() == b"deal %d is WON by user 1\n" % deal
        finally:
            process.terminate()
            await process.communicate()
