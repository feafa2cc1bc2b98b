"""Every mistake gets one clear line and an exit code; nothing is sent and no secret is shown."""

import asyncio
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bitrix_pull.emulator import Emulator
from tests.cli.command import Outcome, run
from tests.cli.conftest import RunHere

CODE = "s3cr3tc0de"
WEBHOOK = f"https://acme.bitrix24.com/rest/1/{CODE}/"


def assert_one_clear_line(outcome: Outcome, code: int, told: str) -> None:
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    assert told in outcome.err
    assert outcome.err.count("\n") == 1
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["bad command"], "COMMAND_ERROR"),
        (["x", "--module", "CRM"], "MODULE_ID_ERROR"),
        (["x", "--params", "{id: 7}"], "at column 2"),
        (["x", "--params", '{"id":\n7'], "at line 2, column 2"),
        (["x", "--params", "[1]"], "must be a JSON object"),
        (["x", "--params", '{"a": NaN}'], "NaN is no JSON number"),
        (["x", "--params", '{"a": "\\ud800"}'], "lone surrogate"),
        (["x", "--params", '{"a": ' * 200_000], "nested too deeply"),
        (["x", "--user", "0"], "user id"),
        (["x", "--user", "one"], "valid integer"),
        (["x", "--route", "pigeon"], "pigeon"),
        ([], "COMMAND"),
        (["x", "--webhook", "https://acme.bitrix24.com/"], "/rest/USER/CODE/"),
    ],
)
def test_what_cannot_be_published(arguments: list[str], told: str, run_here: RunHere) -> None:
    with socket.create_server(("127.0.0.1", 0)) as portal:
        portal.setblocking(False)
        address = f"http://127.0.0.1:{portal.getsockname()[1]}"
        environment = {"BITRIX_PULL_PORTAL": address, "BITRIX_PULL_TOKEN": CODE}
        if "--webhook" in arguments:
            environment.clear()
        outcome = run_here("publish", *arguments, env=environment)
        with pytest.raises(BlockingIOError):
            portal.accept()

    assert_one_clear_line(outcome, 2, told)


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        ([], {}, "BITRIX_PULL_WEBHOOK"),
        (["--webhook", WEBHOOK, "--portal", "acme.bitrix24.com"], {}, "Give one kind"),
        ([], {"BITRIX_PULL_WEBHOOK": WEBHOOK, "BITRIX_PULL_TOKEN": CODE}, "Give one kind"),
        (["--portal", "acme.bitrix24.com"], {}, "token is missing"),
        (["--tokens", "none.json", "--token", CODE], {}, "Give one"),
        (["--tokens", "none.json", "--webhook", WEBHOOK], {}, "Give one kind"),
        ([], {"BITRIX_PULL_WEBHOOK": WEBHOOK, "BITRIX_PULL_TOKENS": "none.json"}, "Give one kind"),
        (["--webhook", WEBHOOK, "--client-id", "app"], {}, "refresh --tokens, which are missing"),
        (["--tokens", "none.json"], {}, "the client id is missing"),
        (["--tokens", "none.json", "--client-id", "app"], {}, "the file with the client secret is missing"),
        (
            ["--tokens", "none.json", "--client-id", "app", "--client-secret-file", "none"],
            {},
            "the token file none.json cannot be read: No such file",
        ),
        (
            ["--tokens", "none.json", "--portal", "acme.bitrix24.com", "--client-id", "app"],
            {"BITRIX_PULL_CLIENT_SECRET_FILE": "none"},
            "the file of --client-secret-file cannot be read: No such file",
        ),
        (
            ["--tokens", "none.json", "--client-id", "app", "--client-secret-file", sys.executable],
            {"BITRIX_PULL_PORTAL": "acme.bitrix24.com"},
            "the file of --client-secret-file holds no text",
        ),
        (["--token", CODE], {}, "portal's address is missing"),
        (["--webhook", WEBHOOK.replace("https", "http")], {}, "--allow-http HOST"),
        (["--webhook", WEBHOOK + "?" + CODE], {}, "query"),
        (["--portal", WEBHOOK, "--token", CODE], {}, "holds a path"),
        ([WEBHOOK], {}, "Got unexpected extra argument"),
        (["--events", "0"], {}, "--events"),
        (["--connector", "sync"], {}, "--connector goes with --portal-events"),
        (["--portal-events", "ONTASKADD", "--module", "im"], {}, "does not go with --command and --module"),
        (["--portal-events", ", "], {}, "--portal-events names nothing"),
        (["--nonsense"], {}, "--nonsense"),
    ],
)
def test_accounts_that_cannot_be(
    arguments: list[str], environment: dict[str, str], told: str, run_here: RunHere
) -> None:
    outcome = run_here("listen", *arguments, env=environment)

    assert_one_clear_line(outcome, 2, told)
    assert CODE not in outcome.err


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["listen", "--module", "a", "--module", "b"], "--module"),
        (["listen", "--portal", "one.example", "--token", CODE, "--portal=two.example"], "--portal"),
        (["listen", "--token=a", "--token=b"], "--token"),
        (["publish", "x", "--params", "{}", "--params", "{}"], "--params"),
        (["publish", "x", "--route", "rest", "--route", "rest"], "--route"),
        (["emulator", "--port", "0", "--port", "0"], "--port"),
    ],
)
def test_an_option_with_one_value_is_given_once(arguments: list[str], option: str, run_here: RunHere) -> None:
    outcome = run_here(*arguments)

    assert_one_clear_line(outcome, 2, f"{option} is given twice")
    assert CODE not in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--allow-http", "a.example", "--allow-http", "b.example"],
        ["--json", "--json"],
        # A value may look like an option.
        ["--command", "--module", "--module", "a"],
        ["--", "--module", "a", "--module", "b"],
    ],
)
def test_what_may_be_repeated_may_be_repeated(arguments: list[str], run_here: RunHere) -> None:
    outcome = run_here("listen", *arguments)

    assert outcome.code == 2
    assert "is given twice" not in outcome.err


