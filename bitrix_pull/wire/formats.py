"""Which format a push server speaks, by its version."""

from collections.abc import Callable
from enum import Enum

from bitrix_pull.wire import protobuf, text
from bitrix_pull.wire.messages import Incoming


class WireFormat(Enum):
    """A way to write frames. The value is what the subscribe URL asks for it with."""

    TEXT = ("", "")
    JSON = ("format", "json")
    PROTOBUF = ("binaryMode", "true")


Decode = Callable[[bytes], list[Incoming]]

DECODERS: dict[WireFormat, Decode] = {
    WireFormat.TEXT: text.decode,
    WireFormat.JSON: text.decode_json,
    WireFormat.PROTOBUF: protobuf.decode,
}
