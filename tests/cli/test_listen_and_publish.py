import asyncio
import json
import signal
from pathlib import Path

import pytest

from bitrix_pull.cli.account import Account
from bitrix_pull.cli.listen import listen
from bitrix_pull.cli.record import record
from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.certificates import make_certificates
from tests import virtual_time
from tests.cli.command import Outcome, run, start
from tests.virtual_time import unix_time


async def test_what_one_publishes_the_other_shows(account: dict[str, str]) -> None:
    listener = await start("listen", "--events", "3", "--json", env=account)
    await listener.told("live on")

    by_rest = await run("publish", "order_update", "--params", '{"id": 7, "who": "Юрий"}', env=account)
    to_user = await run(
        *("publish", "hello", "--params", "{}", "--user", "1", "--module", "crm.bot", "--json"), env=account
    )
    by_endpoint = await run("publish", "x", "--user", "1", "--route", "endpoint", "--json", env=account)
    heard = await listener.end()

    assert (by_rest.code, by_rest.out) == (0, "published order_update by REST; it was accepted\n")
    assert to_user.json_lines == [{"route": "rest", "messages": 1, "requests": 1, "confirmed": True}]
    assert by_endpoint.json_lines[0]["route"] == "endpoint"
    assert heard.code == 0
    first, second, third = heard.json_lines
    assert (first["command"], first["params"]) == ("order_update", {"id": 7, "who": "Юрий"})
    assert (second["module_id"], second["params"], second["kind"]) == ("crm.bot", {}, "server")
    assert (third["kind"], third["sender"]["type"]) == ("client", "client")


async def test_the_socket_is_live_before_it_is_published_over(
    account: dict[str, str], emulator: Emulator
) -> None:
    listener = await start("listen", "--events", "1", "--json", env=account)
    await listener.told("live on")
    receipt = await run("publish", "x", "--user", "1", "--route", "socket", "--json", env=account)
    heard = await listener.end()

    assert receipt.json_lines == [{"route": "socket", "messages": 1, "requests": 1, "confirmed": False}]
    assert heard.json_lines[0]["command"] == "x"


async def test_oneself_and_public_channels_can_be_named(account: dict[str, str], emulator: Emulator) -> None:
    told = emulator.portal.public_channels("application", [1])["1"]
    channel = f"{told['public_id']}.{told['signature']}"
    listener = await start("listen", "--events", "2", "--json", env=account)
    await listener.told("live on")
    for receiver in (["--to-self"], ["--channel", channel]):
        receipt = await run("publish", "x", *receiver, "--route", "endpoint", "--json", env=account)
        assert receipt.json_lines[0]["confirmed"]
    assert [event["command"] for event in (await listener.end()).json_lines] == ["x", "x"]

    refused = await run("publish", "x", "--channel", channel[:-1], "--route", "endpoint", env=account)
    assert refused.code == 2
    assert channel[:32] not in refused.err


async def test_a_webhook_hears_and_publishes_as_its_user(emulator: Emulator) -> None:
    listener = await start("listen", "--webhook", emulator.webhook_url, "--events", "1", "--json")
    told = await listener.told("live on")
    await run("publish", "typing", "--user", "1", env={"BITRIX_PULL_WEBHOOK": emulator.webhook_url})
    heard = await listener.end()

    assert heard.json_lines[0]["command"] == "typing"
    assert emulator.portal.webhook_code() not in told + heard.err


@pytest.mark.parametrize("command", ["listen", "record"])
def test_after_the_last_event_nothing_is_waited_for(command: str, tmp_path: Path) -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        async with Emulator(security_key="key", clock=unix_time) as emu:
            account = Account(portal=emu.portal_url, token=emu.token)
            if command == "listen":
                program = listen(
                    account,
                    events=1,
                    command=None,
                    module=None,
                    portal_events=(),
                    transport="auto",
                    connector="",
                    timeout_s=10,
                    as_json=True,
                )
            else:
                program = record(
                    account, tmp_path / "x", keep_params=False, events=1, transport="auto", as_json=True
                )
            running = asyncio.create_task(program)
            while not emu.push.connections:
                await asyncio.sleep(0.01)
            await asyncio.sleep(10)
            began = loop.time()
            emu.portal.send("x", {})
            await running
            return loop.time() - began

    assert virtual_time.run(main) < 1


async def test_params_can_come_from_stdin(account: dict[str, str], emulator: Emulator) -> None:
    listener = await start("listen", "--events", "1", "--json", env=account)
    await listener.told("live on")
    publisher = await start("publish", "big", "--params", "-", env=account)
    text = "#!NGINXNME!#" + "ж" * 300_000
    await publisher.write(json.dumps({"text": text}))
    published = await publisher.end()
    heard = await listener.end()

    assert published.code == 0
    assert heard.json_lines[0]["params"] == {"text": text}


async def test_only_the_wanted_module_is_shown(account: dict[str, str], emulator: Emulator) -> None:
    listener = await start("listen", "--events", "1", "--module", "crm", "--json", env=account)
    await listener.told("live on")
    emulator.portal.send("noise", {})
    emulator.portal.send("deal", {}, module="crm")
    heard = await listener.end()

    assert [event["command"] for event in heard.json_lines] == ["deal"]


