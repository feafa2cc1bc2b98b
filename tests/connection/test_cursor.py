"""Laws of the cursor: nothing twice, and a resume point that is never too new (protocol §6)."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitrix_pull.connection.cursor import Cursor
from bitrix_pull.connection.resume_point import CLOCK_SLACK_S, Beginning, Kept
from bitrix_pull.wire.urls import START_OF_HISTORY

OVERLAP_S = 5.0


SERVER_UNIX = 1_795_400_000.0
"""The server's clock: it was started, and its mids begin, a day before."""


def mid(number: int) -> str:
    return f"1795313001{number:016}"


def just_before(mid: str) -> str:
    return f"{int(mid) - 1:026}"


def connected(*, known_mids: int = 10_000, overlap_s: float = OVERLAP_S) -> Cursor:
    cursor = Cursor(known_mids=known_mids, overlap_s=overlap_s)
    cursor.connected(Beginning(SERVER_UNIX, None))
    return cursor


# Messages as (seconds since the one before, number), in any order.
ARRIVALS = st.lists(st.tuples(st.sampled_from([0.0, 0.01, 0.3, 1.0, 4.9, 5.0, 60.0]), st.integers(1, 60)))


@given(arrivals=ARRIVALS)
def test_nothing_is_admitted_twice(arrivals: list[tuple[float, int]]) -> None:
    cursor = connected(overlap_s=OVERLAP_S)
    now = 0.0
    seen: set[int] = set()
    for wait_s, number in arrivals:
        now += wait_s
        assert cursor.admit(mid(number), now) is (number not in seen)
        seen.add(number)


@given(numbers=st.lists(st.integers(1, 40)), window=st.integers(1, 10))
def test_what_is_within_the_window_is_remembered(numbers: list[int], window: int) -> None:
    cursor = connected(known_mids=window)
    admitted: list[int] = []
    for number in numbers:
        new = cursor.admit(mid(number), 0.0)
        assert not (new and number in admitted[-window:])
        if new:
            admitted.append(number)


def test_memory_has_an_end() -> None:
    cursor = connected(known_mids=10, overlap_s=OVERLAP_S)
    assert all(cursor.admit(mid(number), 10.0 * number) for number in range(100))
    assert cursor.admit(mid(0), 1000.0)


@given(arrivals=ARRIVALS, window=st.integers(1, 10))
def test_what_a_resume_can_bring_again_is_remembered_however_much_it_is(
    arrivals: list[tuple[float, int]], window: int
) -> None:
    cursor = connected(known_mids=window, overlap_s=OVERLAP_S)
    now = 0.0
    seen: set[str] = set()
    for wait_s, number in arrivals:
        now += wait_s
        cursor.admit(mid(number), now)
        seen.add(mid(number))
    resume = cursor.resume_point
    assert resume is not None
    assert not any(cursor.admit(item, now) for item in seen if item > resume)


def test_a_held_resume_point_stays_until_it_is_released() -> None:
    cursor = connected(overlap_s=OVERLAP_S)
    for number in range(1, 100):
        cursor.admit(mid(number), float(number))
    pinned = cursor.resume_point
    cursor.hold("test")
    for number in range(100, 200):
        cursor.admit(mid(number), float(number))
        cursor.hold("test")
        assert cursor.resume_point == pinned
    assert cursor.newest == mid(199)
    cursor.release("test")
    assert cursor.resume_point == just_before(mid(194))
    cursor.release("test")
    assert cursor.resume_point == just_before(mid(194))


@given(arrivals=ARRIVALS)
def test_the_newest_is_the_highest_mid(arrivals: list[tuple[float, int]]) -> None:
    cursor = connected(overlap_s=OVERLAP_S)
    assert cursor.newest == ""
    for index, (_, number) in enumerate(arrivals):
        cursor.admit(mid(number), float(index))
        assert cursor.newest == mid(max(number for _, number in arrivals[: index + 1]))


@given(arrivals=ARRIVALS)
def test_the_resume_point_is_what_was_newest_an_overlap_ago_or_older(
    arrivals: list[tuple[float, int]],
) -> None:
    cursor = connected(overlap_s=OVERLAP_S)
    now = 0.0
    newest_at: list[tuple[float, str]] = []
    before = START_OF_HISTORY
    for wait_s, number in arrivals:
        now += wait_s
        cursor.admit(mid(number), now)
        if not newest_at or cursor.newest > newest_at[-1][1]:
            newest_at.append((now, cursor.newest))
        resume = cursor.resume_point
        assert resume is not None
        latest_safe = [newest for at, newest in newest_at if at <= newest_at[-1][0] - OVERLAP_S]
        assert resume <= (latest_safe[-1] if latest_safe else START_OF_HISTORY)
        assert resume <= cursor.newest
        # It never goes back.
        assert resume >= before
        before = resume