@pytest.mark.parametrize("command", [["listen"], ["publish", "x"], ["config"]])
def test_the_way_to_the_portal_is_checked_before_anything_is_sent(
    command: list[str], run_here: RunHere, tmp_path: Path
) -> None:
    (tmp_path / "none.pem").write_text("no certificate")
    for arguments, told in (
        (["--ca-file", str(tmp_path / "missing.pem")], "No such file"),
        (["--ca-file", str(tmp_path / "none.pem")], "no certificate in PEM"),
        (["--proxy", f"socks5://me:{CODE}@proxy.example"], "SOCKS"),
    ):
        outcome = run_here(*command, "--webhook", WEBHOOK, *arguments)
        assert_one_clear_line(outcome, 2, told)
        assert CODE not in outcome.err


def test_a_webhook_where_the_command_belongs_is_not_echoed(run_here: RunHere) -> None:
    outcome = run_here("publish", WEBHOOK, "--webhook", WEBHOOK)

    assert outcome.code == 2
    assert CODE not in outcome.err


async def test_a_message_without_receivers_in_user_mode(emulator: Emulator) -> None:
    outcome = await run("publish", "x", "--webhook", emulator.webhook_url)

    assert_one_clear_line(outcome, 2, "--user ID")


async def test_options_go_before_the_environment(account: dict[str, str]) -> None:
    elsewhere = {**account, "BITRIX_PULL_WEBHOOK": "http://127.0.0.1:9/rest/1/abc/"}
    arguments = ("--portal", account["BITRIX_PULL_PORTAL"])

    assert (await run("config", *arguments, env=elsewhere)).code == 0


Answer = Callable[[], web.Response]

ANSWERS: dict[str, tuple[Answer, int, str]] = {
    "no portal": (lambda: web.Response(text="<h1>My shop</h1>", content_type="text/html"), 3, "portal"),
    "502 page": (
        lambda: web.Response(text="<h1>Bad gateway</h1>", content_type="text/html", status=502),
        1,
        "502",
    ),
    "no channels": (lambda: web.json_response({"result": {"server": {"version": 4}}}), 1, "channel"),
    "expired token": (lambda: web.json_response({"error": "expired_token"}, status=401), 3, "token"),
    "no scope": (lambda: web.json_response({"error": "insufficient_scope"}, status=403), 3, "scope"),
    "not configured": (lambda: web.json_response({"error": "SERVER_ERROR"}, status=500), 3, "enable"),
    "busy": (
        # Longer than a call may take: it is not waited for.
        lambda: web.json_response(
            {"error": "QUERY_LIMIT_EXCEEDED"}, status=503, headers={"Retry-After": "60"}
        ),
        1,
        "less often",
    ),
    "moved": (
        lambda: web.Response(status=302, headers={"Location": "https://new.example/"}),
        3,
        "new.example",
    ),
}


@pytest.mark.parametrize("answer", ANSWERS)
async def test_portals_that_do_not_serve(answer: str) -> None:
    give, code, told = ANSWERS[answer]

    async def handle(request: web.Request) -> web.Response:
        return give()

    app = web.Application()
    app.router.add_post("/{path:.*}", handle)
    async with TestServer(app) as server:
        outcome = await run("config", "--portal", f"http://127.0.0.1:{server.port}", "--token", CODE)

    assert_one_clear_line(outcome, code, told)
    assert CODE not in outcome.err


async def test_a_portal_that_is_not_there() -> None:
    with_nobody = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = with_nobody.sockets[0].getsockname()[1]
    with_nobody.close()
    await with_nobody.wait_closed()
    portal = f"http://127.0.0.1:{port}"

    publish = await run("publish", "x", "--portal", portal, "--token", CODE)
    listen = await run("listen", "--portal", portal, "--token", CODE, "--timeout", "1")

    assert_one_clear_line(publish, 1, "did not answer")
    assert listen.code == 1
    assert "not connected" in listen.err
    assert "not live within 1 s" in listen.err.splitlines()[-1]


async def test_a_webhook_without_rights_needs_a_person(emulator: Emulator) -> None:
    emulator.portal.webhook_scope = set()
    outcome = await run("listen", "--webhook", emulator.webhook_url)

    assert_one_clear_line(outcome, 3, "pull_channel")


async def test_a_port_that_is_taken(emulator: Emulator) -> None:
    port = emulator.portal_url.rpartition(":")[2]
    outcome = await run("emulator", "--port", port)

    assert_one_clear_line(outcome, 1, f"port {port} on 127.0.0.1 is in use")


async def test_an_emulator_cannot_listen_at_an_address_of_its_own_making() -> None:
    assert_one_clear_line(await run("emulator", "--host", "::1"), 2, "IPv4")
    outcome = await run("emulator", "--host", "no.such.host.invalid")
    assert outcome.code == 1
    assert "cannot listen on no.such.host.invalid" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["listn"], "No such command 'listn'"),
        (["listen", "--transport", "x"], "Invalid value for '--transport': 'x' is not one of 'auto'"),
    ],
)
def test_a_complaint_is_a_sentence(arguments: list[str], told: str, run_here: RunHere) -> None:
    outcome = run_here(*arguments)

    assert_one_clear_line(outcome, 2, f"bitrix-pull: {told}")
    assert "?." not in outcome.err
