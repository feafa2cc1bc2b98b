import signal
import socket

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

    assert ready.keys() == {"portal", "webhook", "token", "sub", "subws", "pub", "rest", "stat"}
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
    lines = [await emulator.line() for _ in range(17)]
    outcome = await emulator.stop()

    assert outcome.code == 0
    assert any(line.startswith("  export BITRIX_PULL_TOKEN=") for line in lines)


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
    assert heard == {"first": True, "second": True, "third": True, "after": False}
