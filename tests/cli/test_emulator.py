import signal
import socket
import ssl
from pathlib import Path

import aiohttp
import pytest

from tests.cli.command import Running, run, start

KEY = "a key that stays"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def start_emulator(port: int) -> Running:
    return await start("emulator", "--port", str(port), "--security-key", KEY, "--json")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
async def test_says_where_it_is_and_serves_until_stopped(stop: signal.Signals) -> None:
    port = free_port()
    emulator = await start_emulator(port)
    ready = await emulator.json_line()

    addresses = {"portal", "webhook", "oauth", "sub", "subws", "pub", "rest", "stat"}
    assert ready.keys() == addresses | {"token", "refresh_token", "client_id", "client_secret", "member_id"}
    assert ready["portal"] == f"http://127.0.0.1:{port}"
    by_token = await run("config", "--portal", ready["portal"], "--token", ready["token"], "--json")
    by_webhook = await run("config", "--webhook", ready["webhook"], "--json")
    assert by_token.json_lines[0]["mode"] == "application"
    assert by_webhook.json_lines[0]["mode"] == "user"
    assert by_token.json_lines[0]["server"]["websocket"] == ready["subws"]

    outcome = await emulator.stop(stop)
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "the emulator has stopped\n")


async def test_tells_people_how_to_use_it() -> None:
    emulator = await start("emulator")
    lines = [await emulator.line() for _ in range(22)]
    outcome = await emulator.stop()

    assert outcome.code == 0
    assert any(line.startswith("  export BITRIX_PULL_TOKEN=") for line in lines)


async def test_every_option_is_taken(tmp_path: Path) -> None:
    users, faults = tmp_path / "users.json", tmp_path / "faults.json"
    users.write_text('[{"id": 2, "active": false}]')
    faults.write_text('{"websocket_refusal": 403}')
    emulator = await start(
        *("emulator", "--json", "--push-version", "3", "--mode", "personal", "--portals", "2"),
        *("--users", str(users), "--faults", str(faults), "--channel-life", "60", "--licence", "basic"),
        *("--static", 'user.get=[{"ID": "1"}]', "--gather", "0", "--latency", "0.01", "--seed", "7"),
        *("--rest-limit", "50/2", "--tls", "--control", "0"),
    )
    ready = await emulator.json_line()
    assert len(ready["others"]) == 1
    assert ready["portal"].startswith("https://")
    authority = ready["ca_file"]
    trusting = ssl.create_default_context(cafile=authority)
    call = f"{ready['portal']}/rest/user.get"
    async with aiohttp.ClientSession() as session:
        async with session.post(call, json={"auth": ready["token"]}, ssl=trusting) as answer:
            assert (await answer.json())["result"] == [{"ID": "1"}]
        async with session.get(f"{ready['control']}/journal") as answer:
            assert [entry["details"]["method"] for entry in await answer.json()] == ["user.get"]
        config = f"{ready['portal']}/rest/pull.application.config.get"
        async with session.post(config, json={"auth": ready["token"]}, ssl=trusting) as answer:
            assert (await answer.json())["result"]["server"]["version"] == 3
        url = ready["subws"].replace("wss:", "https:")
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
        async with session.get(url, headers=upgrade, ssl=trusting) as answer:
            assert answer.status == 403
    outcome = await emulator.stop()
    assert outcome.code == 0
    with pytest.raises(OSError, match="No such file"):
        ssl.create_default_context(cafile=authority)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--users", "/no/such/file"], "No such file"),
        (["--faults", "FILE"], "misspelt"),
        (["--static", "user.get"], "METHOD=JSON"),
        (["--static", "user.get={"], "METHOD=JSON"),
        (["--rest-limit", "many"], "BURST/PER_S"),
        (["--rest-limit", "50/0"], "BURST/PER_S"),
        (["--mode", "shared", "--push-version", "3"], "always 4"),
        (["--port", "65535", "--portals", "2"], "last port"),
    ],
)
async def test_what_is_no_good_is_said(tmp_path: Path, arguments: list[str], words: str) -> None:
    file = tmp_path / "faults.json"
    file.write_text('{"misspelt": 1}')
    given = [str(file) if argument == "FILE" else argument for argument in arguments]
    outcome = await run("emulator", *given)
    assert outcome.code == 2
    assert outcome.out == ""
    assert words in outcome.err
    assert "Traceback" not in outcome.err


async def test_a_killed_emulator_comes_back_and_so_does_the_listener() -> None:
    """What is published while the listener is away stands in the history: nothing is lost."""
    port = free_port()
    emulator = await start_emulator(port)
    ready = await emulator.json_line()
    account = {"BITRIX_PULL_PORTAL": ready["portal"], "BITRIX_PULL_TOKEN": ready["token"]}
    listener = await start("listen", "--events", "5", "--json", env=account)
    try:
        await listener.told("live on")
        await run("publish", "before", env=account)
        assert (await listener.json_line())["command"] == "before"

        emulator.kill()
        await listener.told("not connected")
        assert (await run("publish", "lost", env=account)).code == 1
        emulator = await start_emulator(port)
        assert await emulator.json_line() == ready
        for command in ("first", "second", "third"):
            assert (await run("publish", command, env=account)).code == 0
        await listener.told("live again")
        assert (await run("publish", "after", env=account)).code == 0
        outcome = await listener.end()
    finally:
        listener.kill()
        emulator.kill()
        await emulator.end()

    assert outcome.code == 0
    heard = {event["command"]: event["replayed"] for event in outcome.json_lines}
    # When the listener is back does not depend on when the publishers are through.
    assert list(heard) == ["first", "second", "third", "after"]
    assert heard["after"] is False
