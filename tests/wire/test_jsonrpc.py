"""JSON-RPC: what only this format has (protocol §4.3)."""

import json
from typing import Any

import pytest

from bitrix_pull.errors import MalformedFrame
from bitrix_pull.events import BACKEND_SENDER, PullEvent
from bitrix_pull.wire import jsonrpc
from bitrix_pull.wire.messages import Incoming, Malformed, Ping, Reply, UnknownRequest

MID = "17953130010000000000000001"


def decode(*items: object) -> list[Incoming]:
    content = items[0] if len(items) == 1 else list(items)
    return list(jsonrpc.read(json.dumps(content).encode()))


def incoming(params: object = None, **more: Any) -> dict[str, Any]:
    body = {"module_id": "application", "command": "x", "params": params}
    message = {"mid": MID, "body": body, "sender": {"type": 2, "id": ""}, **more}
    return {"jsonrpc": "2.0", "method": "incoming.message", "params": message, "id": 1}


def params_of(item: object) -> Any:
    (event,) = decode(item)
    assert isinstance(event, PullEvent)
    return event.params


def test_the_bare_text_ping() -> None:
    assert list(jsonrpc.read(b"ping")) == [Ping()]


def test_a_message_comes_alone_or_in_an_array() -> None:
    (alone,) = decode(incoming({"n": 1}))
    first, second = decode(incoming({"n": 1}), incoming({"n": 2}))
    for event, number in ((alone, 1), (first, 1), (second, 2)):
        assert isinstance(event, PullEvent)
        assert (event.mid, event.params, event.sender) == (MID, {"n": number}, BACKEND_SENDER)
        assert (event.created_unix, event.expiry) == (None, None)


@pytest.mark.parametrize(
    ("more", "merged"),
    [
        ({"user_params": {"a": 1}}, {"n": 1, "a": 1}),
        ({"dictionary": {"b": 2}}, {"n": 1, "b": 2}),
        ({"user_params": {"a": 1}, "dictionary": {"b": 2}}, {"n": 1, "a": 1, "b": 2}),
        ({"user_params": {"n": 7}}, {"n": 7}),
        ({"user_params": [], "dictionary": None}, {"n": 1}),
    ],
)
def test_user_params_and_dictionary_are_merged_into_the_params(
    more: dict[str, Any], merged: dict[str, Any]
) -> None:
    assert params_of(incoming({"n": 1}, **more)) == merged


@pytest.mark.parametrize("empty", [None, [], {}])
def test_they_are_merged_into_empty_params_too(empty: object) -> None:
    assert params_of(incoming(empty, user_params={"a": 1})) == {"a": 1}


def test_params_that_are_no_map_stay_as_they_are() -> None:
    assert params_of(incoming([1], user_params={"a": 1})) == [1]


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        ({"id": 7, "result": {"1": 0}}, Reply(7, {"1": 0})),
        ({"id": 7, "result": None}, Reply(7)),
        ({"id": 7, "result": 1, "error": None}, Reply(7, 1)),
        ({"id": 7, "error": {}}, Reply(7, None, 0, "")),
        ({"id": 7, "error": []}, Reply(7, None, 0, "")),
        ({"id": 7, "error": {"code": -32601, "message": "No"}}, Reply(7, None, -32601, "No")),
        ({"id": 7, "result": 1, "error": False}, Reply(7, 1)),
        ({"id": 7, "result": 1, "error": []}, Reply(7, 1)),
        ({"id": 7, "result": 1, "error": ""}, Reply(7, 1)),
        ({"id": 7, "error": {"message": "No"}}, Reply(7, None, 0, "No")),
        ({"id": 7, "error": "No"}, Reply(7, None, 0, "No")),
        ({"id": "7", "result": 1}, Reply(7, 1)),
        ({"id": "7", "error": {"code": -32601, "message": "No"}}, Reply(7, None, -32601, "No")),
        # What answers nothing of ours is nobody's message either.
        ({"id": "seven", "result": 1}, Reply(None, 1)),
        ({"id": "9" * 5_000, "result": 1}, Reply(None, 1)),
        ({"id": None, "error": {"code": -32700, "message": "No"}}, Reply(None, None, -32700, "No")),
    ],
)
def test_answers_to_our_calls(answer: dict[str, Any], reply: Reply) -> None:
    assert decode({"jsonrpc": "2.0", **answer}) == [reply]


@pytest.mark.parametrize("identity", [3, "three", None])
def test_a_request_that_is_new_to_us(identity: int | str | None) -> None:
    assert decode({"jsonrpc": "2.0", "method": "dance", "id": identity}) == [UnknownRequest(identity)]


def test_whatever_else_it_holds_a_frame_loses_only_that() -> None:
    received = decode(7, incoming({}), {"jsonrpc": "2.0"}, [], incoming({}))
    assert [type(item) for item in received] == [Malformed, PullEvent, Malformed, Malformed, PullEvent]


@pytest.mark.parametrize("frame", [b"", b"pong"])
def test_what_only_shows_that_the_server_is_there_holds_nothing(frame: bytes) -> None:
    assert list(jsonrpc.read(frame)) == []


@pytest.mark.parametrize("frame", [b"ping ", b"mack:1", b"\xff", b"{"])
def test_what_is_no_json_is_a_malformed_frame(frame: bytes) -> None:
    with pytest.raises(MalformedFrame):
        list(jsonrpc.read(frame))


def test_what_we_write() -> None:
    assert jsonrpc.acknowledgement(MID) == f"mack:{MID}".encode()
    assert json.loads(jsonrpc.encode_call(3, "publish", {"n": 10**30})) == {
        "jsonrpc": "2.0",
        "method": "publish",
        "params": {"n": 10**30},
        "id": 3,
    }
    assert json.loads(jsonrpc.encode_unknown("three")) == {
        "jsonrpc": "2.0",
        "error": {"code": -32601, "message": "Method not found"},
        "id": "three",
    }


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("text", ["", "x" * 5_000])
def test_long_integers_are_exact_in_arrays_however_they_are_written(indent: int | None, text: str) -> None:
    sent = [incoming({"text": text, "n": 10**20 + number}) for number in range(3)]
    received = list(jsonrpc.read(json.dumps(sent, indent=indent).encode()))
    assert [message.params["n"] for message in received if isinstance(message, PullEvent)] == [
        10**20,
        10**20 + 1,
        10**20 + 2,
    ]


def test_one_integer_without_end_spoils_one_message_only() -> None:
    def request(number: int, value: str) -> str:
        body = f'{{"module_id":"application","command":"x","params":{{"n":{value}}}}}'
        params = f'{{"mid":"{number:026}","body":{body}}}'
        return f'{{"jsonrpc":"2.0","method":"incoming.message","params":{params}}}'

    values = ["1", "9" * 5_000, "9" * 4_000, "1" * 30]
    frame = f"[{','.join(request(*item) for item in enumerate(values))}]".encode()
    received = list(jsonrpc.read(frame))
    assert [message.params["n"] for message in received if isinstance(message, PullEvent)] == [
        1,
        int("9" * 4_000),
        int("1" * 30),
    ]
    (spoilt,) = (message for message in received if isinstance(message, Malformed))
    assert spoilt.mid == f"{1:026}"
