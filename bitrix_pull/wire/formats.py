"""Which format a push server speaks, by its version."""

from collections.abc import Callable, Iterable, Set
from enum import Enum

from bitrix_pull.wire import jsonrpc, protobuf, text
from bitrix_pull.wire.messages import Incoming
from bitrix_pull.wire.parts import PartReader, jsonrpc_parts, text_parts
from bitrix_pull.wire.protobuf_parts import ProtobufParts
from bitrix_pull.wire.skim import Topic


class WireFormat(Enum):
    """A way to write frames. The value is what the subscribe URL asks for it with."""

    TEXT = ("", "")
    JSON = ("format", "json")
    PROTOBUF = ("binaryMode", "true")
    JSONRPC = ("jsonRpc", "true")


def format_of(version: int, *, protobuf: bool) -> WireFormat:
    """Return the format for a server version; 0, where the portal named none, counts as 4.

    Args:
        version: ``server.version`` of the configuration.
        protobuf: False asks version 4 for JSON text.
    """
    if version >= 5:
        return WireFormat.JSONRPC
    if version in (0, 4):
        return WireFormat.PROTOBUF if protobuf else WireFormat.JSON
    return WireFormat.TEXT


Read = Callable[[bytes], Iterable[Incoming]]
"""Reads a frame, each message when it is asked for. Raises MalformedFrame."""

READERS: dict[WireFormat, Read] = {
    WireFormat.TEXT: text.read,
    # Not every server heeds what it is asked for: which of the two came, the frame tells.
    WireFormat.JSON: text.read,
    WireFormat.PROTOBUF: protobuf.read,
    WireFormat.JSONRPC: jsonrpc.read,
}

PART_READERS: dict[WireFormat, Callable[[int], PartReader]] = {
    WireFormat.TEXT: text_parts,
    WireFormat.JSON: text_parts,
    WireFormat.PROTOBUF: ProtobufParts,
    WireFormat.JSONRPC: jsonrpc_parts,
}
"""Makes what reads a frame while it comes, whose messages may have so many bytes."""


def reader_for(wire_format: WireFormat, unwanted: Set[Topic]) -> Read:
    """Return what reads frames, and leaves ``Unread`` what nobody wants where the format allows that.

    Args:
        wire_format: What the frames are written in.
        unwanted: What nobody wants at present; it may change at any time.
    """
    if wire_format is WireFormat.PROTOBUF:
        return lambda frame: protobuf.read(frame, unwanted)
    return READERS[wire_format]


def part_reader_for(wire_format: WireFormat, max_bytes: int, unwanted: Set[Topic]) -> PartReader:
    """Return what does so with one frame while it comes, whose messages may have so many bytes."""
    if wire_format is WireFormat.PROTOBUF:
        return ProtobufParts(max_bytes, unwanted)
    return PART_READERS[wire_format](max_bytes)
