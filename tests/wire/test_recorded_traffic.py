"""What a real push server sent (tests/reference/traffic*.json), read and written by the codecs."""

import base64
import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bitrix_pull.connection.disconnects import Sign, ended_by_close, ended_by_status
from bitrix_pull.events import BACKEND_SENDER, UNKNOWN_SENDER, EventKind, PullEvent, Sender, SenderType
from bitrix_pull.wire import protobuf, text
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.close_codes import ServerClose, describe, read_refusal
from bitrix_pull.wire.formats import READERS, format_of
from bitrix_pull.wire.messages import ChannelStatus, Incoming, Unread
from bitrix_pull.wire.protobuf import Publication, encode_publications, encode_status_request
from bitrix_pull.wire.urls import publication_url

REFERENCE = Path(__file__).parents[1] / "reference"
TRAFFIC: dict[str, Any] = json.loads((REFERENCE / "traffic.json").read_text(encoding="utf-8"))
MORE_TRAFFIC: dict[str, Any] = json.loads((REFERENCE / "traffic_more.json").read_text(encoding="utf-8"))
EXCHANGES: dict[str, dict[str, Any]] = {item["name"]: item for item in TRAFFIC["exchanges"]}

EXTRA = {
    "server_time": "2026-11-22T10:00:00+03:00",
    "server_time_unix": 1795330800.25,
    "server_name": "portal.example",
    "revision_web": 19,
    "revision_mobile": 3,
}
PUBLIC = "b1734c3c466b3ddcdd3b841d02a24b56"
PUBLIC_OF_OTHER = "d079f41b77a39477b1547e6259d70ebd"
TRICKY = 'contains #!NGINXNME!# and #!NGINXNMS!# and "quotes" and \\ slashes'


class Frame(NamedTuple):
    """What a frame or poll body means."""

    messages: list[Incoming]


class Refusal(NamedTuple):
    """What an HTTP status other than 200 means."""

    sign: Sign
    code: int | None = None


class Close(NamedTuple):
    """What the end of a WebSocket means."""

    sign: Sign
    code: int | None = None


class Nothing(NamedTuple):
    """Nothing to be read."""


def event(
    number: int,
    command: str,
    params: dict[str, object],
    created_unix: int | None,
    *,
    expiry: int | None = 3600,
    sender: Sender = BACKEND_SENDER,
) -> PullEvent[Any]:
    kind: EventKind = "client" if sender.type is SenderType.CLIENT else "server"
    mid = f"1795313001{number:016}"
    return PullEvent(mid, "application", command, params, EXTRA, sender, kind, created_unix, expiry)


def by_text(number: int, command: str, params: dict[str, object]) -> PullEvent[Any]:
    """The text format tells neither sender nor creation nor expiry."""
    return event(number, command, params, None, expiry=None, sender=UNKNOWN_SENDER)


def refused_publish(code: ServerClose) -> Refusal:
    # A publish over HTTP leaves the stream alone; the sign is what a poll would mean.
    return Refusal(Sign.CHANNEL_REFUSED, code)


BURST = "a burst: the first message had gone out alone, the rest of it 400 ms later in this one frame"
MERGED = "(exclusive), one response with all messages, both channels merged in mid order"
BINARY_HISTORY = Frame([event(number, "history", {"n": number - 9}, 1795313795) for number in range(9, 14)])
TEXT_HISTORY = Frame([by_text(number, "history", {"n": number - 21}) for number in range(22, 26)])

