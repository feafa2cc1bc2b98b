"""Laws of the three codecs: what the server wrote is what is read, and a bad body spoils only itself."""

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args, get_origin

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bitrix_pull.errors import MalformedFrame
from bitrix_pull.events import PullEvent, SenderType
from bitrix_pull.wire import push_pb2
from bitrix_pull.wire.formats import READERS, WireFormat
from bitrix_pull.wire.messages import Control, Incoming, Malformed
from bitrix_pull.wire.text import CLOSING, OPENING
from tests.laws import examples

FORMATS = list(WireFormat)
SEPARATORS = (",", ":")


class Written(NamedTuple):
    """A message as it lies on the server."""

    mid: str
    body: str
    sender_type: int = 2
    sender_id: str = ""


def write_protobuf(messages: Sequence[Written]) -> bytes:
    response = push_pb2.Response()
    response.outgoingMessages.SetInParent()
    for message in messages:
        response.outgoingMessages.messages.add(
            id=bytes.fromhex(message.mid),
            body=message.body.encode(),
            sender=push_pb2.Sender(
                type=push_pb2.SenderType.Name(message.sender_type),
                id=bytes.fromhex(message.sender_id),
            ),
        )
    return push_pb2.ResponseBatch(responses=[response]).SerializeToString()


def envelope(message: Written) -> str:
    # The server pastes the body unread; so a bad one spoils its envelope.
    extra = ""
    if message.sender_type == SenderType.CLIENT:
        extra = f',"extra":{{"sender":{{"type":1,"id":"{message.sender_id}"}}}}'
    return (
        f'{{"id":{int(message.mid[10:])},"mid":"{message.mid}","channel":"-","tag":"277",'
        f'"time":"Sun, 22 Nov 2026 02:16:35 GMT","text":{message.body}{extra}}}'
    )


def write_text(messages: Sequence[Written]) -> bytes:
    return b"".join(OPENING + envelope(item).encode() + CLOSING for item in messages)


def write_json(messages: Sequence[Written]) -> bytes:
    return f"[{','.join(envelope(item) for item in messages)}]".encode()


def write_jsonrpc(messages: Sequence[Written]) -> bytes:
    return b"[%s]" % b",".join(write_call(item) for item in messages)


def write_call(message: Written) -> bytes:
    # This server reads bodies: what is no JSON travels as text.
    try:
        content = json.loads(message.body)
    except ValueError:
        content = message.body
    sender = {"type": message.sender_type, "id": message.sender_id}
    params = {"mid": message.mid, "body": content, "sender": sender}
    call = {"jsonrpc": "2.0", "method": "incoming.message", "params": params, "id": 1}
    return json.dumps(call, ensure_ascii=False).encode()


WRITERS: dict[WireFormat, Callable[[Sequence[Written]], bytes]] = {
    WireFormat.PROTOBUF: write_protobuf,
    WireFormat.TEXT: write_text,
    WireFormat.JSON: write_json,
    WireFormat.JSONRPC: write_jsonrpc,
}


def roundtrip(wire_format: WireFormat, messages: Sequence[Written]) -> list[Incoming]:
    return list(READERS[wire_format](WRITERS[wire_format](messages)))


def mid(number: int) -> str:
    return f"1795313001{number:016}"


def body(params: object, *, module: str = "application", command: str = "x") -> str:
    content = {"module_id": module, "command": command, "params": params}
    return json.dumps(content, ensure_ascii=False, separators=SEPARATORS)


def events(messages: Sequence[Incoming]) -> list[PullEvent[Any]]:
    return [item for item in messages if isinstance(item, PullEvent)]


FRAGMENTS = [
    OPENING.decode(),
    CLOSING.decode(),
    (CLOSING + OPENING).decode(),
    '"',
    "\\",
    "#",
    "{",
    "[",
    "}",
    ",",
]
TRICKY_TEXT = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), max_size=6).map("".join)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TRICKY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TRICKY_TEXT, inner, max_size=3),
    max_leaves=8,
)
SPOILT = TRICKY_TEXT.map(lambda text: f"!{text}")


