"""What a push server can do to a WebSocket below the messages: frames and handshakes."""

import asyncio
from collections.abc import Callable, Iterator

from tests.connection.stand_ins import http_answer
from tests.hostile.server import Strike, hostile_server
from tests.hostile.trial import attacked_listener, try_all
from tests.hostile.websocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Peer, frame, handshake

MIB = 1024 * 1024
OPTIONS = {"connect_timeout_s": 1.0, "ping_interval_s": 0.5, "ping_timeout_s": 1.0}
"""Short deadlines, but not too short for a busy machine."""

WRONG_CHANNEL = b"\x0f\xaa"
"""Close code 4010, after which a client connects again at once."""

FRAMES: dict[str, bytes] = {
    "over the cap": frame(BINARY, bytes(2 * MIB)),
    "64 MiB announced": frame(BINARY, b"", announced=64 * MIB),
    "64 MiB announced and begun": frame(BINARY, bytes(MIB), announced=64 * MIB),
    "2^63 bytes announced": frame(BINARY, b"", announced=2**63 - 1),
    "2^64 bytes announced": frame(BINARY, b"", announced=2**64 - 1),
    "fragments over the cap": frame(BINARY, bytes(1000), fin=False)
    + frame(CONTINUATION, bytes(1000), fin=False) * 40_000,
    "endless empty fragments": frame(BINARY, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * 300_000,
    "masked": frame(BINARY, b"x", masked=True),
    "reserved bit 1, as for compression": frame(BINARY, b"x", reserved=4),
    "reserved bit 2": frame(BINARY, b"x", reserved=2),
    "reserved bit 3": frame(BINARY, b"x", reserved=1),
    "reserved opcode": frame(3, b"x"),
    "reserved control opcode": frame(11, b"x"),
    "a fragment of nothing": frame(CONTINUATION, b"x"),
    "a new message amid fragments": frame(BINARY, b"x", fin=False) + frame(BINARY, b"y"),
    "a fragmented ping": frame(PING, b"x", fin=False),
    "a ping too long": frame(PING, bytes(126)),
    "a close of one byte": frame(CLOSE, b"x"),
    "a close code that is none": frame(CLOSE, b"\x00\x01"),
    "a close reason that is no text": frame(CLOSE, b"\x03\xe8\xff\xfe"),
    "a close reason that steers terminals": frame(CLOSE, b"\x0f\xab\x1b[2J\r\nforged log line"),
    "bytes that are no frame": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


async def test_a_frame_that_breaks_the_rules_costs_one_connection() -> None:
    async def check(data: bytes) -> None:
        async with hostile_server() as server:
            report = await attacked_listener(server, lambda: server.say_raw(data), **OPTIONS)
        assert report.health["connects"] == 2
        assert report.health["last_error_at"]

    await try_all(FRAMES, check)


HARMLESS: dict[str, tuple[int, bytes]] = {
    "text frames that are not UTF-8": (4, frame(TEXT, b"\xff\xfe\x00")),
    "text frames that are not UTF-8, JSON-RPC": (5, frame(TEXT, b'{"jsonrpc":"2.0","method":"\xff\xfe"}')),
    "pongs that nobody asked for": (4, frame(PONG, b"x") * 30_000),
    "a flood of pings": (4, frame(PING, bytes(125)) * 10_000),
    "a flood of empty frames": (4, frame(BINARY) * 30_000),
}


async def test_nonsense_within_the_rules_is_survived() -> None:
    async def check(row: tuple[int, bytes]) -> None:
        version, data = row
        async with hostile_server(version) as server:
            await attacked_listener(server, lambda: server.say_raw(data))

    await try_all(HARMLESS, check)


async def test_a_frame_that_dribbles_while_pings_go_unanswered_ends_the_connection() -> None:
    async with hostile_server() as server:

        def attack() -> None:
            server.say_raw(frame(BINARY, b"", announced=1000))
            for peer in server.peers:
                peer.answers_pings = False
                dribbling.append(asyncio.create_task(dribble(peer)))

        async def dribble(peer: Peer) -> None:
            while True:
                peer.writer.write(b"x")
                await asyncio.sleep(0.05)

        dribbling: list[asyncio.Task[None]] = []
        report = await attacked_listener(server, attack, **OPTIONS)
        for task in dribbling:
            task.cancel()
    assert report.health["connects"] == 2
    assert any("ping" in line for line in report.warnings)


# -- handshakes ----------------------------------------------------------------------


def answer(make: Callable[[bytes], Iterator[bytes]], pause_s: float = 0.0) -> Strike:
    """Return what answers a request with bytes made from its head, piece by piece."""

    async def strike(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in make(head):
            writer.write(piece)
            await writer.drain()
            if pause_s:
                await asyncio.sleep(pause_s)

    return strike


def _one(data: bytes) -> Callable[[bytes], Iterator[bytes]]:
    return lambda head: iter((data,))


HANDSHAKES: dict[str, Strike] = {
    "compression that was not offered": answer(
        lambda head: iter((handshake(head, b"Sec-WebSocket-Extensions: permessage-deflate"),))
    ),
    "an extension that nobody knows": answer(
        lambda head: iter((handshake(head, b"Sec-WebSocket-Extensions: x-evil"),))
    ),
    "a subprotocol that was not offered": answer(
        lambda head: iter((handshake(head, b"Sec-WebSocket-Protocol: evil"),))
    ),
    "another key": answer(_one(handshake(b"GET / HTTP/1.1\r\nSec-WebSocket-Key: AAAA\r\n\r\n"))),
    "a huge header": answer(lambda head: iter((handshake(head, b"X: " + b"x" * MIB),))),
    "a huge status line": answer(_one(b"HTTP/1.1 101 " + b"x" * MIB)),
    "10,000 headers": answer(lambda head: iter((handshake(head, *[b"X: x"] * 10_000),))),
    "endless headers": answer(lambda head: iter((b"HTTP/1.1 101 x\r\n", *[b"X: x\r\n" * 1000] * 10_000))),
    "endless headers, slowly": answer(
        lambda head: iter((b"HTTP/1.1 101 x\r\n", *[b"X: x\r\n"] * 10_000)), pause_s=0.05
    ),
    "a header byte by byte": answer(
        lambda head: (bytes((byte,)) for byte in handshake(head, b"X: " + b"x" * 1000)), pause_s=0.05
    ),
    "a flood of 1xx": answer(_one(b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000)),
    "a body of 64 MiB": answer(_one(b"HTTP/1.1 500 x\r\nContent-Length: 67108864\r\n\r\n" + bytes(32 * MIB))),
    "an endless body": answer(_one(b"HTTP/1.1 500 x\r\n\r\n" + bytes(32 * MIB))),
    "a chunked body": answer(
        _one(
            b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n"
            + (b"fffff\r\n" + bytes(0xFFFFF) + b"\r\n") * 32
        )
    ),
    "a body that dribbles": answer(
        lambda head: iter((b"HTTP/1.1 500 x\r\nContent-Length: 1000\r\n\r\n", *[b"x"] * 1000)), pause_s=0.05
    ),
    "a redirect": answer(_one(http_answer(302, b"", "Location: ws://127.0.0.1:9/"))),
    "a negative length": answer(_one(b"HTTP/1.1 500 x\r\nContent-Length: -1\r\n\r\n")),
    "a length of a million digits": answer(
        _one(b"HTTP/1.1 500 x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n")
    ),
    "a status of a thousand digits": answer(_one(b"HTTP/1.1 " + b"9" * 1000 + b" x\r\n\r\n")),
    "no HTTP": answer(_one(b"\x16\x03\x01" * 1000)),
    "headers that steer terminals": answer(_one(b"HTTP/1.1 500 \x1b[2J\r\nX: \x1b[2J\x00\r\n\r\n")),
}


async def test_a_handshake_that_breaks_the_rules_costs_one_attempt() -> None:
    async def check(strike: Strike) -> None:
        async with hostile_server() as server:

            def attack() -> None:
                server.strike("websocket", strike)
                server.say_raw(frame(CLOSE, WRONG_CHANNEL))

            report = await attacked_listener(server, attack, **OPTIONS)
        assert server.requests["websocket"] == 3
        assert report.health["connects"] == 2

    await try_all(HANDSHAKES, check)
