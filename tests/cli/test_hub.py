"""``bitrix-pull hub``: the real command over a database and an emulated cloud."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bitrix_pull.emulator import CloudPortal, EmulatedCloud
from tests.cli.command import Running, run, start
from tests.hub.engine import running as engine


def credentials(portal: CloudPortal) -> list[str]:
    return ["--portal", portal.url, "--token", portal.token]


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[Running]:
    command = await start(*arguments)
    try:
        yield command
    finally:
        command.kill()


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "portals.db")


async def test_portals_are_added_served_and_paused(file: str) -> None:
    async with EmulatedCloud(2) as cloud:
        one, two = cloud.portals
        assert (await run("hub", "add", "--portals", file, "--key", "one", *credentials(one))).code == 0
        async with running("hub", "run", "--portals", file, "--json") as hub:
            await hub.told("1 portals")
            added = await run("hub", "add", "--portals", file, "--key", "two", *credentials(two))
            assert "added portal two" in added.err
            await _live(cloud, 2)
            for number, portal in enumerate(cloud.portals):
                portal.send("order_update", {"id": number})
            lines = [await hub.json_line() for _ in range(2)]
            assert {(line["portal"], line["command"]) for line in lines} == {
                ("one", "order_update"),
                ("two", "order_update"),
            }
            assert (await run("hub", "pause", "one", "--portals", file)).code == 0
            await _live(cloud, 1)
            assert (await run("hub", "resume", "one", "--portals", file)).code == 0
            await _live(cloud, 2)
            assert (await run("hub", "remove", "two", "--portals", file)).code == 0
            await _live(cloud, 1)
            assert (await run("hub", "remove", "two", "--portals", file)).code == 2
            status = await run("hub", "status", "--portals", file, "--json")
            told = json.loads(status.out)
            assert (told["portals"], told["paused"], told["failed"]) == (1, 0, {})
            assert len(told["workers"]) == 1
            assert one.token not in status.out
            drained = await run("hub", "drain", "--portals", file)
            assert (drained.code, "drained" in drained.err) == (0, True)
            assert (await hub.end()).code == 0
        status = await run("hub", "status", "--portals", file)
        assert (status.code, "no hub runs" in status.out) == (1, True)


async def _live(cloud: EmulatedCloud, count: int) -> None:
    async with asyncio.timeout(30):
        while len([each for each in cloud.push.connections if each.transport == "websocket"]) != count:
            await asyncio.sleep(0.02)


async def test_handlers_of_ones_own(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_handlers.py").write_text(
        "from bitrix_pull import PullEvent, Router\n"
        "router = Router()\n"
        "@router.on('hello')\n"
        "async def hello(event: PullEvent) -> None:\n"
        "    print(event.portal, event.params['name'], flush=True)\n"
    )
    monkeypatch.chdir(tmp_path)
    async with EmulatedCloud(1) as cloud:
        (portal,) = cloud.portals
        await run("hub", "add", "--portals", file, "--key", "acme", *credentials(portal))
        async with running("hub", "run", "--portals", file, "--handlers", "my_handlers:router") as hub:
            await _live(cloud, 1)
            portal.send("hello", {"name": "Ann"})
            assert await hub.line() == "acme Ann"
            assert (await hub.stop(signal.SIGTERM)).code == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["status"], "there is no"),
        (["pause", "acme"], "there is no"),
        (["add", "--portal", "acme.bitrix24.com", "--token", "token-of-acme"], "key is missing"),
        (["run", "--handlers", "nowhere:router"], "No module named"),
        (["run", "--handlers", "os:sep"], "is no Router"),
        (["run", "--rate", "1", "--rate", "2"], "--rate is given twice"),
    ],
)
async def test_what_cannot_work_is_said(file: str, arguments: list[str], text: str) -> None:
    outcome = await run("hub", *arguments, "--portals", file)
    assert outcome.code == 2
    assert text in outcome.err
    assert "token-of-acme" not in outcome.err


async def test_help_names_the_commands() -> None:
    outcome = await run("hub", "--help")
    assert outcome.code == 0
    for command in ("run", "status", "add", "remove", "pause", "resume", "drain"):
        assert command in outcome.out


async def test_workers_that_share_portals_over_valkey(file: str) -> None:
    async with EmulatedCloud(3) as cloud:
        for number, portal in enumerate(cloud.portals):
            await run("hub", "add", "--portals", file, "--key", f"portal{number}", *credentials(portal))
        with engine() as server:
            arguments = ("hub", "run", "--portals", file, "--valkey", server.url, "--json")
            async with running(*arguments) as one, running(*arguments) as two:
                await _live(cloud, 3)
                told = json.loads((await run("hub", "status", "--portals", file, "--json")).out)
                assert len(told["workers"]) == 2
                assert (await one.stop(signal.SIGTERM)).code == 0
                await _live(cloud, 3)
                cloud.portals[0].send("hello")
                assert (await two.json_line())["portal"] == "portal0"


async def test_a_log_takes_an_engine(file: str) -> None:
    outcome = await run("hub", "run", "--portals", file, "--log")
    assert (outcome.code, "--valkey URL" in outcome.err) == (2, True)