@given(gaps=st.lists(st.sampled_from([0.0, 0.1, 0.4, 1.0, 2.5, 6.0]), min_size=1))
def test_all_that_came_within_the_overlap_would_be_replayed(gaps: list[float]) -> None:
    cursor = connected(overlap_s=OVERLAP_S)
    now = 0.0
    times: list[float] = []
    for number, gap in enumerate(gaps, start=1):
        now += gap
        times.append(now)
        cursor.admit(mid(number), now)
    resume = cursor.resume_point
    assert resume is not None
    recent = [mid(number) for number, at in enumerate(times, start=1) if at > now - OVERLAP_S]
    assert all(item > resume for item in recent)


def test_in_a_steady_stream_the_resume_point_follows_closely() -> None:
    cursor = connected(overlap_s=OVERLAP_S)
    for number in range(1, 1001):
        cursor.admit(mid(number), number * 0.1)
    resume = cursor.resume_point
    assert resume is not None
    assert mid(1000 - 60) <= resume <= mid(1000 - 50)


def test_until_an_overlap_has_passed_all_history_is_asked_for() -> None:
    cursor = Cursor(overlap_s=OVERLAP_S)
    assert cursor.resume_point is None
    cursor.connected(Beginning(SERVER_UNIX, None))
    assert cursor.resume_point == START_OF_HISTORY
    for number, now in enumerate((0.0, 0.5, 4.0, 4.75, 5.25), start=1):
        cursor.admit(mid(number), now)
        assert cursor.resume_point == START_OF_HISTORY
    cursor.admit(mid(6), 5.5)
    assert cursor.resume_point == just_before(mid(2))


@pytest.mark.parametrize("far", ["9" * 26, f"{SERVER_UNIX + 31 * 86_400:010.0f}{1:016}"])
def test_a_mid_from_the_future_does_not_move_the_resume_point(far: str) -> None:
    cursor = connected(overlap_s=OVERLAP_S)
    for number in range(100):
        assert cursor.admit(mid(number), number)
        assert cursor.admit(far, number) is (number == 0)
    assert cursor.newest == mid(99)
    assert mid(90) < (cursor.resume_point or "") < mid(99)


def test_mids_from_the_future_are_forgotten() -> None:
    cursor = connected(known_mids=10)
    for number in range(100):
        cursor.admit(f"99{number:024}", 0.0)
    assert not cursor.knows(f"99{0:024}")
    assert cursor.knows(f"99{99:024}")


def test_a_mid_of_any_length_is_not_remembered() -> None:
    cursor = connected()
    assert cursor.admit("1" * 100_000, 0.0)
    assert not cursor.knows("1" * 100_000)


def test_an_overtaken_message_is_new_and_moves_nothing() -> None:
    cursor = connected(overlap_s=OVERLAP_S)
    for number in (10, 20, 30):
        cursor.admit(mid(number), number)
    resume = cursor.resume_point
    assert cursor.admit(mid(15), 30.0)
    assert not cursor.admit(mid(15), 31.0)
    assert cursor.newest == mid(30)
    assert cursor.resume_point == resume


def test_a_message_without_mid_is_always_new_and_moves_nothing() -> None:
    cursor = connected()
    cursor.admit(mid(1), 0.0)
    assert cursor.admit("", 1.0)
    assert cursor.admit("", 2.0)
    assert cursor.newest == mid(1)


@pytest.mark.parametrize("strange", ["zzz", "9" * 25, "9" * 27, "f" * 26, "٩" * 26, "9" * 26 + "\n"])
def test_a_mid_that_the_server_would_ignore_never_becomes_the_resume_point(strange: str) -> None:
    cursor = connected(overlap_s=0.0)
    cursor.admit(mid(1), 0.0)
    assert cursor.admit(strange, 1.0)
    assert not cursor.admit(strange, 2.0)
    cursor.admit(mid(2), 3.0)
    assert cursor.newest == mid(2)
    assert cursor.resume_point == just_before(mid(2))


