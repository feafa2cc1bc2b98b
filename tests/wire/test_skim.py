"""What is told of a body unread is what parsing it tells, whatever it is; portals' own are told."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from bitrix_pull.connection.stamps import stamp_of, stamps_of
from bitrix_pull.errors import MalformedFrame
from bitrix_pull.events import BACKEND_SENDER, PullEvent
from bitrix_pull.wire import protobuf, push_pb2
from bitrix_pull.wire.messages import ChannelStatus, Control, Incoming, Malformed, Unread, read_message
from bitrix_pull.wire.protobuf_parts import ProtobufParts
from bitrix_pull.wire.skim import Topic, skim
from tests.laws import examples
from tests.wire.test_codecs import mid

EXTRA = (
    '{"server_time":"2026-11-22T10:00:00+03:00","server_time_unix":1795330800.25,'
    '"server_name":"portal.example","revision_web":19,"revision_mobile":3}'
)
TIME = 1795330800.25


def portal_body(params: str = "{}", *, module: str = "im", command: str = "message", more: str = "") -> str:
    """Return a body as a portal writes it, with more keys before the last one."""
    return f'{{"module_id":"{module}","command":"{command}","params":{params}{more},"extra":{EXTRA}}}'


def told(body: bytes) -> tuple[Topic, float] | None:
    found = skim(body, [body], EVERYTHING)
    return found[0] if found is not None else None


def frame_of(bodies: Sequence[bytes], sender: int = 2) -> bytes:
    messages = [
        push_pb2.OutgoingMessage(
            id=bytes.fromhex(mid(number)),
            body=body,
            expiry=86_400,
            created=1_795_330_800 + number,
            sender=push_pb2.Sender(type=push_pb2.SenderType.Name(sender)),
        )
        for number, body in enumerate(bodies, 1)
    ]
    response = push_pb2.Response(outgoingMessages=push_pb2.OutgoingMessagesResponse(messages=messages))
    return push_pb2.ResponseBatch(responses=[response]).SerializeToString()


# -- bodies that try to be taken for something else ---------------------------------------------

MODULES, COMMANDS = ("im", "IM", "crm", "pull", "Pull"), ("message", "x", "channel_expire")
KEYS = ("module_id", "command", "params", "extra", "server_time_unix", "server_time", "n", "Command", "")
EVERYTHING = {(module.lower(), command) for module in MODULES for command in COMMANDS}

spaces = st.sampled_from(["", "", "", "", "", " ", "\n"])


def spellings(text: str) -> list[str]:
    """Return a text as a JSON string: as it is, with one letter escaped, with all of them."""
    escaped = [f"\\u{ord(letter):04{'xX'[at % 2]}}" for at, letter in enumerate(text)]
    plain = json.dumps(text, ensure_ascii=False)
    one = [f'"{text[:at]}{escaped[at]}{text[at + 1 :]}"' for at in {0, len(text) // 2} if text.isidentifier()]
    return [plain, plain, *one, f'"{"".join(escaped)}"']


TEXTS = [
    *(*MODULES, *COMMANDS, *KEYS),
    *('","command":"x', '"command"', '\\"command\\"', "\\", '\\u0022,"extra":{', '"', "}}", EXTRA),
    *("\\u0063ommand", "<b>", "Привет", "a/b", '{"module_id":"crm"'),
]
NUMBERS = ("0", "-1", "1.5", "1e3", "123456789012345678901", "1795330800.25", "true", "null")
scalars = st.sampled_from([*NUMBERS, EXTRA, *(each for text in TEXTS for each in spellings(text))])
keys = st.sampled_from([each for key in KEYS for each in spellings(key)])


def members(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(spaces, keys, st.just(":"), spaces, inner, spaces).map("".join)
    return st.lists(pair, max_size=3).map(",".join)


def nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return members(inner).map("{{{}}}".format) | st.lists(inner, max_size=3).map(",".join).map("[{}]".format)


values = scalars | nested(scalars) | nested(scalars | nested(scalars))


@st.composite
def like_portals(draw: st.DrawFn) -> str:
    """Return a body that begins and ends as portals' do, or nearly; between may be anything."""
    module, command = draw(st.sampled_from(MODULES)), draw(st.sampled_from(COMMANDS))
    more = draw(st.just("") | st.just("") | members(values).map(lambda text: f",{text}" if text else ""))
    written = portal_body(draw(values), module=module, command=command, more=more)
    behind = draw(st.sampled_from(["", "", "", "", "", "", " ", "}", ',"command":"x"}', '{"extra":1}']))
    return written[:-1] + behind if behind.startswith(",") else written + behind


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Return a body, whole or spoilt."""
    written = draw(like_portals() | like_portals() | like_portals() | nested(values))
    body = written.encode()
    match draw(
        st.sampled_from(["whole", "whole", "whole", "whole", "cut", "cut off", "replaced", "doubled"])
    ):
        case "cut":
            return body[: draw(st.integers(0, len(body)))]
        case "cut off":
            return body[draw(st.integers(0, len(body))) :]
        case "replaced":
            at = draw(st.integers(0, len(body)))
            piece = draw(
                st.sampled_from([b"", b'"', b"\\", b",", b"}", b"{", b"\xff", b" ", b'"command"', b"\x00"])
            )
            return body[:at] + piece + body[at + draw(st.integers(0, 2)) :]
        case "doubled":
            start, end = sorted((draw(st.integers(0, len(body))), draw(st.integers(0, len(body)))))
            return body[:end] + body[start:]
        case _:
            return body


UNREADABLE = (
    "the body is no JSON at",
    "the body is no UTF-8",
    "the body cannot be read",
    "it would take far",
)


@settings(max_examples=examples(120))
@given(mutated())
@example(portal_body(more=',"command":"x"').encode())
@example(portal_body(more=',"module_id":"crm"').encode())
@example(portal_body(more=',"c\\u006fmmand":"x"').encode())
@example(portal_body(more=',"\\u006dodule\\u005fid":"crm"').encode())
@example(portal_body(more=',"\\u006Dodule_id":"crm"').encode())
@example(portal_body('{"a":"\\""}', more=',"b":"').encode())
def test_what_is_told_unread_is_what_parsing_tells(body: bytes) -> None:
    found = told(body)
    event("told" if found else "not told")
    if found is None:
        return
    topic, sent_unix = found
    message = read_message(mid(1), body, BACKEND_SENDER, 1_795_330_800, 86_400)
    if isinstance(message, Malformed):
        # It has no topic at all.
        assert message.reason.startswith(UNREADABLE)
        return
    assert isinstance(message, PullEvent)
    assert (message.module_id, message.command) == topic
    assert message.extra["server_time_unix"] == sent_unix
    assert message.module_id != "pull"


def values_of(message: Incoming) -> Any:
    if isinstance(message, Malformed):
        # Where in a body the parser gives up depends on whether it takes large integers.
        return message.mid
    if isinstance(message, PullEvent):
        return (
            *(message.mid, message.module_id, message.command, message.params, message.extra, message.sender),
            *(message.kind, message.created_unix, message.expiry, message.size),
        )
    return message


@settings(max_examples=examples(60))
@given(st.lists(mutated(), min_size=1, max_size=5), st.sampled_from([0, 1, 2]), st.booleans())
def test_a_frame_is_the_same_but_for_what_is_left_unread(
    bodies: list[bytes], sender: int, in_parts: bool
) -> None:
    frame = frame_of(bodies, sender)
    whole = list(protobuf.read(frame))
    if in_parts:
        reader = ProtobufParts(1_000_000, EVERYTHING)
        skimmed = [*reader.feed(frame), *reader.end()]
    else:
        skimmed = list(protobuf.read(frame, EVERYTHING))
    assert len(skimmed) == len(whole)
    for message, expected in zip(skimmed, whole, strict=True):
        if not isinstance(message, Unread):
            assert values_of(message) == values_of(expected)
            continue
        assert values_of(message.read()) == values_of(expected)
        assert isinstance(expected, PullEvent | Malformed)
        assert message.mid == expected.mid
        if isinstance(expected, PullEvent):
            assert message.topic == (expected.module_id, expected.command)
            assert (message.created_unix, message.expiry, message.size) == (
                expected.created_unix,
                expected.expiry,
                expected.size,
            )
            assert stamp_of(message) == stamp_of(expected)
            assert stamps_of([message]) == stamps_of([expected])


# -- what must be told, and what must not --------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "topic"),
    [
        ("{}", ("im", "message")),
        ("[]", ("im", "message")),
        ('{"text":"Привет, \\"мир\\" \\\\ \\u003Cb\\u003E \\u0022"}', ("im", "message")),
        ('{"commands":["Command"],"module":"im"}', ("im", "message")),
        ('{"deep":{"extra":{"server_time":"x","server_time_unix":1}}}', ("im", "message")),
    ],
)
def test_what_portals_send_is_told(params: str, topic: Topic) -> None:
    assert told(portal_body(params).encode()) == (topic, TIME)


def test_what_was_recorded_is_told() -> None:
    recorded = json.loads((Path(__file__).parents[1] / "reference" / "traffic.json").read_text("utf-8"))
    frames = [
        base64.b64decode(item["frame"])
        for item in recorded["exchanges"]
        if item["name"].startswith("ws binary") and item.get("frame")
    ]
    read = [message for frame in frames for message in protobuf.read(frame)]
    topics = {(message.module_id, message.command) for message in read if isinstance(message, PullEvent)}
    skimmed = [message for frame in frames for message in protobuf.read(frame, topics)]
    assert len(topics) > 3
    assert {type(message) for message in skimmed} == {Unread, ChannelStatus}
    stamps = [stamp_of(message) for message in read if isinstance(message, PullEvent)]
    assert [stamp_of(message) for message in skimmed if isinstance(message, Unread)] == stamps


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(portal_body(more=',"command":"x"'), id="command twice"),
        pytest.param(portal_body(more=', "module_id" : "crm"'), id="module twice"),
        pytest.param(portal_body(more=',"\\u0063ommand":"x"'), id="command escaped"),
        pytest.param(portal_body(more=',"module\\u005Fid":"crm"'), id="module escaped"),
        pytest.param(portal_body('{"command":"x"}'), id="the word in the params"),
        pytest.param(portal_body()[:-1] + ',"command":"x"}', id="behind the end"),
        pytest.param(portal_body() + "\n", id="white space behind"),
        pytest.param(" " + portal_body(), id="white space before"),
        pytest.param(portal_body().replace(",", ", "), id="white space between"),
        pytest.param(portal_body().replace("1795330800.25", '"1795330800.25"'), id="the time is text"),
        pytest.param(portal_body().replace("1795330800.25", "0.5"), id="the time is none"),
        pytest.param(portal_body().replace("1795330800.25", "1e999"), id="the time is infinite"),
        pytest.param(portal_body().replace("1795330800.25", "NaN"), id="the time is no number"),
        pytest.param(portal_body().replace("portal.example", 'a\\"b'), id="a mark escaped in extra"),
        pytest.param(portal_body(module="pull", command="channel_expire"), id="steers"),
        pytest.param(portal_body(module="PULL", command="channel_expire"), id="steers, in capitals"),
        pytest.param(portal_body(command="mess\\u0061ge"), id="the command escaped"),
        pytest.param('{"module_id":"im","command":"message","params":{}}', id="no extra"),
        pytest.param('{"module_id":"im","command":"message"}', id="no params"),
        pytest.param("", id="nothing"),
    ],
)
def test_what_cannot_be_told_is_parsed(body: str) -> None:
    assert told(body.encode()) is None


def test_one_that_hides_a_key_does_not_hide_among_others() -> None:
    """As many messages as keys: one holds a key twice, and another not at all."""
    hiding = portal_body(more=',"command":"x"').encode()
    without = b'{"module_id":"im","params":{}}'
    plain = portal_body().encode()
    found = list(protobuf.read(frame_of([plain, hiding, without, plain]), {("im", "message"), ("im", "x")}))
    kinds = [type(message) for message in found]
    assert kinds == [Unread, PullEvent, Malformed, Unread]
    assert isinstance(found[1], PullEvent)
    assert found[1].command == "x"


def test_one_that_is_wanted_is_read_among_others() -> None:
    bodies = [portal_body(command=command).encode() for command in ("message", "x", "message", "other")]
    found = list(protobuf.read(frame_of(bodies), {("im", "message"), ("crm", "x")}))
    assert [type(message) for message in found] == [Unread, PullEvent, Unread, PullEvent]


def test_what_steers_is_read_whatever_a_client_has_sent_of_it() -> None:
    """Another client may publish in module pull, which then is an event that nobody wants."""
    body = portal_body(module="pull", command="channel_expire").encode()
    (steering,) = protobuf.read(frame_of([body]), {("pull", "channel_expire")})
    assert isinstance(steering, Control)


def test_a_frame_is_no_batch_whatever_is_wanted() -> None:
    with pytest.raises(MalformedFrame):
        list(protobuf.read(b"\xff\xff", EVERYTHING))
