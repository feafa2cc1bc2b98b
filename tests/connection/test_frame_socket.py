"""Frames that come in any pieces; what the library sent is what is read."""

import asyncio
import itertools
import ssl
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from bitrix_pull.connection.frame_reader import Part
from bitrix_pull.connection.frame_socket import FrameSocket
from tests import virtual_time
from tests.internet.stand import CERTIFICATE, proving
from tests.laws import examples

WHOLE_BYTES = 70_000
LIBRARY_BYTES = 1_000


class Link(asyncio.Transport):
    """What a socket has written, and whether it was given up."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.given_up = False
        self.is_paused = False

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.given_up

    def abort(self) -> None:
        self.given_up = True

    def close(self) -> None:
        self.given_up = True

    def write_eof(self) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def can_write_eof(self) -> bool:
        return True


class Opened:
    """A socket, and the library's server at the other end of it."""

    def __init__(self) -> None:
        self.server = ServerProtocol()
        protocol = ClientProtocol(parse_uri("ws://127.0.0.1/"), max_size=LIBRARY_BYTES)
        self.socket = FrameSocket(protocol, max_whole_bytes=WHOLE_BYTES)
        self.link = Link()
        self.socket.connection_made(self.link)

    async def shake_hands(self) -> bytes:
        """Return the server's answer to the client's part of the handshake."""
        self.handshake = asyncio.create_task(self.socket.handshake())
        await asyncio.sleep(0)
        request = self.read()
        assert isinstance(request, Request)
        self.server.send_response(self.server.accept(request))
        return b"".join(self.server.data_to_send())

    def read(self) -> Any:
        """Return the last event that the client caused at the server."""
        self.server.receive_data(bytes(self.link.written))
        self.link.written.clear()
        return self.server.events_received()[-1]

    async def open(self) -> None:
        """Shake hands."""
        await self.bring(await self.shake_hands(), [])
        await self.handshake

    def bring_at_once(self, data: bytes) -> None:
        """Let these bytes come by one read."""
        self.socket.data_received(data)

    async def bring(self, data: bytes, cuts: list[int]) -> None:
        """Let these bytes come in pieces."""
        places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
        for start, stop in itertools.pairwise(places):
            for at in range(start, stop, 65_536):
                self.bring_at_once(data[at : min(at + 65_536, stop)])
                # Of a crowd of tiny frames, the rest is parsed later.
                await asyncio.sleep(0)

    def taken(self) -> list[bytes]:
        """Return the messages that have come."""
        messages: list[bytes] = []
        begun = b""
        while (taken := self.socket.take_frame()) is not None:
            if isinstance(taken, Part):
                begun += taken.content
                if taken.is_last:
                    messages.append(begun)
                    begun = b""
            else:
                assert not begun
                messages.append(taken)
        assert not begun
        return messages


def frame(opcode: Opcode, content: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, content, fin).serialize(mask=False)


def message(content: bytes, *, text: bool, pieces: int) -> bytes:
    """Write a message in so many frames."""
    opcode = Opcode.TEXT if text else Opcode.BINARY
    size = -(-len(content) // pieces) or 1
    parts = [content[at : at + size] for at in range(0, len(content), size)] or [b""]
    return b"".join(
        frame(Opcode.CONT if number else opcode, part, fin=number == len(parts) - 1)
        for number, part in enumerate(parts)
    )


SIZES = st.one_of(
    st.integers(0, 300),
    st.sampled_from([125, 126, 127, 128, 65_535, 65_536, 65_537, WHOLE_BYTES, WHOLE_BYTES + 1, 300_000]),
)
MESSAGES = st.tuples(SIZES, st.booleans(), st.integers(1, 3))
PINGS = st.sampled_from([Opcode.PING, Opcode.PONG])


@settings(max_examples=examples(50))
@given(
    items=st.lists(MESSAGES | PINGS, max_size=12),
    cuts=st.lists(st.integers(0, 400_000) | st.integers(0, 300), max_size=20),
)
async def test_every_message_comes_whole_and_in_order_however_the_bytes_are_cut(
    items: list[tuple[int, bool, int] | Opcode], cuts: list[int]
) -> None:
    opened = Opened()
    data, sent, pings = await opened.shake_hands(), list[bytes](), 0
    for number, item in enumerate(items):
        if isinstance(item, Opcode):
            data += frame(item, b"%d" % number if item is Opcode.PING else b"")
            pings += item is Opcode.PING
            continue
        size, text, pieces = item
        content = (b"%d," % number * size)[:size]
        sent.append(content)
        data += message(content, text=text, pieces=pieces)
    await opened.bring(data, cuts)
    await opened.handshake
    assert opened.taken() == sent
    opened.server.receive_data(bytes(opened.link.written))
    answers = [event.opcode for event in opened.server.events_received() if isinstance(event, Frame)]
    assert answers == [Opcode.PONG] * pings


@pytest.mark.parametrize("cut", [1, 2, 5, 30_000, 10**6])
@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        pytest.param(Frame(Opcode.TEXT, b"masked").serialize(mask=True), 1002, id="masked"),
        pytest.param(b"\x89\x7e\x00\x7e" + b"x" * 126, 1002, id="a long ping"),
        pytest.param(b"\xc2\x01x", 1002, id="compressed"),
        pytest.param(
            frame(Opcode.TEXT, b"begun", fin=False) + frame(Opcode.TEXT, b"another"), 1002, id="in between"
        ),
        pytest.param(frame(Opcode.CONT, b"of nothing"), 1002, id="no beginning"),
        pytest.param(b"\xc1\x00", 1002, id="reserved bits"),
        pytest.param(b"\x82\x7f" + b"\xff" * 8, 1009, id="endless"),
    ],
)
async def test_what_is_wrong_ends_the_connection_with_its_code(wrong: bytes, code: int, cut: int) -> None:
    opened = Opened()
    data = await opened.shake_hands() + frame(Opcode.TEXT, b"good")
    await opened.bring(data + wrong + frame(Opcode.TEXT, b"behind it"), [len(data) + cut])
    await opened.handshake
    socket = opened.socket
    assert socket.take_frame() == b"good"
    begun = b""
    while (part := socket.take_frame()) is not None:
        assert isinstance(part, Part)
        assert not part.is_last
        begun += part.content
    assert begun in (b"", b"begun")
    with pytest.raises(ConnectionClosed) as closed:
        await socket.next_frame()
    assert closed.value.sent is not None
    assert closed.value.sent.code == code


