"""What was read becomes events, controls and notices."""

from collections.abc import Sequence
from typing import Any

import pytest

from bitrix_pull.connection.cursor import Cursor
from bitrix_pull.connection.intake import Intake
from bitrix_pull.connection.resume_point import Beginning
from bitrix_pull.events import BACKEND_SENDER, MessageDropped, Notice, PullEvent
from bitrix_pull.wire.messages import Control, Incoming, Malformed, Ping
from bitrix_pull.wire.skim import Topic


def mid(number: int) -> str:
    return f"1700000000{number:016}"


def event(number: int, *, created: int | None = 1_000, expiry: int | None = 60) -> PullEvent[Any]:
    return PullEvent(mid(number), "application", "x", {}, {}, BACKEND_SENDER, "server", created, expiry)


class Taken:
    """An intake, and what came out of it."""

    full = False

    def __init__(self) -> None:
        self.events: list[str] = []
        self.notices: list[Notice] = []
        self.settled: list[str] = []
        self.unwanted: set[Topic] = set()
        self.passed_by: list[Topic] = []
        self.intake = Intake(self, self.notices.append, self.settled.extend, self.unwanted)
        self.cursor = Cursor()
        self.cursor.connected(Beginning(None, None))
        self.cursor.listens_on("these")

    def take(self, messages: Sequence[Incoming]) -> list[Control]:
        events, controls = self.intake.sort(messages, self.cursor)
        self.intake.hand_on(events)
        return controls

    def put(self, events: Sequence[PullEvent[Any]]) -> None:
        self.events += [item.mid for item in events]

    def pass_by(self, topics: Sequence[Topic]) -> None:
        self.passed_by += topics

    def held_by(self) -> tuple[str, str, int]:
        return "", "", 0

    async def room(self) -> None:
        pass


async def test_all_that_comes_at_once_goes_its_way() -> None:
    taken = Taken()
    ending = Control(mid(3), "channel_expire", {}, {})
    messages: list[Incoming] = [event(1), Ping(), event(2), ending, Malformed(mid(4), "spoilt"), event(2)]
    assert taken.take(messages) == [ending]
    assert taken.events == [mid(1), mid(2)]
    assert taken.notices == [MessageDropped(mid(4), "spoilt", 1)]
    assert taken.settled == [mid(3), mid(4)]
    assert (taken.intake.received, taken.intake.duplicates, taken.intake.malformed) == (2, 1, 1)


async def test_of_what_comes_again_only_the_new_is_taken() -> None:
    taken = Taken()
    taken.take([event(number) for number in (1, 2, 5)])
    taken.take([event(number) for number in (2, 3, 5, 6, 4, 6)])
    taken.take([event(number) for number in (7, 8, 9)])
    assert taken.events == [mid(number) for number in (1, 2, 5, 3, 6, 4, 7, 8, 9)]
    assert taken.intake.duplicates == 3


@pytest.mark.parametrize(
    ("created", "expiry", "expected"),
    [(1_000, 60, True), (1_000, 0, False), (1_000, None, False), (None, 60, False)],
)
async def test_only_what_the_server_must_keep_is_expected_in_a_replay(
    created: int | None, expiry: int | None, expected: bool
) -> None:
    taken = Taken()
    taken.take([event(1, created=created, expiry=expiry)])
    # By a clock that is behind that of the push server.
    assert (taken.cursor.kept(900.0) is not None) is expected
