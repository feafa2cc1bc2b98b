"""The memory of mids: a page at a time, and compact beyond the latest."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bitrix_pull.connection.cursor import Cursor
from bitrix_pull.connection.known_mids import KnownMids, is_regular
from bitrix_pull.connection.resume_point import Beginning

LATEST = "9" * 26
NUMBERS = st.lists(st.integers(0, 10**26 - 1), unique=True)


def mid(number: int) -> str:
    return f"{number:026}"


@given(numbers=NUMBERS, at_least=st.integers(1, 8), point=st.integers(0, 10**26 - 1), others=NUMBERS)
def test_all_beyond_the_resume_point_and_the_latest_are_known(
    numbers: list[int], at_least: int, point: int, others: list[int]
) -> None:
    known = KnownMids(at_least)
    for number in numbers:
        if known.add(mid(number), float(number)):
            known.turn_page(mid(point), LATEST)
    kept = {mid(number) for number in numbers if number > point} | set(map(mid, numbers[-at_least:]))
    assert all(item in known for item in kept)
    assert not any(mid(number) in known for number in set(others) - set(numbers))
    assert set(known.beyond(mid(point))) == {
        (mid(number), float(number)) for number in numbers if number > point
    }
    assert all(known.stamp(item) == float(item) for item in kept)


def test_what_is_no_mid_is_remembered_for_a_while_only() -> None:
    known = KnownMids(4, [("odd", 1.5)])
    assert "odd" in known
    for number in range(1, 20):
        if known.add(mid(number), float(number)):
            known.turn_page(mid(0), LATEST)
    assert "odd" not in known
    assert all(mid(number) in known for number in range(1, 20))


@given(st.text(max_size=30))
def test_a_regular_mid_has_26_digits(text: str) -> None:
    assert is_regular(text) == (len(text) == 26 and set(text) <= set("0123456789"))


def test_a_very_fast_stream_shortens_the_overlap_instead_of_filling_the_memory() -> None:
    cursor = Cursor()
    cursor.connected(Beginning(None, None))
    points: list[str] = []
    for number in range(1, 400_001):
        # 200,000 a second.
        assert cursor.admit(mid(number), number / 200_000)
        if number % 10_000 == 0:
            points.append(cursor.resume_point or "")
    assert all(earlier <= later for earlier, later in pairwise(points))
    assert 100_000 <= 400_000 - int(points[-1]) <= 250_000
    assert not any(cursor.admit(mid(number), 2.0) for number in range(int(points[-1]) + 1, 400_001, 997))
