"""Between TCP and HTTP: a transport that writes less, later, or not at all, when it is told to."""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Iterable
from typing import Any, cast

from bitrix_pull.emulator.faults.connection import ConnectionFaults, End

_LINGER_0_S = struct.pack("ii", 1, 0)
_TICK_S = 0.02

Bytes = bytes | bytearray | memoryview


class Line(asyncio.Transport):
    """The transport of one connection. Without faults it only passes on.

    Attributes:
        faults: What befalls it.
    """

    def __init__(self, transport: asyncio.Transport, latency_s: float = 0.0) -> None:
        super().__init__()
        self.faults: ConnectionFaults = ConnectionFaults()
        self._transport = transport
        self._waiting = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._latency_s = latency_s
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._arriving: asyncio.TimerHandle | None = None

    # -- writing ------------------------------------------------------------------

    def write(self, data: Bytes) -> None:
        """Write, as the faults have it."""
        faults = self.faults
        if self._timer is not None or faults.bytes_per_s is not None or faults.stall_after_bytes is not None:
            self._waiting += data
            if self._timer is None:
                self._go_on()
        else:
            self._put(data)

    def writelines(self, list_of_data: Iterable[Bytes]) -> None:
        """Write all of it."""
        self.write(b"".join(list_of_data))

    def _go_on(self) -> None:
        """Write some of what waits, and come back for the rest."""
        self._timer = None
        faults, loop = self.faults, asyncio.get_running_loop()
        if faults.stall_after_bytes is not None:
            before = self._waiting[: faults.stall_after_bytes]
            del self._waiting[: len(before)]
            faults.stall_after_bytes -= len(before)
            self._put(before)
            if faults.stall_after_bytes == 0:
                faults.stall_after_bytes = None
                self._timer = loop.call_later(faults.stall_s, self._go_on)
            return
        step = len(self._waiting) if faults.bytes_per_s is None else max(1, int(faults.bytes_per_s * _TICK_S))
        part = self._waiting[:step]
        del self._waiting[:step]
        self._put(part)
        if self._waiting:
            self._timer = loop.call_later(_TICK_S, self._go_on)

    def _put(self, data: Bytes) -> None:
        faults = self.faults
        if faults.mute:
            return
        if faults.cut_after_bytes is None:
            self._send(data)
            return
        data = data[: faults.cut_after_bytes]
        faults.cut_after_bytes -= len(data)
        self._send(data)
        if faults.cut_after_bytes == 0:
            faults.cut_after_bytes = None
            self.end(faults.end)

    def _send(self, data: Bytes) -> None:
        """Write, or put it on its way if there is one."""
        if not self._latency_s:
            self._transport.write(data)
            return
        loop = asyncio.get_running_loop()
        self._under_way.append((loop.time() + self._latency_s, bytes(data)))
        if self._arriving is None:
            self._arriving = loop.call_later(self._latency_s, self._arrive)

    def _arrive(self) -> None:
        self._arriving = None
        loop = asyncio.get_running_loop()
        while self._under_way and self._under_way[0][0] <= loop.time():
            self._transport.write(self._under_way.popleft()[1])
        if self._under_way:
            self._arriving = loop.call_at(self._under_way[0][0], self._arrive)

    def _hurry(self) -> None:
        """Let what is under way arrive: the end must not overtake it."""
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None
        for _, data in self._under_way:
            self._transport.write(data)
        self._under_way.clear()

    # -- ending -------------------------------------------------------------------

    def end(self, end: End) -> None:
        """End the connection in one of its ways."""
        match end:
            case "fin":
                self._hurry()
                self._transport.close()
            case "reset":
                # `abort` alone would end it politely. What asyncio gives out here has the
                # methods of a socket, but is none by type.
                endpoint: socket.socket = self._transport.get_extra_info("socket")
                endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0_S)
                self._transport.abort()
            case "silence":
                self.faults.mute = self.faults.deaf = True

    def close(self) -> None:
        """End it politely; what still trickles is lost. A mute line shows no end."""
        self._stop_trickling()
        self._hurry()
        if not self.faults.mute:
            self._transport.close()

    def abort(self) -> None:
        """End it at once, whatever its faults."""
        self._forget()
        self._transport.abort()

    def lost(self) -> None:
        """Take note that the connection is over."""
        self._forget()

    def _stop_trickling(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.clear()

    def _forget(self) -> None:
        self._stop_trickling()
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None
        self._under_way.clear()

    def is_closing(self) -> bool:
        """Tell whether it is ending or has ended."""
        return self._transport.is_closing()

    # -- the rest passes on ---------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known about the connection."""
        return self._transport.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Refuse: nobody needs it here."""
        raise NotImplementedError

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol below."""
        return self._transport.get_protocol()

    def is_reading(self) -> bool:
        """Tell whether it reads."""
        return self._transport.is_reading()

    def pause_reading(self) -> None:
        """Stop reading for a while."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again, unless it is deaf."""
        if not self.faults.deaf:
            self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be written."""
        return self._transport.get_write_buffer_size() + len(self._waiting)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the marks at which writing should pause and go on."""
        return self._transport.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set those marks."""
        self._transport.set_write_buffer_limits(high, low)

    def can_write_eof(self) -> bool:
        """Tell whether one direction can be closed alone."""
        return self._transport.can_write_eof()

    def write_eof(self) -> None:
        """Close the direction to the client."""
        self._transport.write_eof()


class LineProtocol(asyncio.Protocol):
    """Puts a ``Line`` between a connection and the protocol that serves it."""

    def __init__(self, served_by: asyncio.Protocol, latency_s: float = 0.0) -> None:
        self._inner = served_by
        self._latency_s = latency_s
        self._line: Line | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand on the line in place of the transport."""
        # uvloop's transports are none by type.
        self._line = Line(cast("asyncio.Transport", transport), self._latency_s)
        self._inner.connection_made(self._line)

    def data_received(self, data: bytes) -> None:
        """Hand on what was received, unless the line is deaf."""
        assert self._line is not None
        if self._line.faults.deaf:
            self._line.pause_reading()
        else:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Hand on that the client has closed its direction, unless the line is deaf."""
        assert self._line is not None
        return True if self._line.faults.deaf else self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand on the end."""
        assert self._line is not None
        self._line.lost()
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Hand on that the client reads too slowly."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Hand on that it has caught up."""
        self._inner.resume_writing()
