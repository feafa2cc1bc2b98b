import signal

import pytest

from tests.cli.command import BITRIX_PULL, run, start


async def test_ends_by_itself_after_so_many_events() -> None:
    outcome = await run("demo", "--events", "5", "--json")

    assert outcome.code == 0
    events = outcome.json_lines
    assert len(events) == 5
    for event in events:
        assert event.keys() >= {"mid", "module_id", "command", "params", "sender"}
        assert event["module_id"] == "application"
    assert len({event["mid"] for event in events}) == 5
    assert [event["sender"]["type"] for event in events] == ["backend"] * 3 + ["client"] * 2
    assert events[0]["params"] == {"id": 1001, "for": "Ada"}


async def test_is_aligned_and_without_colours_in_a_pipe() -> None:
    outcome = await run("demo", "--events", "2")

    assert outcome.code == 0
    assert "\x1b" not in outcome.out + outcome.err
    lines = outcome.out.splitlines()
    assert [line[10] for line in lines] == ["→", "←", "→", "←"]
    assert lines[1].index("portal") == lines[3].index("portal") == lines[0].index("REST")
    assert "no account" in outcome.err
    assert "bitrix-pull listen --webhook" in outcome.err


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_cleanly(stop: signal.Signals) -> None:
    demo = await start("demo", "--json")
    await demo.json_line()
    outcome = await demo.stop(stop)

    assert outcome.code == 0
    assert "Traceback" not in outcome.err
    assert "Published and received" in outcome.err


@pytest.mark.parametrize("options", [["--json"], []])
async def test_a_reader_that_has_seen_enough_ends_it_quietly(options: list[str]) -> None:
    demo = await start("demo", *options, program=BITRIX_PULL, fresh=True)
    await demo.line()
    demo.close_stdout()
    outcome = await demo.end()

    assert outcome.code == 0
    assert "Traceback" not in outcome.err
    assert "rror" not in outcome.err
