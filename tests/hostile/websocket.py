"""The server's end of a WebSocket, by hand: it can break every rule of RFC 6455."""

import asyncio
import base64
import hashlib
import struct

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    reserved: int = 0,
    masked: bool = False,
    announced: int | None = None,
) -> bytes:
    """Return a frame, as wrong as it is asked for.

    Args:
        opcode: 4 bits.
        payload: What it carries.
        fin: False if more fragments follow.
        reserved: The 3 reserved bits.
        masked: True to mask it, which a server must not do.
        announced: The length that it claims to have.
    """
    length = len(payload) if announced is None else announced
    mask_bit = 128 if masked else 0
    head = struct.pack("!B", (128 if fin else 0) | reserved << 4 | opcode)
    if length < 126:
        head += struct.pack("!B", mask_bit | length)
    elif length < 65_536:
        head += struct.pack("!BH", mask_bit | 126, length)
    else:
        head += struct.pack("!BQ", mask_bit | 127, length)
    # A mask of zeros leaves the payload as it is.
    return head + (bytes(4) if masked else b"") + payload


def accept_key(head: bytes) -> bytes:
    """Return what a server answers to the key of a handshake."""
    lines = head.lower().split(b"\r\n")
    position = next(i for i, line in enumerate(lines) if line.startswith(b"sec-websocket-key:"))
    key = head.split(b"\r\n")[position].partition(b":")[2].strip()
    return base64.b64encode(hashlib.sha1(key + _GUID).digest())


def handshake(head: bytes, *headers: bytes) -> bytes:
    """Return the answer to a handshake, with further headers."""
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + accept_key(head),
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


class Peer:
    """An open WebSocket; nothing but pongs goes out by itself.

    Attributes:
        answers_pings: False to be deaf.
        received: The text and binary frames of the client.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take over a connection whose handshake is done."""
        self._reader = reader
        self.writer = writer
        self.answers_pings = True
        self.received: list[bytes] = []

    def pause(self) -> None:
        """Read no more."""
        transport = self.writer.transport
        assert isinstance(transport, asyncio.ReadTransport)
        transport.pause_reading()

    async def serve(self) -> None:
        """Read until the client goes."""
        while True:
            first, second = await self._reader.readexactly(2)
            length = second & 127
            if length == 126:
                (length,) = struct.unpack("!H", await self._reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self._reader.readexactly(8))
            mask = await self._reader.readexactly(4)
            masked = await self._reader.readexactly(length)
            payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(masked))
            match first & 15:
                case 8:
                    self.writer.write(frame(CLOSE, payload))
                    return
                case 9:
                    if self.answers_pings:
                        self.writer.write(frame(PONG, payload))
                case 1 | 2:
                    self.received.append(payload)
                case _:
                    pass
