"""Each service among the examples is terminated in mid-work, and finishes what it has begun."""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from bitrix_pull.emulator import Emulator
from tests.cli.command import Running, start
from tests.examples.test_examples import EXAMPLES, SERVICES

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def service(example: str, emu: Emulator, tmp_path: Path, port: int = 0) -> AsyncGenerator[Running]:
    running = await start(
        program=(str(EXAMPLES / example),),
        env={
            "BITRIX_PULL_PORTAL": emu.portal_url,
            "BITRIX_PULL_TOKEN": emu.token,
            "RESUME": str(tmp_path / "resume"),
            "PORT": str(port or free_port()),
        },
    )
    try:
        yield running
    finally:
        running.kill()


async def until_connected(emu: Emulator) -> None:
    async with asyncio.timeout(60):
        while not emu.push.connections:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("example", SERVICES)
async def test_it_is_terminated_in_mid_work_and_finishes_it(example: str, tmp_path: Path) -> None:
    async with Emulator() as emu, service(example, emu, tmp_path) as running:
        await until_connected(emu)
        emu.portal.send("order_update", {"id": 7, "status": "paid"})
        while await running.line() != "order 7 has changed":
            pass

        outcome = await running.stop(signal.SIGTERM)

        assert outcome.out == "order 7 is paid\n"
        assert outcome.code in (0, -signal.SIGTERM)  # uvicorn hands the signal on once it is done.
        assert "Traceback" not in outcome.err


@pytest.mark.parametrize("example", ["aiohttp_service.py", "fastapi_service.py"])
async def test_it_starts_without_the_portal_and_is_ready_with_it(example: str, tmp_path: Path) -> None:
    emu, port = Emulator(security_key="key"), free_port()
    await emu.start()
    await emu.close()
    url = f"http://127.0.0.1:{port}"
    async with service(example, emu, tmp_path, port) as running, aiohttp.ClientSession() as http:

        async def status(path: str) -> int:
            try:
                async with http.get(f"{url}/{path}") as answer:
                    return answer.status
            except aiohttp.ClientConnectionError:
                return 0

        async with asyncio.timeout(60):
            while await status("live") != 200:
                await asyncio.sleep(0.05)
        assert await status("ready") == 503
        async with http.get(f"{url}/ready") as answer:
            told = await answer.json()
        assert told["portal"] in emu.portal_url
        assert told["state"] == "configuring" or "did not answer" in told["last_error"]
        await emu.start()
        async with asyncio.timeout(60):
            while await status("ready") != 200:
                await asyncio.sleep(0.05)
        await running.stop(signal.SIGTERM)
    await emu.close()
