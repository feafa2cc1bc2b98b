"""Laws of reading part by part: the same messages however a frame is cut, and little memory for any of it."""

import contextlib
import itertools
import time
import tracemalloc
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bitrix_pull.errors import MalformedFrame
from bitrix_pull.events import PullEvent
from bitrix_pull.wire.formats import PART_READERS, READERS, WireFormat
from bitrix_pull.wire.messages import Incoming, Malformed
from bitrix_pull.wire.parts import PIECE_BYTES, TOO_LARGE, Nesting
from bitrix_pull.wire.text import CLOSING, OPENING
from tests.laws import examples
from tests.wire.test_codecs import (
    FORMATS,
    FRAGMENTS,
    INCOMING,
    JSON_VALUES,
    NOISE,
    SPOILT,
    WRITERS,
    Written,
    body,
    mid,
)

MIB = 1024 * 1024
CUTS = st.lists(st.integers(0, 10_000), max_size=30)


def cut(frame: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut a frame at some places."""
    ends = sorted({0, len(frame), *(place % (len(frame) + 1) for place in places)})
    return [frame[start:stop] for start, stop in itertools.pairwise(ends)]


def pieces_of(frame: bytes, size: int) -> list[bytes]:
    return [frame[at : at + size] for at in range(0, len(frame), size)]


def by_parts(wire_format: WireFormat, parts: Sequence[bytes], max_bytes: int = MIB) -> list[Incoming]:
    reader = PART_READERS[wire_format](max_bytes)
    received: list[Incoming] = []
    for part in parts:
        received += reader.feed(part)
    return [*received, *reader.end()]


def told(messages: Iterable[Incoming]) -> list[tuple[object, ...]]:
    """Return what says whether messages are the same."""
    return [
        (item.mid, item.module_id, item.command, item.params, item.sender)
        if isinstance(item, PullEvent)
        else (type(item), getattr(item, "mid", None))
        for item in messages
    ]


def largest(wire_format: WireFormat, sent: Sequence[Written]) -> int:
    """Return a limit that none of these exceeds, and hardly two together keep to."""
    return max((len(WRITERS[wire_format]([item])) for item in sent), default=1)


@pytest.mark.parametrize("wire_format", FORMATS)
@given(bodies=st.lists(JSON_VALUES.map(body) | SPOILT, max_size=8), places=CUTS)
@example(bodies=["!{", '!"', "!"], places=[])
def test_the_same_comes_however_a_frame_is_cut(
    wire_format: WireFormat, bodies: list[str], places: list[int]
) -> None:
    sent = [Written(mid(number), item) for number, item in enumerate(bodies)]
    frame = WRITERS[wire_format](sent)
    assert told(by_parts(wire_format, cut(frame, places))) == told(READERS[wire_format](frame))


@pytest.mark.parametrize("wire_format", FORMATS)
# What is spoilt may take neighbours along, up to the limit: only what is sound keeps to a tight one.
@given(bodies=st.lists(JSON_VALUES.map(body), max_size=8), places=CUTS)
@example(bodies=['!"', body({}), '!"', body({})], places=[*range(900)])
@example(bodies=["![{", body({}), "!]}", body({})], places=[*range(900)])
@example(bodies=[body("#!NGINXNME!##!NGINXNMS!#{")] * 3, places=[*range(900)])
def test_what_is_just_small_enough_comes_however_a_frame_is_cut(
    wire_format: WireFormat, bodies: list[str], places: list[int]
) -> None:
    sent = [Written(mid(number), item) for number, item in enumerate(bodies)]
    frame = WRITERS[wire_format](sent)
    limit = largest(wire_format, sent)
    assert told(by_parts(wire_format, cut(frame, places), limit)) == told(READERS[wire_format](frame))


@pytest.mark.parametrize("wire_format", FORMATS)
@pytest.mark.parametrize("part_bytes", [1_000, 65_536, 10**9])
def test_messages_of_all_sizes_come_once_and_in_order(wire_format: WireFormat, part_bytes: int) -> None:
    sizes = [10, PIECE_BYTES, 10, 900_000, 10, 10, PIECE_BYTES * 2, *[400] * 1_000, 900_000]
    sent = [Written(mid(number), body({"n": number, "x": "y" * size})) for number, size in enumerate(sizes)]
    received = by_parts(wire_format, pieces_of(WRITERS[wire_format](sent), part_bytes))
    assert [item.params["n"] for item in received if isinstance(item, PullEvent)] == list(range(len(sizes)))
    assert len(received) == len(sizes)


@pytest.mark.parametrize("wire_format", FORMATS)
def test_a_message_comes_as_soon_as_it_is_whole(wire_format: WireFormat) -> None:
    sent = [Written(mid(number), body({"n": number})) for number in range(10)]
    frame = WRITERS[wire_format](sent)
    reader = PART_READERS[wire_format](MIB)
    received = list(reader.feed(frame[: len(frame) // 2]))
    assert len(received) in (4, 5)


# -- too large --------------------------------------------------------------------


@pytest.mark.parametrize("wire_format", FORMATS)
@pytest.mark.parametrize("places", [[0], [0, 2], [1], [2], [1, 2]])
@settings(max_examples=examples(5))
@given(part_bytes=st.integers(1, 3_000), tricky=st.lists(st.sampled_from(FRAGMENTS)).map("".join))
def test_what_is_too_large_is_left_out_and_told(
    wire_format: WireFormat, places: list[int], part_bytes: int, tricky: str
) -> None:
    sent = [
        Written(mid(number), body({"text": tricky + "x" * (5_000 if number in places else 100)}))
        for number in range(3)
    ]
    received = by_parts(wire_format, pieces_of(WRITERS[wire_format](sent), part_bytes), 2_000)
    assert [(type(item), getattr(item, "mid", None)) for item in received] == [
        (Malformed if number in places else PullEvent, mid(number)) for number in range(3)
    ]
    reasons = [item.reason for item in received if isinstance(item, Malformed)]
    assert set(reasons) == {TOO_LARGE}


def test_a_request_that_is_no_array_is_left_out_too() -> None:
    frame = WRITERS[WireFormat.JSONRPC]([Written(mid(1), body({"text": "x" * 5_000}))])[1:-1]
    (left_out,) = by_parts(WireFormat.JSONRPC, pieces_of(frame, 700), 2_000)
    assert left_out == Malformed(mid(1), TOO_LARGE)


@pytest.mark.parametrize("wire_format", FORMATS)
def test_a_dense_message_takes_no_neighbour_along(wire_format: WireFormat) -> None:
    dense = f'{{"module_id":"m","command":"c","params":[{"{}," * 300_000}{{}}]}}'
    sent = [Written(mid(1), body({})), Written(mid(2), dense), Written(mid(3), body({}))]
    received = by_parts(wire_format, pieces_of(WRITERS[wire_format](sent), 65_536))
    assert [type(item) for item in received] == [PullEvent, Malformed, PullEvent]
    assert [getattr(item, "mid", None) for item in received] == [mid(1), mid(2), mid(3)]


@pytest.mark.parametrize("wire_format", FORMATS)
def test_what_looks_like_a_message_within_another_one_is_none(wire_format: WireFormat) -> None:
    forged = WRITERS[wire_format]([Written(mid(9), body({}, module="pull"))] * 3).decode("latin-1")
    if wire_format in (WireFormat.JSON, WireFormat.JSONRPC):
        text = f'{{"module_id":"m","command":"c","params":{{"a":[1,{forged[1:-1]}]}}}}'
    else:
        text = body({"a": forged})
    sent = [Written(mid(number), text) for number in range(3)]
    frame = WRITERS[wire_format](sent)
    for part_bytes in (1, 7, 10**6):
        received = by_parts(wire_format, pieces_of(frame, part_bytes))
        assert told(received) == told(READERS[wire_format](frame))
        assert [getattr(item, "mid", None) for item in received] == [mid(number) for number in range(3)]


# -- hostile input ----------------------------------------------------------------


@pytest.mark.parametrize("wire_format", FORMATS)
@given(frame=NOISE, places=CUTS, limit=st.integers(1, 200))
def test_arbitrary_bytes_raise_nothing_but_malformed_frame(
    wire_format: WireFormat, frame: bytes, places: list[int], limit: int
) -> None:
    received: list[Incoming] | None = None
    with contextlib.suppress(MalformedFrame):
        received = by_parts(wire_format, cut(frame, places), limit)
    assert received is None or {type(item) for item in received} <= INCOMING


@pytest.mark.parametrize("wire_format", FORMATS)
def test_a_frame_that_ends_too_early_is_malformed(wire_format: WireFormat) -> None:
    frame = WRITERS[wire_format]([Written(mid(number), body({"n": number})) for number in range(3)])
    reader = PART_READERS[wire_format](MIB)
    received = list(reader.feed(frame[:-30]))
    with contextlib.suppress(MalformedFrame):
        received += reader.end()
    # Text that a body has spoilt looks the same: then one message is told to be unreadable.
    assert [item.mid for item in received if isinstance(item, PullEvent)] == [mid(0), mid(1)]


HEAD = b'{"id":1,"mid":"17953130010000000000000001","text":'
REQUEST = b'{"jsonrpc":"2.0","method":"incoming.message","params":{"mid":"17953130010000000000000001","body":'
ENDLESS = {
    "delimited: no end": (WireFormat.TEXT, OPENING + HEAD, b"x"),
    "delimited: quotes": (WireFormat.TEXT, OPENING + HEAD, b'"'),
    "delimited: marks": (WireFormat.TEXT, OPENING + HEAD, CLOSING + OPENING),
    "delimited: spoilt": (WireFormat.TEXT, b"", OPENING + HEAD + b'"' + CLOSING),
    "array: no end": (WireFormat.JSON, b"[" + HEAD, b"x"),
    "array: heads": (WireFormat.JSON, b"[", HEAD + b","),
    "array: nested heads": (WireFormat.JSON, b"[" + HEAD + b"[1", b"," + HEAD + b"1}"),
    "array: brackets": (WireFormat.JSON, b"[" + HEAD, b"["),
    "array: backslashes": (WireFormat.JSON, b"[" + HEAD, b"\\"),
    "requests: no end": (WireFormat.JSONRPC, b"[" + REQUEST, b"x"),
    "requests: nested": (WireFormat.JSONRPC, b"[" + REQUEST + b"[1", b',{"jsonrpc":1}'),
    "requests: one": (WireFormat.JSONRPC, REQUEST, b"x"),
    "protobuf: a large message": (WireFormat.PROTOBUF, b"\x0a" + b"\xff" * 4 + b"\x07" + b"\x0a" * 2, b"x"),
    "protobuf: an unknown field": (WireFormat.PROTOBUF, b"\x12" + b"\xff" * 4 + b"\x07", b"x"),
    "protobuf: empty messages": (WireFormat.PROTOBUF, b"", b"\x0a\x00"),
    "protobuf: empty unknown fields": (WireFormat.PROTOBUF, b"", b"\x12\x00"),
    "protobuf: an endless number": (WireFormat.PROTOBUF, b"\x0a", b"\xff"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_frame_takes_bounded_memory_and_linear_time(name: str) -> None:
    wire_format, start, unit = ENDLESS[name]
    part = unit * (65_536 // len(unit))

    def read(total: int) -> None:
        reader = PART_READERS[wire_format](MIB)
        with contextlib.suppress(MalformedFrame):
            for fed in (start, *[part] * (total // len(part))):
                for _ in reader.feed(fed):
                    pass

    began = time.process_time()
    read(2 * MIB)
    assert time.process_time() - began < 4.0
    # Just over the limit: to trace it takes ten times as long.
    tracemalloc.start()
    try:
        read(MIB + MIB // 8)
        assert tracemalloc.get_traced_memory()[1] < 20 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("wire_format", FORMATS)
def test_crumbs_take_linear_time(wire_format: WireFormat) -> None:
    sent = [Written(mid(number), body({"n": number, "x": "y" * 300})) for number in range(400)]
    crumbs = pieces_of(WRITERS[wire_format](sent), 2)
    began = time.process_time()
    assert len(by_parts(wire_format, crumbs)) == 400
    assert time.process_time() - began < 5.0


@given(text=st.text(alphabet='{}[]"\\ax', max_size=60), places=CUTS)
def test_how_deep_json_is_nested_does_not_depend_on_the_pieces(text: str, places: list[int]) -> None:
    whole, nesting = Nesting(), Nesting()
    whole.follow(text.encode())
    for piece in cut(text.encode(), places):
        nesting.follow(piece)
    assert (nesting.depth, nesting.in_string) == (whole.depth, whole.in_string)
