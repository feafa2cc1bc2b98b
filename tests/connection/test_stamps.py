"""Eight bytes that tell a message from another one with the same mid."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitrix_pull.connection.stamps import (
    UNKNOWN,
    are_of_two,
    created_unix,
    sent_unix,
    stamp_of,
    stamps_of,
)
from bitrix_pull.events import BACKEND_SENDER, PullEvent
from bitrix_pull.wire.messages import Control, Malformed

MID = "1" * 26


def event(
    *,
    created: int | None = None,
    sent: Any = None,
    params: Any = None,
    size: int = 100,
    extra: Mapping[str, Any] | None = None,
) -> PullEvent[Any]:
    extra = extra or ({} if sent is None else {"server_time_unix": sent})
    return PullEvent(
        MID, "application", "x", params or {}, extra, BACKEND_SENDER, "server", created, size=size
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (event(created=1_800_000_000), event(created=1_800_000_001)),
        (event(created=1_800_000_000, sent=0.25), event(created=1_800_000_000, sent=0.26)),
        (event(created=1_800_000_000, params={"n": 1}), event(created=1_800_000_000, params={"n": 2})),
        (event(sent=1_800_000_000.25), event(sent=1_800_000_000.26)),
        (event(params={"n": 1}), event(params={"n": 2})),
        (event(created=1_800_000_000, size=10_000), event(created=1_800_000_000, size=10_001)),
    ],
)
def test_two_messages_are_told_apart(one: PullEvent[Any], other: PullEvent[Any]) -> None:
    assert are_of_two(stamp_of(one), stamp_of(other))
    assert not are_of_two(stamp_of(one), stamp_of(one))


def test_what_came_in_two_formats_may_be_one_message() -> None:
    by_protobuf = event(created=1_800_000_000, sent=1_800_000_000.25)
    by_text = event(sent=1_800_000_000.25)
    assert not are_of_two(stamp_of(by_protobuf), stamp_of(by_text))


def test_of_what_cannot_be_read_nothing_is_known() -> None:
    assert stamp_of(Malformed(MID, "spoilt")) == UNKNOWN
    assert not are_of_two(UNKNOWN, stamp_of(event(params={"n": 1})))


def test_a_stamp_tells_when_the_server_took_the_message() -> None:
    assert int(created_unix(stamp_of(event(created=1_800_000_007, sent=5.5))) or 0) == 1_800_000_007
    assert created_unix(stamp_of(event(sent=1_800_000_000.25))) is None
    assert created_unix(UNKNOWN) is None


def test_what_steers_the_connection_has_one_too() -> None:
    def control(sent: float) -> Control:
        return Control(MID, "x", {}, {"server_time_unix": sent}, 1_800_000_000)

    assert are_of_two(stamp_of(control(1.25)), stamp_of(control(1.75)))


ODD = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.integers())


@given(
    sents=st.lists(ODD, min_size=1, max_size=4),
    created=st.none() | st.integers(0, 2**32 - 1),
    params=st.dictionaries(st.text(max_size=2), ODD, max_size=2),
)
def test_a_message_has_the_same_stamp_in_any_company(
    sents: list[Any], created: int | None, params: dict[str, Any]
) -> None:
    events = [
        event(created=created, extra={"server_time_unix": sent, "other": 1}, params=params) for sent in sents
    ]
    together = stamps_of(events)
    alone = [stamps_of([each])[0] for each in events]
    for one, other, each in zip(together, alone, events, strict=True):
        assert one == other == stamp_of(each) or math.isnan(one)
    assert not any(are_of_two(one, other) for one, other in zip(together, alone, strict=True))


@pytest.mark.parametrize("sent", [None, "soon", 0, -5, float("inf"), float("nan"), [1]])
def test_what_is_no_time_is_none(sent: Any) -> None:
    assert sent_unix(event(extra={"server_time_unix": sent})) is None


@given(
    st.lists(
        st.builds(
            event,
            created=st.sampled_from([None, None, None, 1_800_000_000]),
            sent=st.sampled_from([1_800_000_000.25, 1_800_000_000, 1, 0.5, True, "1", None, -3.0]),
            extra=st.sampled_from([None, None, None, {"server_name": "portal"}]),
        )
    )
)
def test_many_are_stamped_as_each_is_alone(events: list[PullEvent[Any]]) -> None:
    assert stamps_of(events) == [stamp_of(event) for event in events]
