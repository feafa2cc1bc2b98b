"""These examples run against an emulator when no credentials are set, say so, and end by themselves."""

from pathlib import Path

import pytest

from tests.cli.command import start
from tests.forked import DEVELOPMENT
from tests.hub.engine import running
from tests.postgres import postgres

EXAMPLES = Path(__file__).parents[2] / "examples"

PROGRAMS = {
    "publisher.py": "order 9: paid, and published by rest",
    "hub.py": "gamma: deal 1 is NEW: Chairs for gamma",
    "once_sqlite.py": "first run: the balance is 42\nsecond run: the balance is 42",
    "bot.py": "bot: order 7 is sent",
    "prometheus.py": "\nmessaging_client_consumed_messages_total{",
    "crm_sync.py": "second run: 2 deals at the start\n   1 Chairs WON 900\n   3 Lamps NEW 0.00",
}

SERVICES = ["aiohttp_service.py", "fastapi_service.py", "worker.py"]
"""They serve until they are terminated: test_services.py does so."""

CONSUMERS = ["stream_consumer.py", "faststream_consumer.py"]
"""They need a Valkey or Redis."""


async def run(example: str, **more: str) -> tuple[int, str, str]:
    outcome = await (await start(program=[str(EXAMPLES / example)], env={**DEVELOPMENT, **more})).end()
    # The development mode also tells what took long, as anything may beside a busy core.
    told = [line for line in outcome.err.splitlines() if not line.startswith("Executing <")]
    return outcome.code, outcome.out, "\n".join(told)


@pytest.mark.parametrize("example", PROGRAMS)
async def test_runs_without_an_account(example: str) -> None:
    code, out, err = await run(example)

    assert (code, err) == (0, "")
    assert "running against an emulated portal" in out
    assert PROGRAMS[example] in out


async def test_one_needs_a_database() -> None:
    code, _, err = await run("once_postgres.py")
    assert (code, err) == (1, 'Set DATABASE to a database of PostgreSQL, as in "host=localhost dbname=test".')
    with postgres() as conninfo:
        code, out, err = await run("once_postgres.py", DATABASE=conninfo)
    assert (code, err) == (0, "")
    assert "first run: the balance is 42\nsecond run: the balance is 42" in out


@pytest.mark.parametrize("example", CONSUMERS)
async def test_some_need_an_engine(example: str) -> None:
    code, _, err = await run(example)
    assert (code, err) == (1, 'Set VALKEY to a Valkey or Redis server, as in "redis://localhost".')
    with running() as server:
        code, out, err = await run(example, VALKEY=server.url)
    assert code == 0
    # FastStream tells of a read that was under way when it was ended.
    assert not err or (example.startswith("faststream") and err.startswith("Message fetch error")), err
    for number in range(3):
        assert f"acme: order_paid {{'id': {number}}}" in out


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_without_an_account_says_what_it_needs(service: str) -> None:
    code, _, err = await run(service)

    assert code == 1
    assert "bitrix-pull emulator" in err


def test_every_program_among_the_examples_is_run() -> None:
    programs = {path.name for path in EXAMPLES.glob("*.py") if "__main__" in path.read_text()}
    assert programs == {*PROGRAMS, *SERVICES, *CONSUMERS, "once_postgres.py"}
