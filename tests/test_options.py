"""Settings are checked where they are written, not hours later."""

import dataclasses
import math
from typing import Any

import pytest

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.options import PullOptions, RateLimit

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
    assert {"ping_interval_s", "inbox_max_events", "max_message_bytes"} <= set(NUMBERS)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [0, -1, 0.0, -0.5, math.nan, -math.inf])
def test_every_number_must_be_greater_than_0(name: str, value: float) -> None:
    with pytest.raises(InvalidArgument, match=f"{name} must be a .*number greater than 0"):
        options(**{name: value})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [1, 10**9])
def test_any_other_number_is_taken(name: str, value: float) -> None:
    assert getattr(options(**{name: value}), name) == value


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [math.inf, 2**31, 10**400])
def test_nothing_is_without_an_end(name: str, value: float) -> None:
    with pytest.raises(InvalidArgument, match=f"{name} must be"):
        options(**{name: value})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["10", b"10", None, True, [10], 10j])
def test_what_is_no_number_is_refused(name: str, value: object) -> None:
    with pytest.raises(InvalidArgument, match=f"{name} must be a .*number"):
        options(**{name: value})


@pytest.mark.parametrize("value", [0, 1, None, "yes", []])
def test_what_is_no_switch_is_refused(value: object) -> None:
    with pytest.raises(InvalidArgument, match="protobuf must be True or False"):
        options(protobuf=value)


@pytest.mark.parametrize("hosts", [b"push.example", [7], {None}, 7, None, object()])
def test_what_are_no_hosts_is_refused(hosts: object) -> None:
    for name in ("allow_http_hosts", "allow_private_hosts"):
        with pytest.raises(InvalidArgument, match=name):
            options(**{name: hosts})


@pytest.mark.parametrize("limit", [(0, 2), (1, 0), (2.5, 2), ("50", 2), (50, "2"), (50, math.nan)])
def test_a_rate_limit_is_checked_too(limit: tuple[Any, Any]) -> None:
    with pytest.raises(InvalidArgument, match=r"burst|per_s"):
        RateLimit(*limit)


def test_one_host_written_as_text_is_refused() -> None:
    for name in ("allow_http_hosts", "allow_private_hosts"):
        with pytest.raises(InvalidArgument, match=name):
            options(**{name: "push.example"})


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


@pytest.mark.parametrize("proxy", ["http://a.test", "https://a.test:1/", "http://me:pass%40@[::1]:3128"])
def test_proxies(proxy: str) -> None:
    assert options(proxy=proxy).proxy == proxy
    assert "proxy" not in repr(options(proxy=proxy))


@pytest.mark.parametrize(
    "proxy",
    [
        "",
        "a.test:3128",
        "http://",
        "http://hushhush:99999",
        "http://hushhush:0",
        "http://hushhush@a.test",
        "http://[hushhush",
        "http://a.test/hushhush",
        "http://a.test?hushhush",
        "http://a.test\r\nX: hushhush",
        "http://hush hush",
        "ftp://hushhush",
        "http://хушхуш.рф",
        "socks5://me:hushhush@a.test",
        1,
    ],
)
def test_what_is_no_http_proxy_is_refused_without_repeating_it(proxy: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^proxy ") as caught:
        options(proxy=proxy)
    assert "hushhush" not in str(caught.value)


@pytest.mark.parametrize("context", [True, "ca.pem", object()])
def test_tls_settings_are_a_context(context: Any) -> None:
    with pytest.raises(InvalidArgument, match="SSLContext"):
        options(ssl=context)
