"""Which format a server speaks."""

import pytest

from bitrix_pull.wire.formats import READERS, WireFormat, format_of


@pytest.mark.parametrize(
    ("version", "with_protobuf", "without"),
    [
        (0, WireFormat.PROTOBUF, WireFormat.JSON),
        (1, WireFormat.TEXT, WireFormat.TEXT),
        (2, WireFormat.TEXT, WireFormat.TEXT),
        (3, WireFormat.TEXT, WireFormat.TEXT),
        (4, WireFormat.PROTOBUF, WireFormat.JSON),
        (5, WireFormat.JSONRPC, WireFormat.JSONRPC),
        (6, WireFormat.JSONRPC, WireFormat.JSONRPC),
    ],
)
def test_the_version_chooses_the_format(version: int, with_protobuf: WireFormat, without: WireFormat) -> None:
    assert format_of(version, protobuf=True) is with_protobuf
    assert format_of(version, protobuf=False) is without


def test_every_format_has_a_reader() -> None:
    assert set(READERS) == set(WireFormat)
