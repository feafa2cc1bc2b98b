import json

from bitrix_pull.emulator import Emulator
from tests.cli.command import run


async def test_people_read_the_cause_in_the_first_line(account: dict[str, str], emulator: Emulator) -> None:
    emulator.portal.push_configured = False
    outcome = await run("doctor", env=account)
    assert outcome.code == 3
    first = outcome.out.splitlines()[0]
    assert first.startswith("fail: configuration: ")
    assert "An administrator must enable" in first
    assert emulator.token not in outcome.out + outcome.err


async def test_all_is_well_and_programs_get_one_line(account: dict[str, str], emulator: Emulator) -> None:
    outcome = await run("doctor", "--publish", "--json", env=account)
    assert outcome.code == 0
    (told,) = outcome.json_lines
    assert (told["level"], told["cause"]) == ("ok", None)
    assert "publishing by socket" in {finding["check"] for finding in told["findings"]}
    assert emulator.token not in json.dumps(told)


async def test_a_warning_is_no_failure(emulator: Emulator) -> None:
    env = {"BITRIX_PULL_PORTAL": emulator.portal_url, "BITRIX_PULL_TOKEN": emulator.portal.issue_token(7)}
    outcome = await run("doctor", env=env)
    assert outcome.code == 0
    assert outcome.out.startswith("warn: administrator: user 7 is no administrator")


async def test_the_mode_can_be_given(emulator: Emulator) -> None:
    outcome = await run("doctor", "--mode", "application", env={"BITRIX_PULL_WEBHOOK": emulator.webhook_url})
    assert outcome.code == 3
    assert outcome.out.startswith("fail: mode: ")
