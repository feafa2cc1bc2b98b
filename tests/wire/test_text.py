"""Delimited text: what only this format has."""

import pytest

from bitrix_pull.events import BACKEND_SENDER, UNKNOWN_SENDER, PullEvent, Sender, SenderType
from bitrix_pull.wire import text
from bitrix_pull.wire.messages import Malformed, Position
from bitrix_pull.wire.text import CLOSING, OPENING

MID = b"17953130010000000000000014"
BODY = b'{"module_id":"application","command":"x","params":{"n":1}}'


def delimited(envelope: bytes) -> bytes:
    return OPENING + envelope + CLOSING


def message(tail: bytes = b"") -> bytes:
    return delimited(b'{"id":14,"mid":"%s","text":%s%s}' % (MID, BODY, tail))


def senders(frame: bytes) -> list[Sender]:
    return [item.sender for item in text.read(frame) if isinstance(item, PullEvent)]


@pytest.mark.parametrize("between", [b"", b"\r\n", b" ", b"\n\n"])
def test_white_space_between_messages_does_no_harm(between: bytes) -> None:
    spoilt = delimited(b'{"id":13,"mid":"%s","text":!"}' % MID)
    received = list(text.read(between.join([message(), spoilt, message(), spoilt, message()])))
    assert [type(item) for item in received] == [PullEvent, Malformed, PullEvent, Malformed, PullEvent]


@pytest.mark.parametrize("words", ["#ff8000", "#", "#!", "a # b", "#!NGINXNME!"])
def test_hashes_in_a_message_do_no_harm(words: str) -> None:
    body = b'{"module_id":"application","command":"x","params":{"words":"%s"}}' % words.encode()
    spoken = delimited(b'{"id":14,"mid":"%s","text":%s}' % (MID, body))
    received = list(text.read(spoken + message() + spoken))
    assert [item.params for item in received if isinstance(item, PullEvent)] == [
        {"words": words},
        {"n": 1},
        {"words": words},
    ]


def test_a_message_whose_closing_mark_is_missing_is_read_if_it_is_whole() -> None:
    (event,) = list(text.read(message().removesuffix(CLOSING)))
    assert isinstance(event, PullEvent)
    assert event.params == {"n": 1}


def test_a_message_that_was_cut_off_is_malformed() -> None:
    assert list(text.read(message() + message()[:70]))[1] == Malformed(
        MID.decode(), "a message of a text frame is no JSON"
    )


def test_invalid_utf_8_spoils_one_message_only() -> None:
    spoilt = delimited(b'{"id":14,"mid":"%s","text":{"x":"\xff"}}' % MID)
    received = list(text.read(spoilt + message()))
    assert [type(item) for item in received] == [Malformed, PullEvent]


def test_a_server_without_mids_gives_tag_and_time_instead() -> None:
    event, position = list(text.read(delimited(b'{"id":14,"tag":"1","time":"now","text":%s}' % BODY)))
    assert isinstance(event, PullEvent)
    assert event.mid == ""
    assert position == Position("1", "now")


@pytest.mark.parametrize(
    ("extra", "sender"),
    [
        (b'{"sender":{"type":1,"id":"b173"}}', Sender(SenderType.CLIENT, "b173")),
        (b'{"sender":{"type":1,"id":null}}', Sender(SenderType.CLIENT)),
        (b'{"sender":{"type":1}}', Sender(SenderType.CLIENT)),
        (b'{"sender":{"type":2}}', BACKEND_SENDER),
        (b'{"sender":{"type":0}}', UNKNOWN_SENDER),
        (b'{"sender":{"type":7}}', UNKNOWN_SENDER),
        (b'{"sender":"me"}', UNKNOWN_SENDER),
        (b"{}", UNKNOWN_SENDER),
        (b"[]", UNKNOWN_SENDER),
    ],
)
def test_the_sender_stands_in_the_envelopes_extra(extra: bytes, sender: Sender) -> None:
    assert senders(message(b',"extra":' + extra)) == [sender]


@pytest.mark.parametrize("envelope", [b"[]", b"7", b'"x"', b"null"])
def test_an_envelope_that_is_no_object_is_malformed(envelope: bytes) -> None:
    received = list(text.read(delimited(envelope) + message()))
    assert [type(item) for item in received] == [Malformed, PullEvent]


def test_an_array_that_holds_something_else_loses_only_that() -> None:
    inner = message().removeprefix(OPENING).removesuffix(CLOSING)
    received = list(text.read(b"[7,%s,[]]" % inner))
    assert [type(item) for item in received] == [Malformed, PullEvent, Malformed]


def test_an_empty_array_holds_nothing() -> None:
    assert list(text.read(b"[]")) == []


def test_the_first_bytes_tell_which_of_the_two_it_is() -> None:
    inner = message().removeprefix(OPENING).removesuffix(CLOSING)
    for frame in (message() + message(), b"[%s,%s]" % (inner, inner)):
        received = list(text.read(frame))
        assert [item.params for item in received if isinstance(item, PullEvent)] == [{"n": 1}, {"n": 1}]


@pytest.mark.parametrize("frame", [b"", b'""'])
def test_a_keep_alive_of_an_old_server_holds_nothing(frame: bytes) -> None:
    assert list(text.read(frame)) == []