MEANING: dict[str, Frame | Refusal | Close | Nothing] = {
    "ws binary: one message on the private channel": Frame(
        [event(1, "private_message", {"text": "hello"}, 1795313792)]
    ),
    "ws binary: one message on the shared channel, non-ASCII body": Frame(
        [event(2, "shared_message", {"text": "Привет, мир — ✓ 😀"}, 1795313792)]
    ),
    f"ws binary: {BURST}": Frame([event(3 + n, "burst", {"n": n}, 1795313793) for n in (1, 2, 3)]),
    "ws binary: a body that contains the text delimiters": Frame(
        [event(7, "tricky", {"text": TRICKY}, 1795313794)]
    ),
    "ws binary: a message that a client published, echoed to its own public channel": Frame(
        [
            event(
                8,
                "client_message",
                {"text": "from a client"},
                1795313794,
                expiry=60,
                sender=Sender(SenderType.CLIENT, PUBLIC),
            )
        ]
    ),
    "ws binary: channelStats for two public channels, first online": Frame(
        [ChannelStatus(PUBLIC, online=True), ChannelStatus(PUBLIC_OF_OTHER, online=False)]
    ),
    f"ws binary: history after mid=17953130010000000000000008 {MERGED}": BINARY_HISTORY,
    "long poll binary: history after mid": BINARY_HISTORY,
    "ws text: one message on the private channel": Frame([by_text(14, "private_message", {"text": "hello"})]),
    "ws text: one message on the shared channel, non-ASCII body": Frame(
        [by_text(15, "shared_message", {"text": "Привет, мир — ✓ 😀"})]
    ),
    f"ws text: {BURST}": Frame([by_text(16 + n, "burst", {"n": n}) for n in (1, 2, 3)]),
    "ws text: a body that contains the text delimiters": Frame([by_text(20, "tricky", {"text": TRICKY})]),
    f"ws text: history after mid=17953130010000000000000021 {MERGED}": TEXT_HISTORY,
    "long poll text: history after mid": TEXT_HISTORY,
    "long poll binary: a live message ends the request": Frame([event(26, "live", {"n": 1}, 1795313798)]),
    "publish endpoint: accepted": Frame([]),
    "publish endpoint: accepted with private and shared channel in CHANNEL_ID": Frame([]),
    "publish endpoint: no signature on the publisher's channel": refused_publish(
        ServerClose.PUBLIC_CHANNEL_REQUIRED
    ),
    "publish endpoint: publisher has no public channel (shared only)": refused_publish(
        ServerClose.PUBLIC_CHANNEL_REQUIRED
    ),
    "publish endpoint: wrong receiver signature": refused_publish(ServerClose.INVALID_SIGNATURE),
    "publish endpoint: private receiver": refused_publish(ServerClose.PRIVATE_RECEIVER),
    "publish endpoint: no receivers": refused_publish(ServerClose.NO_RECEIVERS),
    "publish endpoint: 101 messages": refused_publish(ServerClose.TOO_MANY_MESSAGES),
    "publish endpoint: 101 receivers": refused_publish(ServerClose.TOO_MANY_CHANNELS),
    "publish endpoint: not protobuf": refused_publish(ServerClose.WRONG_REQUEST),
    "publish endpoint: empty body": refused_publish(ServerClose.WRONG_REQUEST),
    "publish endpoint: serverStats is not public": refused_publish(ServerClose.COMMAND_NOT_ALLOWED),
    "publish endpoint: over 1 MiB": Refusal(Sign.SERVER_TROUBLE),
    "unknown path": Refusal(Sign.SERVER_TROUBLE),
    "long poll: wrong channel signature": Refusal(Sign.CHANNEL_REFUSED, 4010),
    "long poll: no channel": Refusal(Sign.CHANNEL_REFUSED, 4010),
    # The handshake is refused without a code: the status alone says it.
    "ws handshake: wrong channel signature": Refusal(Sign.CHANNEL_REFUSED),
    "ws handshake: one good channel and one bad": Refusal(Sign.CHANNEL_REFUSED),
    "ws handshake: no channel": Refusal(Sign.CHANNEL_REFUSED),
    "ws publish: not protobuf": Close(Sign.PUBLISH_REFUSED, 4013),
    "ws publish: text frame": Close(Sign.PUBLISH_REFUSED, 4013),
    "ws publish: wrong receiver signature": Close(Sign.PUBLISH_REFUSED, 4021),
    "ws publish: private receiver": Close(Sign.PUBLISH_REFUSED, 4020),
    "ws publish: no receivers": Close(Sign.PUBLISH_REFUSED, 4017),
    "ws publish: 101 messages": Close(Sign.PUBLISH_REFUSED, 4016),
    "ws publish: 101 receivers": Close(Sign.PUBLISH_REFUSED, 4018),
    "ws publish: serverStats": Close(Sign.PUBLISH_REFUSED, 4014),
    "ws publish: over 1 MiB": Close(Sign.UNANSWERED),
    "ws publish: publisher subscribed to the shared channel alone": Close(Sign.PUBLISH_REFUSED, 4012),
    "ws publish: in text mode a client frame is ignored": Nothing(),
    "long poll: idle for 40 s, no mid given": Frame([]),
    "long poll: idle for 40 s, mid given": Frame([]),
}


def in_text(exchange: dict[str, Any]) -> bool:
    plain: str | None = exchange.get("headers", {}).get("Content-Type")
    return exchange["name"].startswith("ws text") or plain == "text/plain"


def messages_of(exchange: dict[str, Any]) -> list[Incoming]:
    frame: str = exchange["frame"] if "frame" in exchange else exchange["body"]
    return list(text.read(frame.encode()) if in_text(exchange) else protobuf.read(base64.b64decode(frame)))


def as_values(message: Incoming) -> tuple[type, dict[str, Any]]:
    assert not isinstance(message, Unread)
    values = dataclasses.asdict(message)
    values.pop("size", None)
    return type(message), values


