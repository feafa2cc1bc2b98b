"""Each target of ``python -m tests.fuzz``, for moments: honest examples, damaged ones, and noise."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS
from tests.laws import examples

_FORMATS = ["protobuf", "text", "json", "jsonrpc"]
_TOKENS = [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\x00", b"\xff", b"\x0a", b"\x12"]
_TOKENS += [b"null", b"true", b"-1", b"1e999", b"9" * 40, b"\\ud800", b"\xed\xa0\x80", b"#!NGINXNMS!#", b"[]"]


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """Some cuts, replacements and insertions."""
    place = st.integers(0, len(content))
    damage = st.tuples(place, place, st.sampled_from(_TOKENS) | st.binary(max_size=4))
    return st.lists(damage, min_size=1, max_size=4).map(lambda all_damage: _apply(content, all_damage))


def _apply(content: bytes, all_damage: list[tuple[int, int, bytes]]) -> bytes:
    for start, length, replacement in all_damage:
        content = content[:start] + replacement + content[start + length % 8 :]
    return content


@pytest.mark.parametrize("name", TARGETS)
def test_honest_examples_are_read(name: str) -> None:
    assert [TARGETS[name].run(content) for content in TARGETS[name].seeds()]


@pytest.mark.parametrize(
    "name",
    [
        *(f"{name}{parts}" for name in _FORMATS for parts in ("", "-parts")),
        "unread",
        "rest",
        "config",
        "tokens",
    ],
)
def test_honest_examples_lead_somewhere(name: str) -> None:
    assert any(TARGETS[name].run(content) is not None for content in TARGETS[name].seeds())


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=examples(25))
@given(data=st.data())
def test_only_documented_errors(name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    content = data.draw(st.sampled_from(target.seeds()).flatmap(damaged) | st.binary(max_size=64))
    target.run(content)
