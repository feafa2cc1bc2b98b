"""What a portal can put into JSON that HTTP carries well: nonsense, and far more than it looks like."""

import json
from functools import partial
from typing import Any

from tests.connection.stand_ins import PRIVATE_ID, http_answer
from tests.hostile.server import hostile_server
from tests.hostile.test_http import sent
from tests.hostile.test_websocket import MIB
from tests.hostile.trial import attacked_call, attacked_calls, try_all
from tests.hostile.victim import fetch_config, refresh

FULL = 2 * MIB - 4096
"""Bytes that fit into a REST answer by the default cap."""


def filled(unit: str) -> str:
    """Return a list that repeats a unit until an answer is full."""
    return "[" + ",".join([unit] * (FULL // (len(unit.encode()) + 1))) + "]"


def config(**fields: str) -> str:
    """Return an answer with a good configuration but for some fields, given as JSON."""
    good = {
        "server": '{"version":4,"websocket_secure":"wss://push.example/subws/"}',
        "channels": json.dumps({"private": {"id": PRIVATE_ID}}),
    }
    written = ",".join(f'"{name}":{value}' for name, value in (good | fields).items())
    return f'{{"result":{{{written}}}}}'


def channel(field: str, value: str) -> str:
    """Return an answer whose private channel has an odd field."""
    return config(channels=f'{{"private":{{"id":"x","{field}":{value}}}}}')


def public_channels(count: int) -> str:
    """Return genuine public channels of so many users."""
    times = '"start":"2026-11-22T10:00:00+03:00","end":"2026-11-22T22:00:05+03:00"'
    channels = (
        f'"{user}":{{"user_id":{user},"public_id":"{user:032x}","signature":"{user:040x}",{times}}}'
        for user in range(count)
    )
    return "{" + ",".join(channels) + "}"


def answers() -> dict[str, str | bytes]:
    """Return what a portal may answer to who asks for a configuration; together it is large."""
    odd_channels = "{" + ",".join(f'"x{user}":7' for user in range(300_000)) + "}"
    many_channels = "{" + ",".join(f'"{user}":{{"user_id":{user}}}' for user in range(150_000)) + "}"
    deep = "[" * 100_000 + "]" * 100_000
    return {
        "nothing": "",
        "null": "null",
        "a text": '"result"',
        "a list 100,000 deep": deep,
        "a result 100,000 deep": f'{{"result":{deep}}}',
        "a result 1,000 deep": f'{{"result":{"[" * 1000}{"]" * 1000}}}',
        "a list that never ends": "[" * FULL,
        "a million digits": config(exp="9" * 1_000_000),
        "NaN": config(exp="NaN"),
        "1e999": config(exp="1e999"),
        "1e308": config(exp="1e308"),
        "a version of 1e308": config(server='{"version":1e308,"websocket_secure":"wss://push.example/"}'),
        "a version below 0": config(server='{"version":-1,"websocket_secure":"wss://push.example/"}'),
        "a version that is a list": config(server='{"version":[4]}'),
        "a lone surrogate": config(jwt='"\\ud800"'),
        "a key twice": '{"result":{},"result":{"server":7}}',
        "a byte order mark": b"\xef\xbb\xbf" + config().encode(),
        "UTF-16": config().encode("utf-16"),
        "UTF-32": config().encode("utf-32"),
        "no UTF-8": b'{"result":"\xff\xfe"}',
        "empty lists": f'{{"result":{filled("[]")}}}',
        "empty maps": f'{{"result":{filled("{}")}}}',
        "maps": f'{{"result":{filled(chr(123) + chr(34) * 2 + ":0}")}}}',
        "short texts": f'{{"result":{filled(chr(34) + "ж" + chr(34))}}}',
        "empty maps beside the result": f'{{"result":true,"x":{filled("{}")}}}',
        "150,000 public channels": config(publicChannels=many_channels),
        "as many public channels as fit": config(publicChannels=public_channels(FULL // 232)),
        "odd public channels, not too dense": config(
            publicChannels="{" + ",".join(f'"{"x" * 100}{user}":7' for user in range(FULL // 120)) + "}"
        ),
        "300,000 public channels that are none": config(publicChannels=odd_channels),
        "a user id of 4,000 digits": config(publicChannels=f'{{"{"9" * 4000}":{{}}}}'),
        "a user id that steers terminals": config(publicChannels='{"\\u001b[2J\\r\\n":{}}'),
        "an address of 100,000 characters": config(server=f'{{"websocket_secure":"wss://{"x" * 100_000}/"}}'),
        "an address that steers terminals": config(server='{"websocket_secure":"wss://\\u001b[2J\\r\\n/"}'),
        "an end in year 1": channel("end", '"0001-01-01T00:00:00+14:00"'),
        "an end in year 9999": channel("end", '"9999-12-31T23:59:59-14:00"'),
        "an end in year 99999": channel("end", '"99999-01-01T00:00:00+00:00"'),
        "an end of 1e400": channel("end", "1e400"),
        "an end of -1e15": channel("end", "-1e15"),
        "an end that is a map": channel("end", '{"a":1}'),
        "an end of 1 MiB": channel("end", f'"{"2" * MIB}"'),
        "an id of 1 MiB": config(channels=f'{{"private":{{"id":"{"x" * MIB}"}}}}'),
        "an id that is a number": config(channels='{"private":{"id":7}}'),
        "an exp of year 1": config(exp="-62135596800"),
        "a serverTime of 1e18": config(serverTime="1e18"),
        "a time of 1e308": config()[:-1] + ',"time":{"finish":1e308}}',
        "a time below 0": config()[:-1] + ',"time":{"finish":-1e12}}',
        "a time that is a map": config()[:-1] + ',"time":{"finish":{}}}',
        "an error that is a list": '{"error":["x"]}',
        "an error that steers terminals": (
            '{"error":"\\u001b[2J","error_description":"\\u001b]0;x\\u0007\\nX"}'
        ),
        "an error of 4 MiB": f'{{"error":"{"x" * MIB}","error_description":"{"y" * (FULL - MIB)}"}}',
        "an error that turns text around": '{"error":"\\u202e\\u2066","error_description":"\\u200b"}',
        "a limit until long ago": '{"error":"OPERATION_TIME_LIMIT","time":{"operating_reset_at":-1e308}}',
        "a limit until NaN": '{"error":"OPERATION_TIME_LIMIT","time":{"operating_reset_at":"NaN"}}',
    }


def _strike(content: str | bytes) -> Any:
    body = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return sent(http_answer(200, body))


TYPED = {"AnswerTooLarge", "InvalidConfig", "NotAPortal", "PortalError", "OperationTimeLimit"}


async def test_an_odd_configuration_is_read_or_a_typed_error() -> None:
    table = answers()
    async with hostile_server() as server:
        attacks = [partial(server.strike, "rest", _strike(content)) for content in table.values()]
        reports = attacked_calls(server, fetch_config, attacks, times=len(attacks))
        names = iter(table)
        async for report in reports:
            name = next(names)
            assert report.result == "PullConfig" or report.error in TYPED, (name, report)
            assert len(report.error_text) < 2000, name
            assert report.error_text.isprintable(), name


def tokens(access: str, refresh: str, **fields: str) -> str:
    """Return an answer with tokens and some fields, given as JSON."""
    more = "".join(f',"{name}":{value}' for name, value in fields.items())
    return f'{{"access_token":"{access}","refresh_token":"{refresh}"{more}}}'


def tokens_answered() -> dict[str, str]:
    """Return what may be answered to who refreshes tokens."""
    return {
        "an end of 1e308": '{"access_token":"fresh0","refresh_token":"r","expires_in":1e308}',
        "an end of a million digits": '{"access_token":"a","refresh_token":"r","expires_in":"%s"}'
        % ("9" * 10**6),
        "an end that is a list": '{"access_token":"fresh0","refresh_token":"r","expires_in":[]}',
        "an end in the past": '{"access_token":"fresh0","refresh_token":"r","expires_in":-1e18}',
        "tokens that steer terminals": '{"access_token":"\\u001b[2J","refresh_token":"\\r\\n"}',
        "a token that splits headers": '{"access_token":"a\\r\\nX: y","refresh_token":"r"}',
        "tokens that are lists": '{"access_token":["a"],"refresh_token":["r"]}',
        "tokens of 1 MiB": tokens("a" * MIB, "r" * MIB),
        "empty maps": tokens("a", "r", x=filled("{}")),
        "a lone surrogate": '{"access_token":"\\ud800","refresh_token":"r"}',
    }


async def test_odd_tokens_are_taken_or_a_typed_error() -> None:
    async def check(content: str) -> None:
        async with hostile_server() as server:
            report = await attacked_call(server, refresh, lambda: server.strike("oauth", _strike(content)))
        assert report.result == "bool" or report.error in {"AnswerTooLarge", "NotAPortal", "InvalidArgument"}
        assert report.error_text.isprintable()

    await try_all(tokens_answered(), check)