@pytest.mark.parametrize("name", EXCHANGES)
def test_each_exchange_means_what_the_server_meant(name: str) -> None:
    exchange = EXCHANGES[name]
    assert name in MEANING, "a new exchange needs an expectation"
    match MEANING[name]:
        case Frame(messages):
            assert exchange.get("status") in (None, 200, 304)
            assert [as_values(item) for item in messages_of(exchange)] == [
                as_values(item) for item in messages
            ]
        case Refusal(sign, code):
            assert ended_by_status(exchange["status"]).sign is sign
            assert read_refusal(exchange["body"].encode()) == code
            assert code is None or describe(code) == exchange["body"]
        case Close(sign, code):
            received = exchange["close"] or (None, "")
            ended = ended_by_close(received[0])
            assert (ended.sign, ended.code) == (sign, code)
        case Nothing():
            assert exchange["close"] is None
            assert exchange["note"] == "no answer"


BOX = [item for item in MORE_TRAFFIC["exchanges"] if "published" in item.get("request", ())]


@pytest.mark.parametrize("exchange", BOX, ids=[item["name"] for item in BOX])
def test_a_server_of_a_box_is_understood_whatever_it_was_asked_for(exchange: dict[str, Any]) -> None:
    frame: str = exchange.get("body") or exchange["frame_text"]
    (event,) = READERS[format_of(4, protobuf=False)](frame.encode())
    assert isinstance(event, PullEvent)
    assert (event.module_id, event.command, event.params) == ("application", "tick", {"n": 1})
    assert len(event.mid) == 26


MORE_REFUSED = {
    "pub GET: no channels": 4017,
    "trusted stats: invalid channel id": 4019,
    "trusted message: invalid private receiver": 4019,
    "OPTIONS rest": None,
    "json-rpc api on a version 4 server": None,
    "subscribe: upper-case channel id": 4010,
    "subscribe: channel with a trailing slash": 4010,
    "poll: evicted by the 101st": 4029,
    "websocket: the 101st connection evicts the first": 4029,
}


@pytest.mark.parametrize("name", MORE_REFUSED)
def test_each_refusal_of_the_second_recording_opens_with_its_code(name: str) -> None:
    exchange = next(item for item in MORE_TRAFFIC["exchanges"] if item["name"] == name)
    words = exchange["close"][1] if "close" in exchange else exchange["body"]
    code = MORE_REFUSED[name]
    assert read_refusal(words.encode()) == code
    assert words == ("" if code is None else describe(code))
    if "close" in exchange:
        ended = ended_by_close(exchange["close"][0])
        assert (ended.sign, ended.code) == (Sign.EVICTED, code)


def test_no_expectation_is_left_over() -> None:
    assert set(MEANING) == set(EXCHANGES)
    assert {*MORE_REFUSED, *(item["name"] for item in BOX)} == {
        item["name"] for item in MORE_TRAFFIC["exchanges"]
    }


OWN = PublicChannel.parse(TRAFFIC["channels"]["private"]["public_id"])
OTHER = PublicChannel.parse(TRAFFIC["channels"]["private_other_user"]["public_id"])


def body(command: str, params: dict[str, object]) -> bytes:
    content = {"module_id": "application", "command": command, "params": params, "extra": EXTRA}
    return json.dumps(content, separators=(",", ":")).encode()


REQUESTS = {
    "ws binary: a message that a client published, echoed to its own public channel": encode_publications(
        [Publication([OWN, OTHER], body("client_message", {"text": "from a client"}), 60)]
    ),
    "ws binary: channelStats for two public channels, first online": encode_status_request([OWN, OTHER]),
    "publish endpoint: accepted": encode_publications([Publication([OTHER], body("x", {}), 60)]),
    "publish endpoint: accepted with private and shared channel in CHANNEL_ID": encode_publications(
        [Publication([OTHER], body("x", {}), 60)]
    ),
}


@pytest.mark.parametrize("name", [name for name, item in EXCHANGES.items() if "request" in item])
def test_each_request_is_written_byte_for_byte(name: str) -> None:
    assert base64.b64encode(REQUESTS[name]).decode() == EXCHANGES[name]["request"]


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("publish endpoint: accepted", ["private"]),
        ("publish endpoint: accepted with private and shared channel in CHANNEL_ID", ["private", "shared"]),
    ],
)
def test_a_publication_names_the_publishers_channels(name: str, channels: list[str]) -> None:
    url = publication_url("http://push.example/pub/", [TRAFFIC["channels"][item]["id"] for item in channels])
    written = url.replace("%3A", ":").replace("%2F", "/")
    assert written == f"http://push.example/pub/?{EXCHANGES[name]['query']}"
