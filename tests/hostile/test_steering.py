"""What a push server can make of the messages that steer its clients, and of ids and times."""

import asyncio
import json
from typing import Any

import pytest

from bitrix_pull import AccessToken, PullClient
from tests import virtual_time
from tests.connection.stand_ins import PRIVATE_ID
from tests.hostile.server import HostileServer, hostile_server
from tests.hostile.test_messages import field
from tests.hostile.trial import attacked_listener, rows, try_all
from tests.hostile.websocket import CLOSE, frame
from tests.wire.test_codecs import WRITERS, Written, body

OURS = PRIVATE_ID.partition(":")[0]


def control(command: str, params: object) -> str:
    """Return the body of a control message."""
    return body(params, module="pull", command=command)


EXPIRED: dict[str, object] = {
    "nothing": {},
    "a list": [],
    "a text": "x",
    "a channel that is a list": {"channel": [OURS], "action": "reconnect"},
    "an id that is a list": {"channel": {"id": [OURS]}, "action": "reconnect"},
    "an id of 100,000 characters": {"channel": {"id": "x" * 100_000}},
    "an action that is a map": {"channel": {"id": OURS}, "action": {}},
    "a new channel that is a list": {"channel": {"id": OURS}, "action": "reconnect", "new_channel": [1]},
    "a new channel of nothing": {"channel": {"id": OURS}, "action": "reconnect", "new_channel": {}},
    "a new channel with an odd end": {
        "channel": {"id": OURS},
        "action": "reconnect",
        "new_channel": {"id": "x", "end": "99999-01-01"},
    },
    "a new channel of year 1": {
        "channel": {"id": OURS},
        "action": "reconnect",
        "new_channel": {"id": PRIVATE_ID, "end": "0001-01-01T00:00:00+00:00"},
    },
    "a new channel of year 9999": {
        "channel": {"id": OURS},
        "action": "reconnect",
        "new_channel": {"id": PRIVATE_ID, "end": "9999-12-31T23:59:59+00:00"},
    },
}


async def test_an_odd_channel_expire_costs_one_request_at_most() -> None:
    async def check(params: object) -> None:
        async with hostile_server() as server:
            text = control("channel_expire", params)
            report = await attacked_listener(server, lambda: server.say(server.frame(text)))
        assert server.requests["rest"] <= 2
        assert report.error == ""

    await try_all(EXPIRED, check)


FLOODS: dict[str, tuple[str, object]] = {
    "of expired channels": ("channel_expire", {"channel": {"id": OURS}, "action": "get_config"}),
    "of unknown channels": ("channel_expire", {"channel": {"id": "f" * 32}, "action": "get_config"}),
    "of unknown commands": ("x" * 50, {}),
}


@pytest.mark.parametrize(("command", "params"), FLOODS.values(), ids=FLOODS)
async def test_a_flood_makes_no_flood_at_the_portal(command: str, params: object) -> None:
    async with hostile_server() as server:

        def attack() -> None:
            for _ in range(20):
                server.say(server.frame(*[control(command, params)] * 200))

        await attacked_listener(server, attack)
    # Channels that are said to have ended, and are answered again, are asked for by the short ladder.
    assert server.requests["rest"] <= 4
    assert server.requests["websocket"] <= 2


HOUR_S = 3600.0

NAGGING: dict[str, tuple[object, int, int]] = {
    # What each new connection hears first, and how many requests and connections an hour may bring.
    "the configuration has expired": (control("config_expire", {}), 140, 140),
    "the server restarts": (control("server_restart", {}), 140, 140),
    "the channel has expired": (control("channel_expire", {"channel": {"id": OURS}}), 70, 70),
}


@pytest.mark.parametrize(("text", "requests", "connections"), NAGGING.values(), ids=NAGGING)
def test_a_server_that_nags_at_every_connection_is_not_stormed(
    text: str, requests: int, connections: int
) -> None:
    async def main() -> HostileServer:
        async with hostile_server() as server:
            server.greeting = text
            pull = PullClient(AccessToken(f"http://{server.address}", "token0"))
            serving = asyncio.create_task(pull.run())
            await asyncio.sleep(HOUR_S)
            await pull.close(drain=0)
            await serving
            return server

    server = virtual_time.run(main)
    assert 1 < server.requests["rest"] <= requests
    assert server.requests["websocket"] <= connections


# -- ids and times -----------------------------------------------------------------------

FAR = "9" * 26
OVERLAP_S = 6.0
"""Longer than a resume point lies behind the newest message."""