@pytest.mark.parametrize(
    ("created_unix", "sent_unix", "too_old"),
    [
        (None, None, False),
        (2000, None, False),
        (1000, None, False),
        (1000 - CLOCK_SLACK_S, None, False),
        (997, None, True),
        # The push server's own time counts, however wrong the portal's may be.
        (1000, 0, False),
        (1010, 0, False),
        # Within the same seconds only the portal's is exact enough.
        (1000, 6999.5, True),
        (1001, 6998.5, True),
        (999, 7000.5, False),
        # The push server's clock was set back since.
        (100, 7010, False),
        (100, 6990, True),
        (None, 7000, False),
        (None, 6999.5, True),
    ],
)
def test_what_is_older_than_the_first_connection_is_known(
    created_unix: float | None, sent_unix: float | None, too_old: bool
) -> None:
    cursor = Cursor()
    assert not cursor.too_old(mid(5), created_unix, sent_unix)
    cursor.connected(Beginning(1000.0, 7000.0))
    assert cursor.too_old(mid(5), created_unix, sent_unix) is too_old


def test_what_follows_a_message_that_is_wanted_is_wanted_whatever_the_clocks_say() -> None:
    cursor = Cursor()
    cursor.connected(Beginning(1000.0, 7000.0))
    assert cursor.too_old(mid(6), 100, 100)
    cursor.is_wanted(mid(5))
    assert not cursor.too_old(mid(6), 100, 100)
    assert cursor.too_old(mid(4), 100, 100)


def test_only_the_first_connection_counts_for_that() -> None:
    cursor = connected()
    cursor.connected(Beginning(SERVER_UNIX + 5000, None))
    assert not cursor.too_old(mid(1), SERVER_UNIX + 1, None)


def test_nothing_is_too_old_by_a_clock_that_is_not_known() -> None:
    cursor = Cursor()
    cursor.connected(Beginning(None, None))
    assert not cursor.too_old(mid(1), 0, 0)


@pytest.mark.parametrize(("created_unix", "sent_unix", "too_old"), [(990, None, False), (960, None, True)])
def test_the_portals_clock_is_the_last_resort(
    created_unix: float, sent_unix: float | None, too_old: bool
) -> None:
    cursor = Cursor()
    cursor.connected(Beginning(None, 1000.0))
    assert cursor.too_old(mid(1), created_unix, sent_unix) is too_old


@given(arrivals=ARRIVALS, unsettled=st.sets(st.integers(1, 60)))
def test_a_restart_repeats_what_is_unsettled_and_nothing_else(
    arrivals: list[tuple[float, int]], unsettled: set[int]
) -> None:
    cursor = connected(overlap_s=OVERLAP_S)
    now = 0.0
    admitted = {number for _, number in arrivals}
    for wait_s, number in arrivals:
        now += wait_s
        cursor.admit(mid(number), now)
    open_mids = {mid(number) for number in unsettled & admitted}
    point = cursor.snapshot(open_mids)
    settled = cursor.settled_beyond(point.mid, open_mids)
    point = replace(point, settled=tuple(settled), stamps=tuple(settled.values()))

    again = Cursor(resume=point)
    assert again.resume_point == point.mid
    replay = sorted(mid(number) for number in admitted if mid(number) > point.mid)
    assert {item for item in replay if again.admit(item, 0.0)} == open_mids


def test_a_replay_is_expected_to_hold_what_the_server_must_keep() -> None:
    cursor = connected(overlap_s=OVERLAP_S)
    cursor.listens_on("these")
    assert cursor.kept(1000.0) is None
    cursor.admit(mid(1), 0.0, 1900.25)
    cursor.keep(mid(1), 1900.25, 2000.0)
    assert cursor.kept(1000.0) == Kept(mid(1), 1900.25, 2000.0, "these")
    assert cursor.kept(2000.0 - CLOCK_SLACK_S) is None
    cursor.listens_on("new these")
    assert cursor.kept(1000.0) is not None
    cursor.listens_on("new")
    assert cursor.kept(1000.0) is None


def test_the_resume_point_lies_just_before_a_message_that_is_known() -> None:
    cursor = connected(overlap_s=OVERLAP_S)
    for number in range(10, 200, 10):
        cursor.admit(mid(number), float(number))
    point = cursor.resume_point
    assert point is not None
    assert cursor.knows(mid(int(point[-16:]) + 1))
