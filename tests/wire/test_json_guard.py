"""What is small to send and large to read is recognised, and what is honest never is."""

import json
import math
import time
from collections.abc import Callable

import pytest

from bitrix_pull.errors import MalformedFrame
from bitrix_pull.wire.formats import READERS, WireFormat
from bitrix_pull.wire.json_guard import BODY_GROWTH, FRAME_GROWTH, LIGHT_BYTES, is_dense, refuse_crowded
from bitrix_pull.wire.messages import Malformed
from tests.wire.test_codecs import WRITERS, Written, body, events, mid

MIB = 1024 * 1024


def filled(unit: str, size: int = MIB) -> str:
    return "[" + ",".join([unit] * (size // (len(unit.encode()) + 1))) + "]"


@pytest.mark.parametrize("unit", ["[]", "{}", '{"":0}', '"ж"', "-9", "0.1", "[[]]", '{"":{}}'])
def test_what_grows_is_dense(unit: str) -> None:
    assert is_dense(filled(unit).encode())


DEAL = {"ID": 12345, "TITLE": "Order 12345 of a customer", "STAGE_ID": "NEW", "OPPORTUNITY": 1234.5}


@pytest.mark.parametrize(
    "unit", [json.dumps(DEAL), '"some words of a text, and more"', '"' + "x" * 500 + '"']
)
def test_honest_content_is_not_dense(unit: str) -> None:
    assert not is_dense(filled(unit).encode())


@pytest.mark.parametrize("growth", [BODY_GROWTH, FRAME_GROWTH])
@pytest.mark.parametrize("period", [2, 3, 64, 1000, 1024, 65_536, MIB])
def test_what_is_dense_can_hide_nowhere(growth: int, period: int) -> None:
    # Dense and harmless in turn, and no denser as a whole than need be.
    dense = math.ceil(period * growth * 1.1 / 52)
    text = (b"[]" * dense)[:dense].ljust(period, b"x") * (MIB // period)
    for start in range(0, period, math.ceil(period / 20)):
        assert is_dense(text[start:] + text[:start], growth)


def test_what_is_short_is_never_dense() -> None:
    assert not is_dense(filled("{}", LIGHT_BYTES - 10).encode())


def test_a_replay_of_any_size_is_not_dense() -> None:
    shortest = [Written(mid(number), body({"n": number})) for number in range(20_000)]
    frame = WRITERS[WireFormat.JSONRPC](shortest)
    assert len(frame) > 4 * MIB
    assert not is_dense(frame, FRAME_GROWTH)
    assert FRAME_GROWTH > BODY_GROWTH


@pytest.mark.parametrize("wire_format", [WireFormat.PROTOBUF, WireFormat.TEXT])
def test_a_dense_body_takes_no_neighbour_along(wire_format: WireFormat) -> None:
    dense = f'{{"module_id":"m","command":"c","params":{filled("{}")}}}'
    sent = [Written(mid(1), body({})), Written(mid(2), dense), Written(mid(3), body({}))]
    received = list(READERS[wire_format](WRITERS[wire_format](sent)))
    assert [event.mid for event in events(received)] == [mid(1), mid(3)]
    assert [item.mid for item in received if isinstance(item, Malformed)] == [mid(2)]


@pytest.mark.parametrize("wire_format", [WireFormat.JSON, WireFormat.JSONRPC])
def test_a_dense_frame_of_json_is_its_first_message(wire_format: WireFormat) -> None:
    dense = f'{{"module_id":"m","command":"c","params":{filled("{}")}}}'
    (left_out,) = list(READERS[wire_format](WRITERS[wire_format]([Written(mid(2), dense)])))
    assert isinstance(left_out, Malformed)
    assert left_out.mid == mid(2)


# -- protobuf ---------------------------------------------------------------------


def field(number: int, content: bytes) -> bytes:
    length, head = len(content), bytearray()
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    return bytes((number << 3 | 2, *head, length)) + content


CROWDED: dict[str, Callable[[], bytes]] = {
    "responses": lambda: b"\x0a\x00" * 500_000,
    "messages": lambda: field(1, field(1, b"\x0a\x00" * 500_000)),
    "statuses": lambda: field(1, field(2, b"\x0a\x00" * 500_000)),
    "merged": lambda: field(1, field(1, b"\x0a\x00") * 250_000),
    "behind other fields": lambda: b"\x78\x01\x79" + bytes(8) + b"\x7d" + bytes(4) + b"\x0a\x00" * 500_000,
    "groups": lambda: b"\x0b\x0a\x00\x0c" * 100_000,
    "an endless number": lambda: b"\x0a" * 50_000 + b"\xff" * 50_000,
}


@pytest.mark.parametrize("written", CROWDED.values(), ids=CROWDED)
def test_a_crowded_frame_is_malformed(written: Callable[[], bytes]) -> None:
    frame = written()
    began = time.process_time()
    with pytest.raises(MalformedFrame):
        list(READERS[WireFormat.PROTOBUF](frame))
    assert time.process_time() - began < 0.5


def test_the_shortest_honest_messages_are_no_crowd() -> None:
    sent = [Written(mid(number), body({}, module="m", command="c")) for number in range(20_000)]
    assert len(list(READERS[WireFormat.PROTOBUF](WRITERS[WireFormat.PROTOBUF](sent)))) == 20_000


def test_line_breaks_in_a_body_are_no_crowd() -> None:
    # Anybody may publish a body, so it must not cost the frame that it is in.
    text = '{"module_id":"m",\n"command":"c","params":' + "\n" * MIB + "{}}"
    sent = [Written(mid(1), text), Written(mid(2), body({}))]
    frame = WRITERS[WireFormat.PROTOBUF](sent)
    refuse_crowded(frame)
    assert [event.mid for event in events(list(READERS[WireFormat.PROTOBUF](frame)))] == [mid(1), mid(2)]


def test_a_body_of_fields_is_no_crowd() -> None:
    text = '{"module_id":"m","command":"c"}' + "\n\x00" * 500_000
    (left_out,) = list(READERS[WireFormat.PROTOBUF](WRITERS[WireFormat.PROTOBUF]([Written(mid(1), text)])))
    assert isinstance(left_out, Malformed)
