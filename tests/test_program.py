"""``bitrix_pull.run``, as a process of its own that is stopped, or that fails."""

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator

import pytest

import bitrix_pull
from bitrix_pull import AccessToken, PullClient
from bitrix_pull.emulator import Emulator
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.program import collect_less_often
from tests.cli.command import Running, start

PROGRAM = """
import asyncio, os, bitrix_pull
from bitrix_pull import AccessToken, PullClient, PullEvent, PullOptions
{set_up}
pull = PullClient(AccessToken(os.environ["PORTAL"], os.environ["TOKEN"]), options=PullOptions({options}))

@pull.on("x")
async def handle(event: PullEvent) -> None:
    print("began", flush=True)
    await asyncio.sleep(event.params["seconds"])
    print("finished", flush=True)

@pull.on("wrong")
async def fail(event: PullEvent) -> None:
    raise LookupError("nobody told me")

bitrix_pull.run(pull)
print("goes on", flush=True)
"""


@pytest.fixture
async def emu() -> AsyncIterator[Emulator]:
    async with Emulator() as emulator:
        yield emulator


async def begin(emu: Emulator, *, set_up: str = "", options: str = "") -> Running:
    """Start the program, and wait until it is connected."""
    code = PROGRAM.format(set_up=set_up, options=options)
    running = await start(program=("-c", code), env={"PORTAL": emu.portal_url, "TOKEN": emu.token})
    async with asyncio.timeout(60):
        while not emu.push.connections:
            await asyncio.sleep(0.02)
    return running


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_handlers_finish_and_the_program_go_on_to_its_end(
    emu: Emulator, by: signal.Signals
) -> None:
    program = await begin(emu)
    emu.portal.send("x", {"seconds": 0.5})
    assert await program.line() == "began"

    outcome = await program.stop(by)

    assert (outcome.code, outcome.out) == (0, "finished\ngoes on\n")
    assert "live" in outcome.err
    assert "Traceback" not in outcome.err


async def test_a_second_signal_waits_for_no_handler(emu: Emulator) -> None:
    program = await begin(emu, options="close_drain_s=60")
    emu.portal.send("x", {"seconds": 60})
    assert await program.line() == "began"

    program.send_signal(signal.SIGINT)
    await program.told("again to end at once")
    outcome = await program.stop(signal.SIGINT)

    assert (outcome.code, outcome.out) == (0, "goes on\n")
    assert "Traceback" not in outcome.err


async def test_what_a_handler_raises_is_seen(emu: Emulator) -> None:
    program = await begin(emu)
    emu.portal.send("wrong", {})
    await program.told("LookupError: nobody told me")

    assert (await program.stop(signal.SIGTERM)).code == 0


async def test_a_client_that_fails_for_good_ends_the_program_with_one_error_that_says_what_to_do(
    emu: Emulator,
) -> None:
    program = await begin(emu)
    emu.portal.expire_token(emu.token)
    emu.portal.rotate()

    outcome = await program.end()

    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err.count("ERROR") == 1
    assert "failed for good" in outcome.err
    assert "Traceback" not in outcome.err


async def test_a_log_that_the_program_has_set_up_stays_as_it_is(emu: Emulator) -> None:
    program = await begin(emu, set_up="import logging; logging.basicConfig(format='mine %(message)s')")
    emu.portal.expire_token(emu.token)
    emu.portal.rotate()

    lines = (await program.end()).err.splitlines()

    assert lines
    assert all(line.startswith("mine ") for line in lines)


@pytest.mark.parametrize("level", ["LOUD", None, ()])
def test_a_level_that_does_not_exist_is_refused(level: object) -> None:
    pull = PullClient(AccessToken("acme.bitrix24.com", "token"))

    with pytest.raises(InvalidArgument, match="log level"):
        bitrix_pull.run(pull, log_level=level)  # type: ignore[arg-type]


async def test_in_a_loop_that_runs_it_says_what_to_await() -> None:
    pull = PullClient(AccessToken("acme.bitrix24.com", "token"))

    with pytest.raises(RuntimeError, match=r"await it there: await pull\.run\(\)"):
        bitrix_pull.run(pull)


@pytest.mark.parametrize(("before", "after"), [((700, 10, 10), 10_000), ((900, 10, 10), 900)])
def test_the_garbage_collector_runs_less_often_unless_the_program_has_set_it_up(
    before: tuple[int, int, int], after: int
) -> None:
    present = gc.get_threshold()
    try:
        gc.set_threshold(*before)
        collect_less_often()
        assert gc.get_threshold() == (after, 10, 10)
    finally:
        gc.set_threshold(*present)
