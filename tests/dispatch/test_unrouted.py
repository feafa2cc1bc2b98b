"""What comes and nobody wants is counted by name, and told once."""

import logging

import pytest

from bitrix_pull.dispatch.router import Router
from bitrix_pull.events import PullEvent
from tests.dispatch.rig import event, mids, running


def handle(event: PullEvent) -> None: ...


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]


@pytest.fixture(autouse=True)
def _at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bitrix_pull.dispatch")


async def test_each_name_is_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    router = Router()
    router.on("x")(handle)
    async with running(router) as rig:
        for number in range(3):
            rig.put(event(number, "y"), event(number, "x"), event(number, "y", "crm"))
        await rig.idle()
        assert rig.dispatcher.unrouted == {"application.y": 3, "crm.y": 3}
        assert len(rig.settled) == 9
    assert [text.split(" (")[0] for text in told(caplog)] == [
        "no handler wants application.y",
        "no handler wants crm.y",
    ]


@pytest.mark.parametrize(
    ("commands", "module", "came", "hint"),
    [
        (("order_update",), None, ("order_updated", "application"), "is application.order_update meant"),
        (("ordr_update", "x"), None, ("order_update", "application"), "is application.ordr_update meant"),
        (("message",), None, ("message", "im"), "is application.message meant"),
        (("message",), "imm", ("message", "im"), "is imm.message meant"),
        (("x",), None, ("order_update", "application"), "no handler wants application.order_update (told"),
        (None, None, ("x", "im"), "there are no handlers"),
    ],
)
async def test_a_misspelt_one_is_named(
    commands: tuple[str, ...] | None,
    module: str | None,
    came: tuple[str, str],
    hint: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    router = Router()
    if commands is not None:
        router.on(*commands, module=module)(handle)
    async with running(router) as rig:
        rig.put(event(1, *came))
    (text,) = told(caplog)
    assert hint in text


async def test_the_server_cannot_fill_the_memory_with_names(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as rig:
        for number in range(300):
            rig.put(event(number, f"{number}-{'y' * 1_000}"))
        counts = rig.dispatcher.unrouted
        assert sum(counts.values()) == 300
        assert counts["others"] == 200
        assert len(counts) == 101
        assert max(map(len, counts)) <= 100
    assert len(told(caplog)) == 100


async def test_an_iterator_wants_what_it_is_for_while_it_is_open() -> None:
    async with running() as rig:
        async with rig.subscribe("x") as events:
            rig.put(event(1), event(2, "y"))
            await anext(events)
            assert rig.dispatcher.unrouted == {"application.y": 1}
        rig.put(event(3))
        assert rig.dispatcher.unrouted == {"application.y": 1, "application.x": 1}


async def test_what_is_dropped_was_wanted() -> None:
    router = Router()
    router.on("x")(handle)
    async with running(router, max_events=2, overflow="drop_newest") as rig:
        rig.put(*(event(number) for number in range(5)), event(5, "y"))
        assert rig.inbox.dropped == 3
        assert rig.dispatcher.unrouted == {"application.y": 1}
        await rig.idle()
        assert sorted(rig.settled) == mids(*range(6))