MIDS = {
    "far in the future": FAR,
    "a year ahead": "2" + "0" * 25,
    "no digits": "z" * 26,
    "other digits": "٣" * 26,
    "too short": "2",
    "too long": "9" * 100_000,
    "negative": "-" + "1" * 25,
    "a path": "../../../../../etc/passwd",
    "an injection": "1&CHANNEL_ID=evil",
    "a control character": "\x1b[2J\r\n",
}


async def test_an_odd_id_does_not_move_the_resume_point() -> None:
    async def check(row: tuple[str, int]) -> None:
        mid, version = row
        async with hostile_server(version) as server:

            def attack() -> None:
                server.say(odd_frame(server, mid))
                server.say_raw(frame(CLOSE, b"\x0f\xaa"))

            report = await attacked_listener(server, attack)
        assert report.commands == ["evil"]
        assert report.health["connects"] == 2
        assert all(resumed.isascii() and resumed.isdigit() and resumed < "18" for resumed in server.mids)

    await try_all(rows(MIDS, (3, 5)), check)


@pytest.mark.parametrize("polling", [False, True])
def test_an_id_from_the_future_makes_nobody_deaf(polling: bool) -> None:
    async def main() -> HostileServer:
        async with hostile_server(3, polling=polling) as server:
            pull = PullClient(AccessToken(f"http://{server.address}", "token0"))
            async with pull:
                for _ in range(3):
                    server.say(odd_frame(server, FAR))
                    await asyncio.sleep(OVERLAP_S)
                    server.say(server.event("x"))
                    await asyncio.sleep(OVERLAP_S)
                server.hang_up()
                await asyncio.sleep(OVERLAP_S)
            return server

    server = virtual_time.run(main)
    assert server.mids[-1] > "17"
    assert all(resumed < "18" for resumed in server.mids)


def odd_frame(server: HostileServer, mid: str) -> bytes:
    """Return a frame of one message with an odd id."""
    marked = WRITERS[server.format]([Written("7" * 26, body({}, command="evil"))])
    # The writers compute with an id, so it is put in afterwards.
    return marked.replace(b'"' + b"7" * 26, b'"' + json.dumps(mid, ensure_ascii=False)[1:-1].encode())


async def test_a_flood_of_ids_that_cannot_be_is_not_remembered_for_ever() -> None:
    async with hostile_server() as server:
        content = field(2, b'{"module_id":"m","command":"evil"}')

        def attack() -> None:
            for start in range(0, 100_000, 4_000):
                ids = (b"\xff" * 8 + number.to_bytes(5, "big") for number in range(start, start + 4_000))
                server.say(field(1, field(1, b"".join(field(1, field(1, one) + content) for one in ids))))

        await attacked_listener(server, attack)


TIMES: dict[str, bytes] = {
    "created in 2106": b"\x25\xff\xff\xff\xff",
    "created in 1970": b"\x25\x00\x00\x00\x00",
    "kept for 136 years": b"\x18\xff\xff\xff\xff\x0f",
    "kept for 2^63 s": b"\x18" + b"\xff" * 9 + b"\x01",
}


async def test_odd_times_do_no_harm() -> None:
    async def check(extra: bytes) -> None:
        async with hostile_server() as server:
            mid = bytes.fromhex("17953130010000000000000099")
            message = field(1, mid) + field(2, body({}, command="evil").encode()) + extra
            update = field(1, field(1, field(1, message)))
            report = await attacked_listener(server, lambda: server.say(update))
        assert report.commands == ["evil"]

    await try_all(TIMES, check)


ENDS: dict[str, Any] = {
    "year 1": "0001-01-01T00:00:00+14:00",
    "year 9999": "9999-12-31T23:59:59-14:00",
    "1970": 1,
    "now": 1_800_000_000,
}


async def test_channels_with_odd_ends_are_neither_asked_for_nor_dropped_in_a_loop() -> None:
    async def check(end: object) -> None:
        async with hostile_server() as server:

            def attack() -> None:
                server.config["channels"]["private"]["end"] = end
                server.config["exp"] = end
                server.say_raw(frame(CLOSE, b"\x0f\xaa"))

            report = await attacked_listener(server, attack)
        # Channels that have ended are not live, however well the server takes them.
        assert report.health["state"] in {"catching_up", "live", "renewing", "backoff"}
        assert server.requests["rest"] <= 4

    await try_all(ENDS, check)
