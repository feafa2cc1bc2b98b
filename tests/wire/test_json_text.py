"""JSON as it is sent."""

import json
from types import MappingProxyType
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.wire.json_text import encode_json, has_too_long, parse_leniently, parser_for

TEXT = st.text(st.characters(codec="utf-8"))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_json_comes_out_as_it_went_in(value: Any) -> None:
    assert json.loads(encode_json(value)) == value


def test_it_is_compact_utf8() -> None:
    assert encode_json({"a": ["ж", 1]}) == '{"a":["ж",1]}'.encode()


def test_integers_of_any_size_pass() -> None:
    assert encode_json([2**64, -(2**80)]) == b"[18446744073709551616,-1208925819614629174706176]"


def test_any_mapping_is_an_object() -> None:
    assert orjson.loads(encode_json({"a": MappingProxyType({"b": 1})})) == {"a": {"b": 1}}


_cycle: list[Any] = []
_cycle.append(_cycle)
_deep: list[Any] = []
for _ in range(100_000):
    _deep = [_deep]


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"a": "\ud83d"}, "half a character"),
        ({"a": [{"\udc00": 1}]}, "half a character"),
        ([float("nan")], "no JSON"),
        ([float("inf")], "no JSON"),
        ({"a": b"bytes"}, "bytes is no JSON type"),
        ({"a": {1, 2}}, "set is no JSON type"),
        ({(1, 2): 3}, "keys must be"),
        (_cycle, "Circular"),
        (_deep, "too deeply|Circular"),
    ],
    ids=["surrogate", "key", "nan", "inf", "bytes", "set", "tuple", "cycle", "deep"],
)
def test_what_is_no_json_is_refused(value: Any, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint) as caught:
        encode_json(value, "the order")
    assert str(caught.value).startswith("the order ")


INTEGERS = st.integers() | st.integers(-(10**40), 10**40)
DOCUMENTS = st.recursive(
    INTEGERS | st.text('0123456789:,[]{}- "\\', max_size=40) | st.booleans(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("0123456789x", max_size=30), inner),
    max_leaves=10,
)


MESSAGE_BYTES = [100, 16_384]
"""Of short messages and of long ones: integers are looked for in other ways."""


@pytest.mark.parametrize("message_bytes", MESSAGE_BYTES)
@pytest.mark.parametrize("mids", [True, False])
@given(document=DOCUMENTS, indent=st.sampled_from([None, 1]))
def test_integers_of_any_size_are_read_exactly(
    document: Any, indent: int | None, message_bytes: int, mids: bool
) -> None:
    text = json.dumps(document, indent=indent).encode()
    assert parser_for(text, message_bytes, mids=mids)(text) == document


@pytest.mark.parametrize("message_bytes", MESSAGE_BYTES)
@pytest.mark.parametrize("mids", [True, False])
def test_strings_of_digits_take_the_fast_parser(message_bytes: int, mids: bool) -> None:
    strings = b",".join(b'{"mid":"17953130010000000000000%03d"}' % number for number in range(50))
    assert parser_for(b"[" + strings + b"]", message_bytes, mids=mids) is orjson.loads
    long = b"[" + strings + b",12345678901234567890]"
    assert parser_for(long, message_bytes, mids=mids) is not orjson.loads


def test_an_integer_without_end_is_refused_and_named() -> None:
    text = b'{"n":' + b"9" * 4_301 + b"}"
    with pytest.raises(ValueError, match="too many digits"):
        parser_for(text, len(text))(text)
    assert has_too_long(parse_leniently(text))
    assert not has_too_long(parse_leniently(b'{"n":' + b"9" * 4_300 + b"}"))


@pytest.mark.parametrize(
    "text",
    [
        b"[12345678901234567890,NaN]",
        b"[12345678901234567890,-Infinity]",
        b"[12345678901234567890,1e999]",
        b'[12345678901234567890,"\\ud800"]',
        b'[12345678901234567890,"\xed\xa0\x80"]',
        b'[12345678901234567890,"\n"]',
        b"\xef\xbb\xbf[12345678901234567890]",
        b"[12345678901234567890" + b"[" * 100_000,
    ],
)
def test_what_is_no_json_is_none_to_the_exact_parser_either(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - orjson's own error
        parser_for(text, len(text))(text)


@pytest.mark.parametrize("message_bytes", MESSAGE_BYTES)
@pytest.mark.parametrize("mids", [True, False])
@given(
    lengths=st.lists(st.integers(0, 40) | st.integers(480, 560), max_size=8),
    integer=st.integers(10**18, 10**40) | st.integers(-(10**40), -(10**18)),
    filler=st.sampled_from(["x", "1", "1x", "11111x", "1111111111x"]),
)
def test_a_long_integer_is_found_behind_any_digits_that_are_none(
    lengths: list[int], integer: int, filler: str, message_bytes: int, mids: bool
) -> None:
    document = [*((filler * length)[:length] for length in lengths), integer]
    text = json.dumps(document, separators=(",", ":")).encode()
    assert parser_for(text, message_bytes, mids=mids) is not orjson.loads
