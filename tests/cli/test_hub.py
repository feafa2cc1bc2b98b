"""``bitrix-pull hub``: the real command over a database and an emulated cloud."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography.fernet import Fernet

from bitrix_pull.emulator import CloudPortal, EmulatedCloud
from tests.cli.command import BITRIX_PULL, Running, run, start
from tests.cli.conftest import RunHere
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
        # Its pipes are closed by that.
        await command.end()


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "portals.db")


async def test_portals_are_added_served_and_paused(file: str) -> None:
    async with EmulatedCloud(2) as cloud:
        one, two = cloud.portals
        assert (await run("hub", "add", "--portals", file, "one", *credentials(one))).code == 0
        async with running("hub", "run", "--portals", file, "--json") as hub:
            await hub.told("1 portals")
            added = await run("hub", "add", "--portals", file, "two", *credentials(two))
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
        await run("hub", "add", "--portals", file, "acme", *credentials(portal))
        async with running("hub", "run", "--portals", file, "--handlers", "my_handlers:router") as hub:
            await _live(cloud, 1)
            portal.send("hello", {"name": "Ann"})
            assert await hub.line() == "acme Ann"
            assert (await hub.stop(signal.SIGTERM)).code == 0


async def test_handlers_that_ask_for_what_nothing_provides_end_it(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "asking_handlers.py").write_text(
        "from bitrix_pull import Router\n"
        "router = Router()\n"
        "@router.on('hello')\n"
        "async def hello(event, db) -> None: ...\n"
    )
    monkeypatch.chdir(tmp_path)
    outcome = await run("hub", "run", "--portals", file, "--handlers", "asking_handlers:router")
    assert (outcome.code, "hello asks for db, which nothing provides" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["status"], "there is no"),
        (["pause", "acme"], "there is no"),
        (["add", "--portal", "acme.bitrix24.com", "--token", "token-of-acme"], "key is missing"),
        (["run", "--handlers", "nowhere:router"], "No module named"),
        (["run", "--handlers", "os:sep"], "is no Router"),
        (["run", "--handlers", ".nowhere:router"], "Write MODULE:ROUTER"),
        (["run", "--handlers", "os"], "Write MODULE:ROUTER"),
        (["drain", "one", "--valkey", "nonsense"], "address is none"),
        (["run", "--rate", "1", "--rate", "2"], "--rate is given twice"),
        (["run", "--handlers", "os:sep", "--json"], "--json goes without --handlers"),
        (["pause", "acme", "--name", "others"], "--name goes with --valkey"),
        (["run", "--cipher-keys", "keys"], "the database of --portals is not encrypted"),
        (["status", "--all"], "--all goes with --valkey"),
        (["drain", "one"], "named with --valkey only"),
    ],
)
def test_what_cannot_work_is_said(run_here: RunHere, file: str, arguments: list[str], text: str) -> None:
    outcome = run_here("hub", *arguments, "--portals", file)
    assert outcome.code == 2
    assert text in outcome.err
    assert "token-of-acme" not in outcome.err


@pytest.mark.parametrize("options", [["--json"], []])
async def test_a_reader_that_has_seen_enough_ends_it_and_takes_no_more(file: str, options: list[str]) -> None:
    async with EmulatedCloud(1) as cloud:
        (portal,) = cloud.portals
        await run("hub", "add", "--portals", file, "acme", *credentials(portal))
        hub = await start("hub", "run", "--portals", file, *options, program=BITRIX_PULL, fresh=True)
        await _live(cloud, 1)
        portal.send("order_update", {"id": 1})
        await hub.line()
        hub.close_stdout()
        portal.send("order_update", {"id": 2})
        assert (await hub.end()).code == 0
        async with running("hub", "run", "--portals", file, "--json") as hub:
            assert (await hub.json_line())["params"] == {"id": 2}


async def test_help_names_the_commands() -> None:
    outcome = await run("hub", "--help")
    assert outcome.code == 0
    for command in ("run", "status", "add", "remove", "pause", "resume", "drain"):
        assert command in outcome.out


async def test_workers_that_share_portals_over_valkey(file: str) -> None:
    async with EmulatedCloud(3) as cloud:
        for number, portal in enumerate(cloud.portals):
            await run("hub", "add", "--portals", file, f"portal{number}", *credentials(portal))
        with engine() as server:
            arguments = ("hub", "run", "--portals", file, "--valkey", server.url, "--json")
            async with running(*arguments) as one, running(*arguments) as two:
                await _live(cloud, 3)
                # The second one may have come too late for any of them.
                await _status(("--portals", file), lambda told: len(told["workers"]) == 2)
                assert (await one.stop(signal.SIGTERM)).code == 0
                await _live(cloud, 3)
                cloud.portals[0].send("hello")
                assert (await two.json_line())["portal"] == "portal0"


async def test_hubs_that_meet_at_an_engine_alone_are_seen_and_drained_from_anywhere() -> None:
    """Neither status nor drain needs a file, or the machine that a hub runs on."""
    async with EmulatedCloud(4) as cloud:
        with engine() as server:
            at = ("--valkey", server.url, "--name", "shop")
            for number, portal in enumerate(cloud.portals):
                # One of them with a token that is none.
                given = [*credentials(portal)[:-1], "nonsense"] if number == 0 else credentials(portal)
                assert (await run("hub", "add", *at, f"portal{number}", *given)).code == 0
            assert (await run("hub", "pause", "portal3", *at)).code == 0
            nobody = await run("hub", "status", *at)
            assert (nobody.code, "no hub runs" in nobody.out) == (1, True)
            with contextlib.closing(redis.Redis.from_url(server.url)) as client:
                client.xgroup_create("{shop:0}:events", "billing", id="0", mkstream=True)
            arguments = ("hub", "run", *at, "--log", "--worker")
            async with running(*arguments, "one") as one, running(*arguments, "two") as two:
                await _live(cloud, 2)
                for number in (1, 2):
                    cloud.portals[number].send("order")
                told = await _status(
                    at,
                    # Workers say every 5 s how they are.
                    lambda told: (
                        len(told["workers"]) == 2
                        and [each["behind"] for each in told["log"]] == [2]
                        and told["failed"]
                    ),
                )
                assert (told["portals"], told["paused"], told["unserved"]) == (4, 1, 0)
                assert told["workers"].keys() == {"one", "two"}
                assert sum(worker["portals"] for worker in told["workers"].values()) == 3
                assert told["failed"].keys() == {"portal0"}
                owners = told["owners"]
                assert owners.keys() == {"portal0", "portal1", "portal2"}
                assert all(owner["epoch"] > 1_700_000_000_000 for owner in owners.values())
                assert told["log"] == [
                    {"group": "billing", "stream": "{shop:0}:events", "behind": 2, "kept": 2, "lost": False}
                ]
                shown = await run("hub", "status", *at)
                assert shown.code == 1
                for text in ("4 portals, 1 of them paused", "one", "two", "billing", "failed  portal0 at"):
                    assert text in shown.out
                assert cloud.portals[1].token not in shown.out

                nameless = await run("hub", "drain", *at)
                assert (nameless.code, "one, two" in nameless.err) == (2, True)
                assert (await run("hub", "drain", "three", *at)).code == 2
                drained = await run("hub", "drain", "one", *at)
                assert (drained.code, drained.err.splitlines()[-1]) == (0, "drained")
                outcome = await one.end()
                assert (outcome.code, "drained, as it was told to" in outcome.err) == (0, True)
                told = await _status(at, lambda told: not told["unserved"])
                assert {owner["worker"] for owner in told["owners"].values()} == {"two"}
                for key, owner in told["owners"].items():
                    assert owner["epoch"] >= owners[key]["epoch"]
                assert (await run("hub", "remove", "portal0", *at)).code == 0
                await _status(at, lambda told: told["portals"] == 3)
                assert (await run("hub", "status", *at)).code == 0
                assert (await two.stop(signal.SIGTERM)).code == 0


async def test_what_the_engine_keeps_can_be_encrypted(tmp_path: Path) -> None:
    keys, other = tmp_path / "keys", tmp_path / "other"
    for path in (keys, other):
        path.write_bytes(Fernet.generate_key() + b"\n")
    async with EmulatedCloud(1) as cloud:
        (portal,) = cloud.portals
        with engine() as server:
            at = ("--valkey", server.url)
            given = ("--cipher-keys", str(keys))
            assert (await run("hub", "add", *at, *given, "acme", *credentials(portal))).code == 0
            with contextlib.closing(redis.Redis.from_url(server.url)) as client:
                kept: Any = client.hgetall("{bitrix-pull:portals}:records")
            (record,) = kept.values()
            assert portal.token.encode() not in record
            assert record.startswith(b"gAAAA")
            for wrong, text in ((str(other), "another key"), (str(tmp_path), "cannot be read")):
                outcome = await run("hub", "pause", "acme", *at, "--cipher-keys", wrong)
                assert (outcome.code, text in outcome.err) == (2, True)
            environment = {"BITRIX_PULL_VALKEY": server.url, "BITRIX_PULL_CIPHER_KEYS": str(keys)}
            hub = await start("hub", "run", env=environment)
            try:
                await _live(cloud, 1)
                assert (await hub.stop(signal.SIGTERM)).code == 0
            finally:
                hub.kill()


async def _status(at: tuple[str, ...], reached: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            told: dict[str, Any] = json.loads((await run("hub", "status", *at, "--json")).out)
            if reached(told):
                return told
            await asyncio.sleep(0.5)


async def test_a_log_takes_an_engine(file: str) -> None:
    outcome = await run("hub", "run", "--portals", file, "--log")
    assert (outcome.code, "--valkey URL" in outcome.err) == (2, True)


async def test_without_a_place_for_portals_it_says_where_they_could_be() -> None:
    for arguments in (["run"], ["status"], ["drain"], ["add", "acme"], ["remove", "acme"]):
        account = ["--portal", "acme.bitrix24.com", "--token", "none"] if arguments[0] == "add" else []
        outcome = await run("hub", *arguments, *account)
        assert (outcome.code, "--portals FILE, or --valkey URL" in outcome.err) == (2, True)
