from pathlib import Path

from bitrix_pull import AccessToken, PullClient, PullEvent
from bitrix_pull.emulator import Emulator
from bitrix_pull.testing import Recording
from tests.cli.command import run, start


async def test_what_was_recorded_comes_again_in_the_same_order(
    account: dict[str, str], emulator: Emulator, tmp_path: Path
) -> None:
    file = tmp_path / "events.jsonl.gz"
    recorder = await start("record", str(file), "--keep-params", "--events", "30", "--json", env=account)
    await recorder.told("live on")
    for n in range(30):
        emulator.portal.send(f"command_{n % 3}", {"n": n}, module=("application", "crm")[n % 2])
    outcome = await recorder.end()
    assert outcome.code == 0
    assert outcome.json_lines == [{"file": str(file), "events": 30, "dropped": 0}]
    recorded = [
        (event.module_id, event.command, event.params)
        for event in Recording(file).events()
        if isinstance(event, PullEvent)
    ]
    assert [params["n"] for *_, params in recorded] == list(range(30))

    player = await start("replay", str(file), "--speed", "1000", "--json")
    portal = await player.json_line()
    pull = PullClient(AccessToken(portal["portal"], portal["token"]))
    came: list[tuple[str, str, object]] = []
    async with pull.subscribe() as events, pull:
        async for event in events:
            came.append((event.module_id, event.command, event.params))
            if len(came) == 30:
                break
    assert came == recorded
    await player.stop()


async def test_without_params_unless_asked_for(
    account: dict[str, str], emulator: Emulator, tmp_path: Path
) -> None:
    file = tmp_path / "events.jsonl"
    recorder = await start("record", str(file), "--events", "1", env=account)
    await recorder.told("live on")
    emulator.portal.send("x", {"name": "canary-of-a-customer"})
    assert (await recorder.end()).code == 0
    assert "canary" not in file.read_text()
    assert emulator.token not in file.read_text()


async def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "missing" / "events.jsonl"
    outcome = await run("record", str(file), "--portal", "http://127.0.0.1:1", "--token", "some-token")
    assert outcome.code == 2
    assert outcome.err == f"bitrix-pull: {file} cannot be written: No such file or directory\n"


async def test_what_is_no_recording(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("nothing")
    outcome = await run("replay", str(file))
    assert outcome.code == 2
    assert "no recording" in outcome.err
