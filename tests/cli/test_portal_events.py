import pytest

from bitrix_pull.emulator import Emulator
from tests.cli.command import run, start
from tests.cli.conftest import RunHere

UPDATE = "ONCRMDEALUPDATE"


async def test_what_happens_on_the_portal_is_shown(account: dict[str, str], emulator: Emulator) -> None:
    listener = await start(
        *("listen", "--portal-events", f"oncrmdealadd, {UPDATE}", "--events", "2", "--json"), env=account
    )
    await listener.told("live on")
    emulator.portal.change(UPDATE, {"FIELDS": {"ID": "7"}}, user_id=5)
    emulator.portal.change("ONCRMDEALADD", False, user_id=None)
    outcome = await listener.end()
    assert outcome.code == 0
    first, second = sorted(outcome.json_lines, key=lambda line: str(line["id"]))
    assert (first["event"], first["id"], first["user_id"]) == (UPDATE, 7, 5)
    assert first["data"] == {"FIELDS": {"ID": "7"}}
    assert (second["event"], second["id"], second["data"], second["user_id"]) == (
        "ONCRMDEALADD",
        None,
        {},
        None,
    )


async def test_people_see_aligned_columns(account: dict[str, str], emulator: Emulator) -> None:
    listener = await start("listen", "--portal-events", UPDATE, "--connector", "sync", env=account)
    await listener.told("live on")
    assert emulator.portal.offline.bindings == [(UPDATE, "sync")]
    emulator.portal.change(UPDATE, {"FIELDS": {"ID": "7"}}, user_id=5)
    line = await listener.line()
    assert line.split()[1:4] == [UPDATE, "user", "5"]
    await listener.stop()


async def test_an_event_that_the_portal_does_not_have(account: dict[str, str]) -> None:
    outcome = await run("listen", "--portal-events", "ONNOTHING", env=account)
    assert outcome.code == 3
    assert "ONNOTHING" in outcome.err
    assert "bitrix-pull events" in outcome.err


async def test_no_administrator(emulator: Emulator) -> None:
    env = {"BITRIX_PULL_PORTAL": emulator.portal_url, "BITRIX_PULL_TOKEN": emulator.portal.issue_token(5)}
    outcome = await run("listen", "--portal-events", UPDATE, env=env)
    assert outcome.code == 3


def test_a_webhook_has_none(run_here: RunHere) -> None:
    outcome = run_here("events", "--webhook", "https://acme.bitrix24.com/rest/1/s3cr3tc0de/")
    assert outcome.code == 3
    assert "Use OAuth or AccessToken of an installed application" in outcome.err


@pytest.mark.parametrize("other", [["--command", "x"], ["--module", "crm"]])
def test_it_is_one_or_the_other(run_here: RunHere, other: list[str]) -> None:
    env = {"BITRIX_PULL_PORTAL": "http://127.0.0.1:1", "BITRIX_PULL_TOKEN": "some-token-of-mine"}
    outcome = run_here("listen", "--portal-events", UPDATE, *other, env=env)
    assert outcome.code == 2


async def test_what_may_be_bound_and_what_is(account: dict[str, str], emulator: Emulator) -> None:
    emulator.portal.offline.bindings += [(UPDATE, ""), ("ONTASKADD", ""), ("ONUSERADD", "sync")]
    outcome = await run("events", "--json", env=account)
    assert outcome.code == 0
    bound = {line["event"]: line["bound"] for line in outcome.json_lines}
    assert {name for name, is_bound in bound.items() if is_bound} == {UPDATE, "ONTASKADD"}
    assert "ONVOXIMPLANTCALLEND" in bound

    outcome = await run("events", "--unbind", "ontaskadd", env=account)
    assert "unbound 1 event\n" in outcome.err
    lines = outcome.out.splitlines()
    assert f"bound  {UPDATE}" in lines
    assert "       ONTASKADD" in lines
    await run("events", "--unbind", "all", "--connector", "sync", env=account)
    assert emulator.portal.offline.bindings == [(UPDATE, "")]


async def test_the_demo_shows_a_deal_being_changed() -> None:
    outcome = await run("demo", "--events", "6")
    sent, received = outcome.out.splitlines()[-2:]
    assert "a deal is changed" in sent
    assert UPDATE in received
