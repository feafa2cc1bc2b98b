"""Honest examples for each target, from the recorded traffic and the reference configurations."""

import base64
import json
from pathlib import Path
from typing import Any

from bitrix_pull.wire.formats import WireFormat
from tests.wire.test_codecs import WRITERS, Written, body, mid
from tests.wire.test_skim import portal_body

_REFERENCE = Path(__file__).parents[1] / "reference"

_CONTROL = body(
    {"action": "reconnect", "channel": {"id": "f" * 32}, "new_channel": {"id": "e" * 32}},
    module="pull",
    command="channel_expire",
)
_BODIES = [body({}), body({"text": 'ж \\ "'}), body([], module="online"), _CONTROL, "!no JSON"]


def _load(name: str) -> Any:
    return json.loads((_REFERENCE / name).read_text(encoding="utf-8"))


def _frames(kind: str) -> list[str]:
    traffic = _load("traffic.json")["exchanges"]
    return [item["frame"] for item in traffic if item["name"].startswith(kind) and item.get("frame")]


def _written(wire_format: WireFormat) -> list[bytes]:
    messages = [Written(mid(number), text) for number, text in enumerate(_BODIES)]
    client = Written(mid(9), body({}), 1, "b1734c3c466b3ddcdd3b841d02a24b56")
    write = WRITERS[wire_format]
    return [write([]), write([client]), write(messages), *[write([message]) for message in messages]]


def binary_frames() -> list[bytes]:
    """Frames of version 4."""
    return [base64.b64decode(frame) for frame in _frames("ws binary")] + _written(WireFormat.PROTOBUF)


def portal_bodies() -> list[bytes]:
    """Bodies as a portal writes them, and such as hide a key."""
    hiding = (',"command":"c"', ',"\\u0063ommand":"c"', ',"module_id":"m"', ',"extra":{"server_time_unix":1}')
    return [portal_body(more=more).encode() for more in ("", *hiding)]


def text_frames() -> list[bytes]:
    """Delimited frames."""
    return [frame.encode() for frame in _frames("ws text")] + _written(WireFormat.TEXT)


def json_frames() -> list[bytes]:
    """Frames of ``format=json``."""
    position = b'[{"id":1,"tag":"277","time":"Sun, 22 Nov 2026 02:16:35 GMT","text":{}}]'
    return [*_written(WireFormat.JSON), position]


def jsonrpc_frames() -> list[bytes]:
    """Frames of version 5."""
    merged = (
        b'{"jsonrpc":"2.0","method":"incoming.message","id":1,"params":{"mid":"17953130010000000000000001",'
        b'"body":{"module_id":"m","command":"c","params":{"a":1}},"user_params":{"b":2},"dictionary":{"c":3}}}'
    )
    return [
        *_written(WireFormat.JSONRPC),
        merged,
        b"ping",
        b'{"jsonrpc":"2.0","id":1,"result":{"1":0}}',
        b'{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"Method not found"}}',
        b'{"jsonrpc":"2.0","id":"x","method":"unknown","params":[]}',
    ]


def _answer(content: object, status: int = 200, header: str = "") -> bytes:
    return f"{status} {header}\n{json.dumps(content)}".encode()


_TIME = {"start": 1.5, "finish": 1795330800.25, "operating_reset_at": 1795330900, "operating": 0.1}


def rest_answers() -> list[bytes]:
    """Answers of a portal: a status, a header, a line break, the body."""
    errors = [_answer(item["body"], item["status"]) for item in _load("errors.json")]
    limit = {"error": "OPERATION_TIME_LIMIT", "time": _TIME}
    return [
        *errors,
        _answer({"result": True, "time": _TIME}),
        _answer(limit, 429, "Sun, 22 Nov 2026 02:16:35 GMT"),
        _answer({}, 302, "https://new.example/x"),
        _answer({}, 503, "120"),
        b"400 \n4010: Wrong Channel Id.",
    ]


def configs() -> list[bytes]:
    """Answers of ``config.get``."""
    samples = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(_REFERENCE.glob("config*"))]
    return [_answer(sample if "result" in sample else {"result": sample}) for sample in samples]


def public_channels() -> list[bytes]:
    """Answers of ``channel.public.list``."""
    end = "2026-11-22T22:00:05+03:00"
    channel = {"user_id": "1", "public_id": "0" * 32, "signature": "0" * 40, "start": end, "end": end}
    return [_answer({"result": found}) for found in ({"1": channel, "5": channel}, [channel], [], {})]


def token_answers() -> list[bytes]:
    """Answers of an OAuth server."""
    tokens = {
        "access_token": "a" * 70,
        "refresh_token": "b" * 70,
        "expires": 1795330800,
        "expires_in": 3600,
        "client_endpoint": "https://acme.bitrix24.com/rest/",
        "server_endpoint": "https://oauth.bitrix.info/rest/",
        "member_id": "c" * 32,
    }
    refused = {"error": "invalid_grant", "error_description": "Invalid grant: secret-of-app"}
    return [_answer(tokens), _answer({**tokens, "expires_in": "3600"}), _answer(refused, 400)]


def addresses() -> list[bytes]:
    """Portals, webhooks, push servers, proxies and public channels."""
    return [
        b"acme.bitrix24.com",
        b"https://acme.bitrix24.com:8443/rest/1/abcdef0123456789/profile.json",
        b"wss://push.example/subws/?x=1",
        b"http://127.0.0.1:8080",
        b"https://[::1]:443/oauth/token/",
        b"http://user:password@proxy.example:3128",
        b"https://oauth.bitrix.info/rest/",
        "https://портал.example/".encode(),
        b"b1734c3c466b3ddcdd3b841d02a24b56.136bf74797e42de9d73955abe6c2a7438e44a9c2",
    ]


def urls() -> list[bytes]:
    """An address, a channel and another value, each on a line."""
    return [
        b"wss://push.example/subws/\nabc:def.012\n17953130010000000000000001",
        b"https://push.example/sub/?a=b#c\n/ &=%?\nx.y.z",
        b"ws://127.0.0.1:8893/\n\n",
    ]


def params() -> list[bytes]:
    """Values of ``--params``."""
    return [b'{"id": 7}', b'{"a":[1,2.5e3,null,true],"b":{"c":"\\u0416"}}', b"[]", b"{", b'{"n":NaN}', b'"x"']


def accounts() -> list[bytes]:
    """The account options and variables, each on a line."""
    return [
        b"https://acme.bitrix24.com/rest/1/abcdef0123456789/\n\n\n\n\n",
        b"\nacme.bitrix24.com\ntoken0123\n\n\n",
        b"\n\n\nhttps://acme.bitrix24.com/rest/1/abcdef0123456789/\n\n",
        b"\n\n\n\nacme.bitrix24.com\ntoken0123",
    ]


def options() -> list[bytes]:
    """Command lines, an argument a line."""
    return [
        b"--webhook\nhttps://acme.bitrix24.com/rest/1/code/\n--events\n3\n--json",
        b"--portal=acme.bitrix24.com\n--token=x\n--timeout\n2.5\n-v",
        b"--command\nx\n--module\ny\n--allow-http\nlocalhost",
    ]