@pytest.mark.parametrize("wire_format", FORMATS)
@settings(max_examples=examples(20))
@given(params=st.lists(st.dictionaries(TRICKY_TEXT, JSON_VALUES, max_size=4), max_size=5))
def test_any_params_arrive_as_they_were_sent(wire_format: WireFormat, params: list[dict[str, Any]]) -> None:
    sent = [Written(mid(number), body(item)) for number, item in enumerate(params)]
    received = roundtrip(wire_format, sent)
    assert [(item.mid, item.params) for item in events(received)] == [
        (mid(number), item) for number, item in enumerate(params)
    ]
    assert len(received) == len(params)


@pytest.mark.parametrize("wire_format", FORMATS)
@settings(max_examples=examples(25))
@given(bodies=st.lists(JSON_VALUES.map(body) | SPOILT, max_size=8))
@example(bodies=['!"', body({}), '!"', body({})])
@example(bodies=['!{"a', body("#!NGINXNME!##!NGINXNMS!#"), '!"\\'])
def test_a_bad_body_takes_nothing_along(wire_format: WireFormat, bodies: list[str]) -> None:
    sent = [Written(mid(number), item) for number, item in enumerate(bodies)]
    received = roundtrip(wire_format, sent)
    good = [item.mid for item in sent if not item.body.startswith("!")]
    bad = {item.mid for item in sent} - set(good)
    assert [item.mid for item in events(received)] == good
    reported = [item for item in received if isinstance(item, Malformed)]
    assert bad <= {item.mid for item in reported}
    assert len(good) + len(reported) == len(received)


@pytest.mark.parametrize("wire_format", FORMATS)
def test_a_spoilt_message_is_reported_without_its_content(wire_format: WireFormat) -> None:
    sent = [
        Written(mid(1), body({"n": 1})),
        Written(mid(2), '{"module_id":"application","command":"x","params":"s3cret'),
        Written(mid(3), body({"n": 3})),
    ]
    first, spoilt, last = roundtrip(wire_format, sent)
    assert [item.mid for item in events([first, last])] == [mid(1), mid(3)]
    assert isinstance(spoilt, Malformed)
    assert spoilt.mid == mid(2)
    assert spoilt.reason
    assert "s3cret" not in spoilt.reason


@pytest.mark.parametrize("wire_format", FORMATS)
@pytest.mark.parametrize(
    "bad",
    [
        "[]",
        '"s3cret"',
        "null",
        "7",
        "{}",
        '{"module_id":"s3cret"}',
        '{"command":"s3cret"}',
        '{"module_id":1,"command":"x"}',
        '{"module_id":"x","command":null}',
    ],
)
def test_json_that_is_no_message_is_malformed(wire_format: WireFormat, bad: str) -> None:
    spoilt, good = roundtrip(wire_format, [Written(mid(1), bad), Written(mid(2), body({}))])
    assert isinstance(spoilt, Malformed)
    assert spoilt.mid == mid(1)
    assert "s3cret" not in spoilt.reason
    assert isinstance(good, PullEvent)


@pytest.mark.parametrize("wire_format", FORMATS)
def test_a_body_as_json_text_is_read_too(wire_format: WireFormat) -> None:
    text = body({"n": 1}) if wire_format is WireFormat.PROTOBUF else json.dumps(body({"n": 1}))
    (event,) = roundtrip(wire_format, [Written(mid(1), text)])
    assert isinstance(event, PullEvent)
    assert event.params == {"n": 1}


@pytest.mark.parametrize("wire_format", FORMATS)
@pytest.mark.parametrize("params", ["[]", "null", "{}", "false", '""'])
def test_an_empty_map_is_a_mapping_however_php_wrote_it(wire_format: WireFormat, params: str) -> None:
    text = f'{{"module_id":"application","command":"x","params":{params}}}'
    (event,) = roundtrip(wire_format, [Written(mid(1), text)])
    assert isinstance(event, PullEvent)
    assert event.params == {}
    assert event.extra == {}


