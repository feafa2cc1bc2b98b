"""Neither a mistake of the user nor a word of the server brings a secret, or an escape, to a terminal."""

from collections.abc import AsyncGenerator

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bitrix_pull.emulator import Emulator
from tests.cli.command import run, start
from tests.cli.conftest import RunHere

TOKEN = "9f86d081884c7d65" * 4
CODE = "k3yt0th3p0rtal42"
WEBHOOK = f"https://acme.bitrix24.com/rest/1/{CODE}/"
PASSWORD = "Correct-Horse"

MISTAKES = {
    "a webhook for a command": [WEBHOOK],
    "a webhook for a command's argument": ["listen", WEBHOOK],
    "a webhook before the command": ["--webhook", WEBHOOK, "listen"],
    "a webhook glued to its option": ["listen", f"--webhook{WEBHOOK}"],
    "a webhook after another": ["publish", "x", WEBHOOK, WEBHOOK],
    "a webhook for a portal": ["listen", "--portal", WEBHOOK, "--token", TOKEN],
    "a webhook with spaces": ["listen", "--webhook", f"{WEBHOOK} {WEBHOOK}"],
    "a webhook for a host": ["listen", "--webhook", WEBHOOK, "--allow-http", WEBHOOK],
    "a token glued to its option": ["listen", f"--token{CODE}"],
    "a word glued to its option": ["listen", "--tokencorrecthorse"],
    "a token for a portal": ["listen", "--portal", TOKEN, "--token", TOKEN],
    "a code for a portal": ["listen", "--portal", CODE, "--token", TOKEN],
    "a password in a portal": ["listen", "--portal", f"https://me:{PASSWORD}@a.b", "--token", TOKEN],
    "a token for a number": ["listen", "--events", TOKEN],
    "a token for a number, by =": ["listen", f"--events={CODE}"],
    "a token for seconds": ["listen", "--timeout", CODE],
    "a token for a user": ["publish", "x", "--user", CODE],
    "a token for a route": ["publish", "x", "--route", CODE],
    "a token for a port": ["emulator", "--port", CODE],
    "a token for a switch": ["listen", f"--json={CODE}"],
    "a token with a newline": ["listen", "--portal", "a.b", "--token", f"{CODE}\n{CODE}"],
    "a token with a newline for a number": ["listen", "--events", f"{CODE}\n{CODE}"],
    "a webhook for the name of an event": ["publish", WEBHOOK, "--webhook", WEBHOOK],
    "a token as params": ["publish", "x", "--params", TOKEN, "--webhook", WEBHOOK],
    "a token as module": ["publish", "x", "--module", f"Token {CODE}", "--webhook", WEBHOOK],
    "not a number": ["listen", "--webhook", WEBHOOK, "--timeout", "nan"],
    "no end": ["listen", "--webhook", WEBHOOK, "--timeout", "inf"],
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_line_that_repeats_no_secret(mistake: str, run_here: RunHere) -> None:
    outcome = run_here(*MISTAKES[mistake])

    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome
    assert len(outcome.err) > 40
    for secret in (TOKEN, CODE, PASSWORD, "correcthorse"):
        assert secret not in outcome.err


@pytest.mark.parametrize("word", ["--nonsense", "lisen", "--web-hook"])
def test_a_plain_word_is_repeated(word: str, run_here: RunHere) -> None:
    assert word in run_here(word).err


@pytest.mark.parametrize("command", ["listen", "publish", "config", "emulator", "demo"])
def test_help_shows_nothing_of_the_environment(command: str, run_here: RunHere) -> None:
    environment = {"BITRIX_PULL_WEBHOOK": WEBHOOK, "BITRIX_PULL_PORTAL": "acme.bitrix24.com"}
    outcome = run_here(command, "--help", env={**environment, "BITRIX_PULL_TOKEN": TOKEN})

    assert outcome.code == 0
    for secret in (CODE, TOKEN, "acme.bitrix24.com"):
        assert secret not in outcome.out


BROKEN = """
import sys
from bitrix_pull.cli import main
from bitrix_pull.cli import listen
def credentials_of(account): raise RuntimeError("a bug")
listen.credentials_of = credentials_of
sys.argv[0] = "bitrix-pull"
main()
"""


async def test_the_traceback_of_a_bug_shows_no_values() -> None:
    process = await start(
        "listen", "--webhook", WEBHOOK, "--token", TOKEN, program=("-c", BROKEN), fresh=True
    )
    outcome = await process.end()

    assert outcome.code == 1
    assert "RuntimeError: a bug" in outcome.err
    assert CODE not in outcome.err
    assert TOKEN not in outcome.err


@pytest.mark.parametrize(
    ("written", "told"),
    [(b'{"a": "\xff"}', "not UTF-8"), (b'{"a": %s}' % (b"9" * 5_000), "too many digits")],
)
async def test_stdin_that_holds_no_params_is_refused(written: bytes, told: str) -> None:
    process = await start("publish", "x", "--params", "-", "--webhook", WEBHOOK)
    await process.write(written)
    outcome = await process.end()

    assert outcome.code == 2
    assert told in outcome.err
    assert outcome.err.count("\n") == 1


# -- what a server says -------------------------------------------------------------

HOSTILE = "[red]no[/red]\x1b]0;owned\x07\r\n2026-01-01 ERROR forged \u202e\u2028 \x9b31m"


@pytest.fixture
async def hostile_portal() -> AsyncGenerator[str]:
    """A portal that repeats the token and forges lines, or says so in its configuration."""

    async def handle(request: web.Request) -> web.Response:
        sent = await request.text()
        if "right" in sent:
            push = f"wss://a.b/{TOKEN}/{HOSTILE}"
            server = {"mode": HOSTILE, "websocket_secure": push, "long_polling_secure": "https://["}
            return web.json_response({"result": {"server": server, "channels": {"shared": {"id": TOKEN}}}})
        text = f"{HOSTILE} {sent}"
        return web.json_response({"error": text, "error_description": text}, status=403)

    app = web.Application()
    app.router.add_post("/{path:.*}", handle)
    async with TestServer(app) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.mark.parametrize("command", [("config",), ("listen",), ("publish", "x"), ("publish", "x", "-v")])
async def test_what_a_portal_says_stays_on_its_line(command: tuple[str, ...], hostile_portal: str) -> None:
    outcome = await run(*command, "--portal", hostile_portal, "--token", TOKEN)

    assert outcome.code in (1, 3)
    assert "[red]no[/red]" in outcome.err
    assert TOKEN not in outcome.err
    assert all(line.isprintable() for line in outcome.err.splitlines())
    assert not [line for line in outcome.err.splitlines() if line.startswith("2026-01-01 ERROR forged")]


async def test_what_a_configuration_holds_is_not_markup(hostile_portal: str) -> None:
    outcome = await run("config", "--portal", hostile_portal, "--token", "right-token")

    assert outcome.code == 0
    assert "[red]no[/red]" in outcome.out
    assert all(line.isprintable() for line in outcome.out.splitlines())
    assert TOKEN not in outcome.out


async def test_nor_does_json_hold_secrets_or_break_on_what_is_no_address(hostile_portal: str) -> None:
    outcome = await run("config", "--json", "--portal", hostile_portal, "--token", "right-token")

    assert outcome.code == 0
    assert orjson.loads(outcome.out)["server"]["long_polling"] == "(no address)"
    assert TOKEN not in outcome.out


@pytest.mark.parametrize("kind", ["webhook", "token"])
async def test_the_log_shows_no_secret(kind: str, emulator: Emulator) -> None:
    accounts = {
        "webhook": ["--webhook", emulator.webhook_url],
        "token": ["--portal", emulator.portal_url, "--token", emulator.token],
    }
    outcome = await run("config", "-v", *accounts[kind])

    assert outcome.code == 0
    assert "config.get: HTTP 200" in outcome.err
    assert emulator.token not in outcome.err
    assert emulator.portal.webhook_code() not in outcome.err