async def test_people_get_one_line_an_event_in_a_pipe(account: dict[str, str], emulator: Emulator) -> None:
    listener = await start("listen", "--events", "1", env=account)
    await listener.told("live on")
    emulator.portal.send("note", {"text": "x" * 500, "escape": "\x1b[31m\x9b31m"})
    heard = await listener.end()

    assert heard.out.count("\n") == 1
    assert "application.note" in heard.out
    assert "x" * 500 in heard.out
    assert "\x1b" not in heard.out
    assert "\x9b" not in heard.out


async def test_a_signal_ends_a_listener_cleanly(account: dict[str, str], emulator: Emulator) -> None:
    listener = await start("listen", env=account)
    await listener.told("live on")
    outcome = await listener.stop(signal.SIGINT)

    assert outcome == Outcome(0, "", "stopped after 0 events\n")


async def test_a_signal_ends_a_publisher_that_waits() -> None:
    asked = asyncio.Event()

    async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read(-1)
        writer.close()

    async with await asyncio.start_server(stay_silent, "127.0.0.1", 0) as portal:
        port = portal.sockets[0].getsockname()[1]
        publisher = await start("publish", "x", "--portal", f"http://127.0.0.1:{port}", "--token", "t")
        await asked.wait()
        outcome = await publisher.stop(signal.SIGTERM)

    assert outcome == Outcome(128 + signal.SIGTERM, "", "")


async def test_the_log_is_shown_when_asked_for_and_holds_no_secret(
    account: dict[str, str], emulator: Emulator
) -> None:
    outcome = await run("publish", "x", "--verbose", env=account)

    assert ": pull.application.event.add: HTTP 200" in outcome.err
    assert emulator.token not in outcome.err


@pytest.mark.parametrize("as_json", [True, False])
async def test_config_shows_what_is_no_secret(
    as_json: bool, account: dict[str, str], emulator: Emulator
) -> None:
    outcome = await run("config", *(["--json"] if as_json else []), env=account)

    assert outcome.code == 0
    assert emulator.subws_url in outcome.out
    config = emulator.portal.config("application", 1)
    secrets = [config["channels"]["private"][name] for name in ("id", "public_id")]
    secrets.append(config["channels"]["shared"]["id"])
    for secret in secrets:
        for part in secret.replace(":", ".").split("."):
            assert part not in outcome.out + outcome.err
    if as_json:
        shown = outcome.json_lines[0]
        assert shown["server"]["version"] == 4
        assert shown["channels"]["private"]["id"] == "***"
        assert 43_000 < shown["channels"]["shared"]["remaining_s"] <= 43_205
    else:
        assert "version 4, personal mode" in outcome.out


async def test_certificates_and_transport_are_options_too(tmp_path: Path) -> None:
    certificates = make_certificates("127.0.0.1")
    authority = tmp_path / "ca.pem"
    authority.write_text(certificates.authority)
    async with Emulator(tls=certificates.context) as emulator:
        account = {"BITRIX_PULL_PORTAL": emulator.portal_url, "BITRIX_PULL_TOKEN": emulator.token}
        trusting = ("--ca-file", str(authority))
        listener = await start(
            "listen", *trusting, "--transport", "long_polling", "--events", "1", "--json", env=account
        )
        await listener.told("live on")
        assert (await run("publish", "x", *trusting, env=account)).code == 0
        assert (await listener.end()).json_lines[0]["command"] == "x"
        assert (await run("config", *trusting, env=account)).code == 0

        distrusted = await run("config", env=account)
        assert distrusted.code == 1
        assert "TLS certificate is not accepted" in distrusted.err


@pytest.mark.parametrize("names_portal", [True, False])
async def test_tokens_from_a_file_are_refreshed_there(
    emulator: Emulator, tmp_path: Path, names_portal: bool
) -> None:
    portal = emulator.portal
    expired = portal.issue_token(1, 0.001)
    content = {"access_token": expired, "refresh_token": portal.issue_refresh_token(1)}
    if names_portal:
        content["client_endpoint"] = f"{emulator.portal_url}/rest/"
    tokens, secret = tmp_path / "tokens.json", tmp_path / "secret"
    tokens.write_text(json.dumps(content))
    secret.write_text(f"{portal.client_secret}\n")
    options = ["--tokens", str(tokens), "--client-id", portal.client_id, "--client-secret-file", str(secret)]
    if not names_portal:
        named_nowhere = await run("config", *options)
        assert named_nowhere.code == 2
        assert "does not name its portal. Give --portal URL" in named_nowhere.err
        options += ["--portal", emulator.portal_url]

    # An access token in the environment is not what was asked for.
    env = {"BITRIX_PULL_TOKEN": "no token"}
    outcome = await run("config", *options, "--oauth-url", emulator.oauth_url, env=env)
    assert outcome.code == 0, outcome.err
    assert json.loads(tokens.read_text())["access_token"] != expired
    for hidden in (portal.client_secret, *content.values()):
        assert hidden == content.get("client_endpoint") or hidden not in outcome.out + outcome.err
