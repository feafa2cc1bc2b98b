"""What a portal, an OAuth server and a polled push server can do below JSON: to HTTP itself."""

import gzip
import zlib

from tests.connection.stand_ins import http_answer
from tests.hostile.server import Strike, hostile_server
from tests.hostile.test_websocket import MIB, answer
from tests.hostile.trial import attacked_call, attacked_listener, rows, try_all
from tests.hostile.victim import Role, fetch_config, refresh

OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
DEADLINES = {"rest_timeout_s": 1.0, "connect_timeout_s": 1.0}

_ZEROS_32_MIB = gzip.compress(bytes(32 * MIB), 1)
_BOMB_IN_BOMB = gzip.compress(_ZEROS_32_MIB, 1)


def head(*headers: bytes) -> bytes:
    """Return the head of an answer."""
    return OK + b"".join(header + b"\r\n" for header in headers) + b"\r\n"


def sent(*pieces: bytes, pause_s: float = 0.0) -> Strike:
    """Return what answers with these pieces."""
    return answer(lambda request: iter(pieces), pause_s)


def _encoded(encoding: bytes, content: bytes) -> Strike:
    return sent(head(b"Content-Encoding: " + encoding, b"Content-Length: %d" % len(content)), content)


CHUNK = b"10000\r\n" + bytes(0x10000) + b"\r\n"

STRIKES: dict[str, Strike] = {
    "a body over the cap": sent(head(b"Content-Length: 33554432"), bytes(32 * MIB)),
    "a body without end": sent(head(), *[bytes(MIB)] * 32),
    "chunks without end": sent(head(b"Transfer-Encoding: chunked"), *[CHUNK] * 512),
    "tiny chunks without end": sent(head(b"Transfer-Encoding: chunked"), *[b"1\r\n \r\n" * 20_000] * 20),
    "a chunk with a huge extension": sent(head(b"Transfer-Encoding: chunked"), b"1;" + b"x" * 8 * MIB),
    "a chunk of 2^64": sent(head(b"Transfer-Encoding: chunked"), b"f" * 17 + b"\r\n", b"x"),
    "a chunk of no size": sent(head(b"Transfer-Encoding: chunked"), b"zz\r\n"),
    "trailers without end": sent(head(b"Transfer-Encoding: chunked"), b"0\r\n", *[b"X: x\r\n" * 20_000] * 10),
    "a gzip bomb": _encoded(b"gzip", _ZEROS_32_MIB),
    "a deflate bomb": _encoded(b"deflate", zlib.compress(bytes(32 * MIB), 1)),
    "a bomb in a bomb": _encoded(b"gzip", _BOMB_IN_BOMB),
    "gzip that is none": _encoded(b"gzip", b"not gzip at all"),
    "an encoding that nobody knows": _encoded(b"br", b"not brotli at all"),
    "a length too small": sent(head(b"Content-Length: 3"), b"{}" + b"x" * 1000),
    "a length too large": sent(head(b"Content-Length: 1000"), b"{}"),
    "a negative length": sent(head(b"Content-Length: -1"), b"{}"),
    "two lengths": sent(head(b"Content-Length: 2", b"Content-Length: 3"), b"{}"),
    "a length of 5,000 digits": sent(head(b"Content-Length: " + b"9" * 5000), b"{}"),
    "a length and chunks": sent(head(b"Content-Length: 5", b"Transfer-Encoding: chunked"), b"0\r\n\r\n"),
    "a body byte by byte": sent(head(b"Content-Length: 1000"), *[b"x"] * 1000, pause_s=0.05),
    "a head byte by byte": sent(*[bytes((byte,)) for byte in head(b"X: " + b"x" * 1000)], pause_s=0.05),
    "a huge header": sent(head(b"X: " + b"x" * 8 * MIB)),
    "a huge status line": sent(b"HTTP/1.1 200 " + b"x" * 8 * MIB),
    "headers without end": sent(OK, *[b"X: x\r\n" * 20_000] * 50),
    "headers without end, slowly": sent(OK, *[b"X: x\r\n"] * 1000, pause_s=0.05),
    "1xx without end": sent(*[b"HTTP/1.1 100 Continue\r\n\r\n" * 1000] * 100),
    "early hints without end": sent(*[b"HTTP/1.1 103 x\r\nLink: x\r\n\r\n" * 1000] * 100),
    "a switch of protocols": sent(b"HTTP/1.1 101 x\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", bytes(MIB)),
    "no HTTP": sent(b"\x16\x03\x01" * 10_000),
    "nothing": sent(),
    "HTTP/0.9": sent(b"{}"),
    "a status of many digits": sent(b"HTTP/1.1 " + b"9" * 1000 + b" x\r\n\r\n"),
    "a status below 100": sent(b"HTTP/1.1 007 x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
    "no content": sent(b"HTTP/1.1 204 x\r\nConnection: close\r\n\r\n"),
    "a null byte in a header": sent(head(b"X: \x00\x1b[2J", b"Content-Length: 0")),
    "a redirect": sent(http_answer(302, b"", "Location: http://127.0.0.1:9/?auth=token0")),
    "a redirect that steers terminals": sent(http_answer(302, b"", "Location: http://\x1b[2J\x07/")),
    "a redirect to nowhere": sent(http_answer(302, b"", "Location: http://[/")),
    "a million cookies": sent(head(*[b"Set-Cookie: a=b"] * 20_000, b"Content-Length: 0")),
}


POLLING = {"poll_timeout_s": 1.0, "connect_timeout_s": 1.0, "max_message_bytes": 2 * MIB}


async def test_a_bad_answer_costs_a_typed_error_or_one_attempt() -> None:
    await try_all(rows(STRIKES, ("rest", "poll", "oauth", "options")), _strike)


async def _strike(row: tuple[Strike, str]) -> None:
    strike, door = row
    match door:
        case "poll":
            await _strike_poll(strike)
        case "options":
            await _strike_options(strike)
        case _:
            await _strike_call(strike, door)


async def _strike_call(strike: Strike, door: str) -> None:
    role: Role = fetch_config if door == "rest" else refresh
    async with hostile_server() as server:
        report = await attacked_call(server, role, lambda: server.strike(door, strike), **DEADLINES)
    assert report.error in {"Unreachable", "AnswerTooLarge", "NotAPortal", "PortalUnavailable", "PortalMoved"}


async def _strike_poll(strike: Strike) -> None:
    async with hostile_server(polling=True) as server:

        def attack() -> None:
            server.strike("poll", strike)
            server.say(server.event("nothing"))  # Ends the poll that is open; the next is struck.

        report = await attacked_listener(server, attack, **POLLING)
    assert report.health["last_error_at"] or report.health["connects"] == 1


async def _strike_options(strike: Strike) -> None:
    async with hostile_server(polling=True) as server:

        def attack() -> None:
            server.strike("options", strike)
            server.strike("poll", sent(http_answer(400, b"4010: Wrong Channel Id.")))
            server.say(server.event("nothing"))

        report = await attacked_listener(server, attack, **POLLING)
    assert report.health["last_error_at"] or report.health["connects"] == 2