async def test_a_message_that_is_larger_than_everything_comes_part_by_part() -> None:
    opened = Opened()
    await opened.open()
    content = bytes(range(256)) * 40_000
    data = frame(Opcode.BINARY, content)
    came = bytearray()
    for at in range(0, len(data), 100_000):
        opened.bring_at_once(data[at : at + 100_000])
        assert not opened.link.is_paused
        while (part := opened.socket.take_frame()) is not None:
            assert isinstance(part, Part)
            came += part.content
            assert part.is_last == (len(came) == len(content))
    assert came == content


async def test_parts_that_nobody_reads_stop_the_reading() -> None:
    opened = Opened()
    await opened.open()
    opened.bring_at_once(frame(Opcode.BINARY, b"x" * 1_000_000)[:400_000])
    assert opened.link.is_paused
    opened.socket.take_frame()
    assert not opened.link.is_paused


async def test_a_large_message_that_comes_during_the_closing_does_not_hold_it_up() -> None:
    opened = Opened()
    await opened.open()
    large = frame(Opcode.BINARY, b"x" * 300_000)
    opened.bring_at_once(large[:1_000])
    closing = asyncio.create_task(opened.socket.close())
    await asyncio.sleep(0)
    opened.bring_at_once(large[1_000:] + large + frame(Opcode.CLOSE, b"\x03\xe8"))
    opened.socket.eof_received()
    opened.socket.connection_lost(None)
    await closing
    assert opened.socket.close_code == 1000
    assert opened.socket.take_frame() is None


async def test_what_comes_after_a_close_frame_is_no_message() -> None:
    opened = Opened()
    data = await opened.shake_hands() + frame(Opcode.CLOSE, b"\x03\xe8") + frame(Opcode.TEXT, b"late")
    await opened.bring(data, [])
    with pytest.raises(ConnectionClosed) as closed:
        await opened.socket.next_frame()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1000


async def test_a_crowd_of_tiny_frames_comes_whole() -> None:
    opened = Opened()
    await opened.bring(await opened.shake_hands() + frame(Opcode.TEXT, b"") * 20_000, [])
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(opened.taken()) == 20_000


async def test_empty_frames_that_nobody_reads_stop_the_reading() -> None:
    opened = Opened()
    await opened.open()
    for _ in range(10):
        opened.bring_at_once(frame(Opcode.BINARY, b"") * 1_000)
    assert opened.link.is_paused
    opened.taken()
    assert not opened.link.is_paused


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.BINARY])
async def test_a_crowd_of_tiny_frames_does_not_hold_up_a_closing(opcode: Opcode) -> None:
    opened = Opened()
    await opened.open()
    closing = asyncio.create_task(opened.socket.close())
    await asyncio.sleep(0)
    opened.link.written.clear()
    opened.bring_at_once(frame(opcode, b"") * 100_000)
    assert opened.link.is_paused
    assert len(opened.link.written) < 20_000
    closing.cancel()


async def test_an_end_behind_a_crowd_of_frames_loses_none() -> None:
    opened = Opened()
    await opened.open()
    opened.bring_at_once(frame(Opcode.TEXT, b"a") * 3_000 + frame(Opcode.CLOSE, b"\x03\xe9"))
    # Over TLS it comes although the reading is paused.
    opened.socket.eof_received()
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(opened.taken()) == 3_000
    assert opened.socket.ending.rcvd is not None
    assert opened.socket.ending.rcvd.code == 1001


def test_a_large_frame_that_comes_slowly_is_a_sign_of_life() -> None:
    async def main() -> None:
        opened = Opened()
        await opened.open()
        opened.socket.watch(interval_s=10, timeout_s=5)
        content = frame(Opcode.BINARY, b"x" * 70_000)
        for at in range(0, len(content), 8_000):
            opened.bring_at_once(content[at : at + 8_000])
            await asyncio.sleep(4)
        assert not opened.socket.silent
        assert len(opened.taken()) == 1
        await asyncio.sleep(20)
        assert opened.socket.silent

    virtual_time.run(main)


async def test_a_burst_over_tls_comes_whole() -> None:
    messages = [b"message %d; " % number * 90 for number in range(1_000)]

    async def burst(server: ServerConnection) -> None:
        server.transport.write(b"".join(frame(Opcode.BINARY, message) for message in messages))
        await server.wait_closed()

    trusting = ssl.create_default_context(cafile=CERTIFICATE)
    trusting.check_hostname = False
    async with serve(burst, "127.0.0.1", 0, ssl=proving(), ping_interval=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        create: Any = partial(FrameSocket, max_whole_bytes=WHOLE_BYTES)
        socket = await connect(
            f"wss://127.0.0.1:{port}", ssl=trusting, proxy=None, compression=None, create_connection=create
        )
        assert isinstance(socket, FrameSocket)
        async with asyncio.timeout(10):
            assert [await socket.next_frame() for _ in messages] == messages
        await socket.close()
