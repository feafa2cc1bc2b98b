"""What a push server can put into sound frames: nonsense, and far more than it looks like."""

from functools import partial

import pytest

from bitrix_pull.wire.text import CLOSING, OPENING
from tests.hostile.server import HostileServer, hostile_server
from tests.hostile.trial import attacked_again, attacked_listener, rows, try_all
from tests.hostile.websocket import TEXT, frame

MIB = 1024 * 1024
NEARLY = MIB - 4096
"""Bytes for a body that just fits into a frame."""


def filled(unit: str, *, before: str = "[", after: str = "]") -> str:
    """Return JSON that repeats a unit until a frame is full."""
    return before + ",".join([unit] * (NEARLY // (len(unit.encode()) + 1))) + after


def with_params(params: str) -> str:
    return f'{{"module_id":"application","command":"evil","params":{params}}}'


FORMATS = {"protobuf": (4, True), "json": (4, False), "text": (3, True), "json-rpc": (5, True)}


# Each is one message of an otherwise good frame; it is dropped and counted, or delivered.
def dense() -> dict[str, str]:
    """Return messages that fill a frame, each in its way."""
    return {
        "empty lists": with_params(filled("[]")),
        "empty maps": with_params(filled("{}")),
        "maps": with_params(filled('{"":0}')),
        "maps in maps": with_params(filled('{"":{}}')),
        "short texts": with_params(filled('"ж"')),
        "small numbers": with_params(filled("-9")),
        "fractions": with_params(filled("0.1")),
        "different keys": with_params(
            "{" + ",".join(f'"{number:x}":0' for number in range(NEARLY // 9)) + "}"
        ),
        "fields beside params": f'{{"module_id":"m","command":"evil","x":{filled("{}")}}}',
        "no map at all": filled("{}"),
    }


async def test_a_message_that_grows_when_read_is_dropped() -> None:
    async def check(row: tuple[str, str]) -> None:
        text, wire = row
        version, protobuf = FORMATS[wire]
        async with hostile_server(version, protobuf=protobuf) as server:
            attack = partial(_say, server, text)
            report = await attacked_listener(server, attack, protobuf=protobuf)
        assert report.health["malformed"] == 1 or report.commands == ["evil"]
        assert report.health["connects"] == 1

    await try_all(rows(dense(), FORMATS), check)


def malformed() -> dict[str, str]:
    """Return messages that are none."""
    return {
        "lists 100,000 deep": with_params("[" * 100_000 + "]" * 100_000),
        "lists that never end": with_params("[" * 500_000),
        "maps 100,000 deep": with_params('{"a":' * 100_000 + "0" + "}" * 100_000),
        "NaN": with_params('{"n":NaN}'),
        "Infinity": with_params('{"n":-Infinity}'),
        "1e999": with_params('{"n":1e999}'),
        "a lone surrogate": with_params('{"n":"\\ud800"}'),
        "a control character in a text": with_params('{"n":"\x01"}'),
        "a number that begins with 0": with_params('{"n":012}'),
        "a list": "[]",
        "a number": "7",
        "a text": '"x"',
        "null": "null",
        "no command": '{"module_id":"application"}',
        "a command that is a number": '{"module_id":"application","command":7}',
        "a command that is a list": '{"module_id":"application","command":["evil"]}',
    }


async def test_a_message_that_is_none_is_dropped_and_counted() -> None:
    table = malformed()
    async with hostile_server() as server:
        attacks = [partial(_say, server, text) for text in table.values()]
        dropped = 0
        async for report in attacked_again(server, attacks):
            dropped += 1
            assert report.health["malformed"] == dropped, (list(table)[dropped - 1], report)
            assert report.health["connects"] == 1
    assert dropped == len(table)


def _say(server: HostileServer, text: str) -> None:
    server.say(server.pasted(text))


def odd() -> dict[str, str]:
    """Return odd messages."""
    return {
        "a million digits": with_params('{"n":' + "9" * 1_000_000 + "}"),
        "a million digits after the point": with_params('{"n":0.' + "9" * 1_000_000 + "}"),
        "an exponent of a million digits": with_params('{"n":1e-' + "9" * 1_000_000 + "}"),
        "a key twice": '{"module_id":"m","module_id":"application","command":"evil","params":{"a":1,"a":2}}',
        "a command of 1 MiB": f'{{"module_id":"application","command":"{"x" * NEARLY}"}}',
        "a module of 1 MiB": f'{{"module_id":"{"X" * NEARLY}","command":"evil"}}',
        "a command that steers terminals": '{"module_id":"a","command":"\\u001b[2J\\r\\nforged"}',
        "a control command that steers terminals": '{"module_id":"pull","command":"\\u001b[2J\\r\\nforged"}',
        "a control command of 1 MiB": f'{{"module_id":"pull","command":"{"x" * NEARLY}"}}',
        "a text of escapes": with_params('"' + "\\u0416" * (NEARLY // 6) + '"'),
        "a text of 4-byte characters": with_params('"' + "a" * (NEARLY - 4) + "\U0001f600" + '"'),
        "a time that is none": '{"module_id":"m","command":"evil","extra":{"server_time_unix":1e308}}',
        "a time of many digits": '{"module_id":"m","command":"evil","extra":{"server_time_unix":9e99}}',
        "params that are a text": with_params('"[]"'),
        "extra that is a list": '{"module_id":"m","command":"evil","extra":[1]}',
    }


async def test_an_odd_message_is_delivered_or_dropped() -> None:
    async with hostile_server() as server:
        attacks = [partial(_say, server, text) for text in odd().values()]
        reports = [report async for report in attacked_again(server, attacks)]
    assert len(reports) == len(attacks)
    assert reports[-1].health["connects"] == 1


# -- protobuf ---------------------------------------------------------------------------


def varint(number: int) -> bytes:
    """Return a number as protobuf writes it."""
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes((*encoded, number))


def field(number: int, content: bytes) -> bytes:
    """Return a field of bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def nested(depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = field(1, content)
    return content


MANY = 500_000


def frames() -> dict[str, bytes]:
    """Return frames that are no protobuf, or more of it than they look like."""
    return {
        "no protobuf": b"\xff" * 1000,
        "a length over the end": b"\x0a\xff\xff\xff\xff\x07",
        "a negative length": b"\x0a" + b"\xff" * 9 + b"\x01",
        "a varint without end": b"\x08" + b"\xff" * 1000,
        "a field number 0": b"\x02\x00",
        "a group without end": b"\x0b" * 500_000,
        "groups 100,000 deep": b"\x0b" * 100_000 + b"\x0c" * 100_000,
        "groups": b"\x7b\x7c" * MANY,
        "unknown fields": b"\x78\x00" * MANY,
        "messages 10,000 deep": nested(10_000),
        "500,000 empty responses": b"\x0a\x00" * MANY,
        "500,000 empty messages": field(1, field(1, b"\x0a\x00" * MANY)),
        "500,000 empty messages in parts": b"".join(
            field(1, field(1, b"\x0a\x00" * 1000)) for _ in range(MANY // 1000)
        ),
        "500,000 messages merged": field(1, field(1, b"\x0a\x00") * (MANY // 2)),
        "500,000 empty statuses": field(1, field(2, b"\x0a\x00" * MANY)),
        "500,000 empty senders": field(1, field(1, field(1, b"\x2a\x00" * MANY))),
        "messages after a group": b"\x7b\x7c" + field(1, field(1, b"\x0a\x00" * MANY)),
        "a body that is no UTF-8": field(1, field(1, field(1, field(1, bytes(13)) + field(2, b"\xff\xfe")))),
    }


async def test_a_protobuf_frame_that_is_none_costs_a_connection_at_most() -> None:
    async def check(data: bytes) -> None:
        async with hostile_server() as server:
            report = await attacked_listener(server, lambda: server.say(data))
        assert report.health["connects"] <= 2

    await try_all(frames(), check)


@pytest.mark.parametrize("size", [0, 1, 12, 14, 100_000])
async def test_an_id_of_another_length_does_not_move_the_resume_point(size: int) -> None:
    async with hostile_server() as server:
        message = field(1, b"\xff" * size) + field(2, b'{"module_id":"m","command":"evil"}')

        def attack() -> None:
            server.say(field(1, field(1, field(1, message))))
            server.hang_up()

        report = await attacked_listener(server, attack)
    assert report.commands == ["evil"]
    assert all(len(mid) == 26 and not mid.startswith("f") for mid in server.mids)


# -- JSON-RPC ------------------------------------------------------------------------------


def calls() -> dict[str, bytes]:
    """Return frames that are no JSON-RPC, or of no use."""
    return {
        "100,000 unknown requests": b"[" + b",".join([b'{"method":"x"}'] * 70_000) + b"]",
        "100,000 unknown requests that want answers": b"["
        + b",".join([b'{"method":"x","id":1}'] * 45_000)
        + b"]",
        "numbers": b"[" + b",".join([b"1"] * 500_000) + b"]",
        "empty maps": b"[" + b",".join([b"{}"] * 340_000) + b"]",
        "an empty array": b"[]",
        "null": b"null",
        "an id that is a list": b'{"method":"x","id":[1]}',
        "an id that is a map": b'{"method":"x","id":{"a":1}}',
        "an id that is true": b'{"id":true,"result":1}',
        "an id of a million digits": b'{"method":"x","id":' + b"9" * 1_000_000 + b"}",
        "an id of 1 MiB": b'{"method":"x","id":"' + b"9" * 1_000_000 + b'"}',
        "a fraction for an id": b'{"method":"x","id":0.5}',
        "an answer to no call": b'{"id":1,"result":1}',
        "100,000 answers to no call": b"[" + b",".join([b'{"id":1}'] * 100_000) + b"]",
        "an error to no call": b'{"id":1,"error":{"code":"x","message":["\\u001b[2J"]}}',
        "an error that is a text": b'{"id":1,"error":"no"}',
        "a method that is a list": b'{"method":[1],"id":1}',
        "a method that steers terminals": b'{"method":"\\u001b[2J\\r\\n","id":1}',
        "a message without params": b'{"method":"incoming.message","id":1}',
        "a message whose params are a list": b'{"method":"incoming.message","params":[1],"id":1}',
        "a message without body": b'{"method":"incoming.message","params":{"mid":"1"},"id":1}',
        "no JSON": b"pong?",
    }


async def test_a_json_rpc_frame_that_is_none_costs_a_connection_at_most() -> None:
    async def check(data: bytes) -> None:
        async with hostile_server(5) as server:
            report = await attacked_listener(server, lambda: server.say(data))
        assert report.health["connects"] <= 2

    await try_all(calls(), check)


async def test_a_flood_of_pings_from_a_server_that_reads_no_pongs_does_not_grow() -> None:
    async with hostile_server(5) as server:

        def attack() -> None:
            for peer in server.peers:
                peer.pause()
            server.say_raw(frame(TEXT, b"ping") * 20_000)

        await attacked_listener(server, attack, ping_timeout_s=0.5)


# -- text ----------------------------------------------------------------------------------


def texts() -> dict[str, bytes]:
    """Return frames of nothing but marks, or without any."""
    return {
        "marks around nothing": (OPENING + CLOSING) * (NEARLY // 24),
        "marks around empty maps": (OPENING + b"{}" + CLOSING) * (NEARLY // 26),
        "opening marks": OPENING * (NEARLY // 12),
        "no marks": b"x" * NEARLY,
        "a byte order mark": b"\xef\xbb\xbf" + OPENING + b"{}" + CLOSING,
        "UTF-16": (OPENING + b"{}" + CLOSING).decode().encode("utf-16"),
    }


async def test_a_text_frame_that_is_none_costs_a_connection_at_most() -> None:
    async def check(data: bytes) -> None:
        async with hostile_server(3) as server:
            report = await attacked_listener(server, lambda: server.say(data))
        assert report.health["connects"] <= 2

    await try_all(texts(), check)


def envelopes() -> dict[str, bytes]:
    """Return envelopes that are none."""
    return {
        "numbers": b"[" + b",".join([b"1"] * (NEARLY // 2)) + b"]",
        "empty maps": b"[" + b",".join([b"{}"] * (NEARLY // 3)) + b"]",
        "positions": b"[" + b",".join([b'{"tag":1,"time":2}'] * (NEARLY // 19)) + b"]",
        "good ends around a bad middle": b'[{"id":1,"mid":"17953130010000000000000001","text":!},'
        + b"[" * (NEARLY - 100)
        + b"]",
    }


async def test_a_json_frame_that_is_none_costs_a_connection_at_most() -> None:
    async def check(data: bytes) -> None:
        async with hostile_server(4, protobuf=False) as server:
            report = await attacked_listener(server, lambda: server.say(data), protobuf=False)
        assert report.health["connects"] <= 2

    await try_all(envelopes(), check)
