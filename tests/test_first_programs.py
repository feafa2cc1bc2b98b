"""What a new user's first program shows on the terminal when something is wrong with it.

Each is a process of its own, as it would be run: what is wrong is told without being asked for,
and with what to do.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from bitrix_pull.emulator import Emulator
from tests.cli.command import Running, start
from tests.examples.test_examples import EXAMPLES

PROGRAM = """
import bitrix_pull
from bitrix_pull import AccessToken, PullClient, PullEvent, Webhook

pull = PullClient({arguments})

@pull.on("order_update")
{handler}

bitrix_pull.run(pull)
"""

HANDLER = """
async def handle(event: PullEvent) -> None:
    print(event.params["id"])
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")


@pytest.fixture
async def emu() -> AsyncIterator[Emulator]:
    async with Emulator() as emulator:
        yield emulator


def token_of(emu: Emulator) -> str:
    return f'AccessToken("{emu.portal_url}", "{emu.token}")'


async def run(arguments: str, handler: str = HANDLER) -> Running:
    code = PROGRAM.format(arguments=arguments, handler=handler.strip())
    return await start(program=("-c", code))


async def connected(emu: Emulator) -> None:
    async with asyncio.timeout(60):
        while not emu.push.connections:
            await asyncio.sleep(0.02)


async def test_a_wrong_token(emu: Emulator) -> None:
    outcome = await (await run(f'AccessToken("{emu.portal_url}", "{"x" * 40}")')).end()

    assert outcome.code == 3
    assert "Check the token" in outcome.err
    assert "Traceback" not in outcome.err


async def test_a_portal_that_is_not_there(emu: Emulator) -> None:
    running = await run('AccessToken("http://127.0.0.1:9", "nobodys-token")')

    line = await running.told("not connected")
    assert "127.0.0.1:9" in line
    assert "refused" in line
    assert (await running.stop(signal.SIGTERM)).code == 0


async def test_an_address_that_is_no_portal(emu: Emulator) -> None:
    outcome = await (await run(f'AccessToken("{emu.portal.push_url("/sub/")}", "nobodys-token")')).end()

    assert outcome.code in (1, 2, 3)
    assert "portal" in outcome.err


async def test_a_handler_that_raises(emu: Emulator) -> None:
    running = await run(token_of(emu), HANDLER.replace('"id"', '"number"'))
    await connected(emu)
    emu.portal.send("order_update", {"id": 7})

    assert "ERROR" in await running.told("handler handle failed on application.order_update")
    await running.told("KeyError: 'number'")
    assert (await running.stop(signal.SIGTERM)).code == 0


async def test_a_handler_that_takes_no_event(emu: Emulator) -> None:
    outcome = await (await run(token_of(emu), "async def handle() -> None: ...")).end()

    assert outcome.code == 1
    assert "must take" in outcome.err


async def test_a_misspelt_command(emu: Emulator) -> None:
    running = await run(token_of(emu))
    await connected(emu)
    emu.portal.send("order_updated", {"id": 7})

    assert "order_updated" in await running.told("no handler")
    assert (await running.stop(signal.SIGTERM)).code == 0


async def test_a_webhook_in_the_place_of_an_application(emu: Emulator) -> None:
    outcome = await (await run(f'Webhook("{emu.webhook_url}"), mode="application"')).end()

    assert outcome.code == 3
    assert "OAuth" in outcome.err
    assert "Traceback" not in outcome.err


async def test_an_application_without_the_scope(emu: Emulator) -> None:
    emu.portal.application_scope.clear()
    outcome = await (await run(token_of(emu))).end()

    assert outcome.code == 3
    assert 'scope "pull"' in outcome.err
    assert "Traceback" not in outcome.err


WITHIN = """
import asyncio
from bitrix_pull import AccessToken, PullClient

async def main() -> None:
    async with PullClient({arguments}):
        await asyncio.Event().wait()

asyncio.run(main())
"""

BESIDE = """
import asyncio
from bitrix_pull import AccessToken, PullClient

async def main() -> None:
    running = asyncio.create_task(PullClient({arguments}).run())
    await asyncio.wait({{running}})
    running.result()

asyncio.run(main())
"""


@pytest.mark.parametrize("program", ["the bot", WITHIN, BESIDE], ids=["bot", "async with", "create_task"])
async def test_a_token_that_is_revoked_under_it(emu: Emulator, program: str) -> None:
    if program == "the bot":
        account = {"BITRIX_PULL_PORTAL": emu.portal_url, "BITRIX_PULL_TOKEN": emu.token}
        running = await start(program=(str(EXAMPLES / "bot.py"),), env=account)
    else:
        running = await start(program=("-c", program.format(arguments=token_of(emu))))
    await connected(emu)
    emu.portal.expire_token(emu.token)
    emu.portal.rotate()

    outcome = await running.end()

    assert outcome.code == 1
    # One record of the log, and the error as the program raises it.
    (record,) = (line for line in outcome.err.splitlines() if "failed for good" in line)
    assert record.startswith("127.0.0.1")
    assert "Pass a fresh access token" in record
    assert "Pass a fresh access token" in outcome.err.splitlines()[-1]
