import asyncio

from hypothesis import given
from hypothesis import strategies as st

from bitrix_pull.inspector.tape import Tape


@given(
    sizes=st.lists(st.integers(0, 60), max_size=80),
    max_entries=st.integers(1, 20),
    max_bytes=st.integers(1, 300),
    portion=st.integers(1, 100),
    reads_after=st.sets(st.integers(0, 80)),
)
def test_a_reader_gets_each_entry_in_order_or_is_told_how_many_it_missed(
    sizes: list[int], max_entries: int, max_bytes: int, portion: int, reads_after: set[int]
) -> None:
    tape = Tape(max_entries, max_bytes, asyncio.Event())
    entries = [b"%d:" % number + b"x" * size for number, size in enumerate(sizes)]
    got: list[bytes | None] = []
    position = 0

    def read() -> None:
        nonlocal position
        found = tape.read(position, portion)
        got.extend([None] * found.missed)
        got.extend(found.entries)
        position = found.next

    for number, entry in enumerate(entries):
        tape.append(entry)
        assert tape.next - tape.first <= max_entries
        assert tape.size <= max(max_bytes, len(entry))
        if number in reads_after:
            read()
    while position < tape.next:
        read()

    assert len(got) == len(entries)
    assert all(mine in (None, entry) for mine, entry in zip(got, entries, strict=True))
    assert None not in got[tape.first :]
    assert tape.read(position, portion).entries == []


def test_an_entry_is_found_by_its_number_as_long_as_it_is_kept() -> None:
    tape = Tape(2, 1_000, asyncio.Event())
    for entry in (b"a", b"b", b"c"):
        tape.append(entry)
    assert [tape.entry(number) for number in (0, 1, 2, 3)] == [None, b"b", b"c", None]


def test_a_number_from_another_run_is_no_harm() -> None:
    tape = Tape(10, 1_000, asyncio.Event())
    tape.append(b"a")
    found = tape.read(99, 1_000)
    assert (found.entries, found.missed, found.next) == ([], 0, 1)