@pytest.mark.parametrize("wire_format", FORMATS)
def test_missing_params_are_an_empty_mapping(wire_format: WireFormat) -> None:
    (event,) = roundtrip(wire_format, [Written(mid(1), '{"module_id":"application","command":"x"}')])
    assert isinstance(event, PullEvent)
    assert event.params == {}


@pytest.mark.parametrize("wire_format", FORMATS)
def test_a_body_of_1_mib_arrives_whole(wire_format: WireFormat) -> None:
    large = 'я"\\#!NGINXNME!##!NGINXNMS!#' * (1024 * 1024 // 28)
    (event,) = roundtrip(wire_format, [Written(mid(1), body({"text": large}))])
    assert isinstance(event, PullEvent)
    assert event.params == {"text": large}
    assert event.size >= 1024 * 1024


@pytest.mark.parametrize("wire_format", FORMATS)
def test_the_size_of_messages_adds_up_to_about_the_frame(wire_format: WireFormat) -> None:
    sent = [Written(mid(number), body({"text": "x" * 1000})) for number in range(50)]
    frame = WRITERS[wire_format](sent)
    total = sum(item.size for item in events(list(READERS[wire_format](frame))))
    assert 0.8 * len(frame) <= total <= len(frame)


# -- kinds (protocol §5) ---------------------------------------------------------


@pytest.mark.parametrize("wire_format", FORMATS)
@pytest.mark.parametrize("module", ["pull", "PULL"])
def test_module_pull_is_control(wire_format: WireFormat, module: str) -> None:
    text = body({"action": "reconnect"}, module=module, command="Channel_Expire")
    (control,) = roundtrip(wire_format, [Written(mid(1), text)])
    assert isinstance(control, Control)
    assert (control.mid, control.command) == (mid(1), "channel_expire")
    assert control.params == {"action": "reconnect"}


@pytest.mark.parametrize("wire_format", FORMATS)
def test_control_params_that_are_no_map_are_ignored(wire_format: WireFormat) -> None:
    text = body("reconnect", module="pull", command="config_expire")
    (control,) = roundtrip(wire_format, [Written(mid(1), text)])
    assert isinstance(control, Control)
    assert control.params == {}


@pytest.mark.parametrize("wire_format", FORMATS)
@pytest.mark.parametrize("module", ["pull", "Pull", "online", "application"])
def test_what_a_client_sends_never_steers_us(wire_format: WireFormat, module: str) -> None:
    sender = "b1734c3c466b3ddcdd3b841d02a24b56"
    text = body({"action": "reconnect"}, module=module, command="channel_expire")
    (event,) = roundtrip(wire_format, [Written(mid(1), text, SenderType.CLIENT, sender)])
    assert isinstance(event, PullEvent)
    assert event.kind == "client"
    assert event.module_id == module.lower()
    assert event.sender.type is SenderType.CLIENT
    assert event.sender.id == sender


@pytest.mark.parametrize("wire_format", FORMATS)
def test_module_online_is_presence(wire_format: WireFormat) -> None:
    (event,) = roundtrip(wire_format, [Written(mid(1), body({}, module="Online"))])
    assert isinstance(event, PullEvent)
    assert event.kind == "online"
    assert event.module_id == "online"


@pytest.mark.parametrize("wire_format", FORMATS)
def test_a_commands_case_is_kept(wire_format: WireFormat) -> None:
    (event,) = roundtrip(wire_format, [Written(mid(1), body({}, module="CRM", command="DealAdd"))])
    assert isinstance(event, PullEvent)
    assert (event.module_id, event.command) == ("crm", "DealAdd")


# -- frames as a whole -------------------------------------------------------------


@pytest.mark.parametrize("wire_format", FORMATS)
def test_an_empty_frame_holds_nothing(wire_format: WireFormat) -> None:
    assert list(READERS[wire_format](b"")) == []


@pytest.mark.parametrize(
    ("wire_format", "frame"),
    [
        (WireFormat.PROTOBUF, b"\xff\xff"),
        (WireFormat.TEXT, b"s3cret"),
        (WireFormat.TEXT, CLOSING),
        (WireFormat.JSON, b"s3cret"),
        (WireFormat.JSON, b"[s3cret]"),
        (WireFormat.JSON, b'{"mid":"s3cret"}'),
        (WireFormat.JSONRPC, b"s3cret"),
    ],
)
def test_bytes_of_another_format_are_a_malformed_frame(wire_format: WireFormat, frame: bytes) -> None:
    with pytest.raises(MalformedFrame) as caught:
        list(READERS[wire_format](frame))
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


INCOMING = {get_origin(item) or item for item in get_args(Incoming)}
NOISE = st.lists(
    st.binary(max_size=8)
    | st.sampled_from([item.encode() for item in FRAGMENTS])
    | st.sampled_from([b'{"id":1,"mid":"17953130010000000000000001","text":', b"}", b"[", b"]"]),
    max_size=12,
).map(b"".join)


@pytest.mark.parametrize("wire_format", FORMATS)
@given(frame=NOISE)
def test_arbitrary_bytes_raise_nothing_but_malformed_frame(wire_format: WireFormat, frame: bytes) -> None:
    received: list[Incoming] | None = None
    with contextlib.suppress(MalformedFrame):
        received = list(READERS[wire_format](frame))
    assert received is None or {type(item) for item in received} <= INCOMING


HOSTILE = 256 * 1024
"""Bytes of a frame: a decoder that looks at everything once per mark takes minutes for it."""


@pytest.mark.parametrize(
    "unit",
    [
        OPENING,
        CLOSING,
        OPENING + CLOSING,
        OPENING + b'"' + CLOSING,
        OPENING + b'\\"' + CLOSING,
        OPENING + b'"\\' + CLOSING,
        OPENING + b'{"' + CLOSING,
        OPENING + b"#" + CLOSING,
        OPENING + b'[","' + CLOSING,
        OPENING + b'["\\",' + CLOSING,
        OPENING + b'{"id":1,"mid":"17953130010000000000000001","text":[' + CLOSING,
        CLOSING + OPENING,
        CLOSING + b" " + OPENING,
        b'"' + OPENING,
        b"\\",
        b"#!NGINXN",
    ],
)
@pytest.mark.parametrize("start", [b"", OPENING, OPENING + b'"'])
def test_a_hostile_text_frame_takes_linear_time(start: bytes, unit: bytes) -> None:
    assert seconds_to_decode(WireFormat.TEXT, start + unit * (HOSTILE // len(unit))) < 1.0


@pytest.mark.parametrize(
    "unit",
    [
        b'{"id":1,"mid":"17953130010000000000000001","text":[},',
        b',{"id":1,"mid":"17953130010000000000000001"',
        b'{"id":',
        b"[",
        b"1",
        b'"',
    ],
)
def test_a_hostile_json_frame_takes_linear_time(unit: bytes) -> None:
    start = b'[{"id":1,"mid":"17953130010000000000000001","text":!},'
    frame = start + unit * (HOSTILE // len(unit)) + b"]"
    assert seconds_to_decode(WireFormat.JSON, frame) < 1.0


@pytest.mark.parametrize("wire_format", FORMATS)
def test_1_mib_of_marks_and_quotes_takes_no_longer_than_it_should(wire_format: WireFormat) -> None:
    unit = OPENING + b'\\"' + CLOSING
    assert seconds_to_decode(wire_format, unit * (1024 * 1024 // len(unit))) < 3.0


def seconds_to_decode(wire_format: WireFormat, frame: bytes) -> float:
    # Processor time: what else the machine does must not count.
    began = time.process_time()
    with contextlib.suppress(MalformedFrame):
        list(READERS[wire_format](frame))
    return time.process_time() - began
