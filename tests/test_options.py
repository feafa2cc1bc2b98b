"""Settings are checked where they are written, not hours later."""

import dataclasses
import math
from typing import Any

import pytest

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.options import PullOptions

NUMBERS = [
    field.name
    for field in dataclasses.fields(PullOptions)
    if type(getattr(PullOptions(), field.name)) in (int, float)
]


def options(**settings: Any) -> PullOptions:
    return PullOptions(**settings)


def test_the_defaults_are_valid() -> None:
    assert PullOptions() == PullOptions()


def test_there_are_numbers_to_check() -> None:
    assert {"ping_interval_s", "inbox_max_events", "max_frame_bytes"} <= set(NUMBERS)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [0, -1, 0.0, -0.5, math.nan, -math.inf])
def test_every_number_must_be_greater_than_0(name: str, value: float) -> None:
    with pytest.raises(InvalidArgument, match=f"{name} must be greater than 0"):
        options(**{name: value})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [1, 1e9])
def test_any_other_number_is_taken(name: str, value: float) -> None:
    assert getattr(options(**{name: value}), name) == value


def test_one_host_written_as_text_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="allow_http_hosts"):
        options(allow_http_hosts="push.example")


@pytest.mark.parametrize("hosts", [(), ["push.example"], {"push.example"}, frozenset({"a", "b"})])
def test_hosts_are_any_collection(hosts: Any) -> None:
    assert options(allow_http_hosts=hosts).allow_http_hosts == hosts


@pytest.mark.parametrize("transport", ["auto", "websocket", "long_polling"])
def test_transports(transport: str) -> None:
    assert options(transport=transport).transport == transport


@pytest.mark.parametrize("transport", ["polling", "", None, "x" * 500])
def test_other_transports_are_refused(transport: object) -> None:
    with pytest.raises(InvalidArgument, match="transport") as caught:
        options(transport=transport)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("overflow", ["pause", "drop_oldest", "drop_newest"])
def test_overflow(overflow: str) -> None:
    assert options(overflow=overflow).overflow == overflow


@pytest.mark.parametrize("overflow", ["drop", "", None])
def test_other_ways_of_overflow_are_refused(overflow: object) -> None:
    with pytest.raises(InvalidArgument, match="overflow must be one of"):
        options(overflow=overflow)


@pytest.mark.parametrize("protobuf", [True, False])
def test_protobuf_is_a_switch(protobuf: bool) -> None:
    assert options(protobuf=protobuf).protobuf is protobuf


def test_they_cannot_be_changed_afterwards_nor_given_by_position() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PullOptions().ping_interval_s = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        PullOptions("auto")  # type: ignore[call-arg]
