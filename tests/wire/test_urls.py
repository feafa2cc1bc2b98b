"""Addresses on the push server (protocol §4)."""

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.messages import Position
from bitrix_pull.wire.urls import START_OF_HISTORY, publication_url, subscription_url

ENDPOINT = "wss://push.example/bitrix/subws/"
PRIVATE = "24c9:b173.3cc5"
SHARED = "9e81.6a0c"
MID = "17953130010000000000000008"


def test_the_channels_come_first_as_one_value() -> None:
    url = subscription_url(ENDPOINT, [PRIVATE, SHARED], WireFormat.PROTOBUF)
    assert url == f"{ENDPOINT}?CHANNEL_ID=24c9%3Ab173.3cc5%2F9e81.6a0c&binaryMode=true&revision=19"


def test_everything_in_its_order() -> None:
    url = subscription_url(ENDPOINT, [PRIVATE], WireFormat.PROTOBUF, mid=MID, client_id="acme/1&x=#")
    assert url == (
        f"{ENDPOINT}?CHANNEL_ID=24c9%3Ab173.3cc5&binaryMode=true&clientId=acme%2F1%26x%3D%23"
        f"&mid={MID}&revision=19"
    )


@pytest.mark.parametrize(
    ("wire_format", "asked"),
    [
        (WireFormat.TEXT, ""),
        (WireFormat.JSON, "format=json&"),
        (WireFormat.PROTOBUF, "binaryMode=true&"),
        (WireFormat.JSONRPC, "jsonRpc=true&"),
    ],
)
def test_the_format_is_asked_for(wire_format: WireFormat, asked: str) -> None:
    assert subscription_url(ENDPOINT, ["a"], wire_format) == f"{ENDPOINT}?CHANNEL_ID=a&{asked}revision=19"


def test_a_jwt_takes_the_place_of_the_channels() -> None:
    url = subscription_url(ENDPOINT, [PRIVATE, SHARED], WireFormat.JSONRPC, jwt="head.body+/=")
    assert url == f"{ENDPOINT}?token=head.body%2B%2F%3D&jsonRpc=true&revision=19"


def test_an_empty_jwt_is_none() -> None:
    assert "CHANNEL_ID=a&" in subscription_url(ENDPOINT, ["a"], WireFormat.JSONRPC, jwt="")


def test_the_start_of_history_is_a_mid_that_the_server_takes() -> None:
    url = subscription_url(ENDPOINT, ["a"], WireFormat.TEXT, mid=START_OF_HISTORY)
    assert dict(parse_qsl(urlsplit(url).query))["mid"] == "0" * 26


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("https://push.example/sub", "https://push.example/sub?CHANNEL_ID=a"),
        ("https://push.example:8443/sub/", "https://push.example:8443/sub/?CHANNEL_ID=a"),
        ("https://push.example/sub/?", "https://push.example/sub/?CHANNEL_ID=a"),
        ("https://push.example/sub/?key=1%2F2", "https://push.example/sub/?key=1%2F2&CHANNEL_ID=a"),
        ("https://push.example/sub/#top", "https://push.example/sub/?CHANNEL_ID=a"),
    ],
)
def test_what_the_endpoint_brings_along_is_kept(endpoint: str, url: str) -> None:
    assert publication_url(endpoint, ["a"]) == url


def test_publishing_in_shared_mode_names_the_portal() -> None:
    url = publication_url("https://push.example/pub/", [PRIVATE, SHARED], client_id="acme")
    assert url == "https://push.example/pub/?CHANNEL_ID=24c9%3Ab173.3cc5%2F9e81.6a0c&clientId=acme"


@given(channels=st.lists(st.text(min_size=1), min_size=1, max_size=3), client_id=st.text(min_size=1))
def test_any_value_survives_the_query(channels: list[str], client_id: str) -> None:
    url = subscription_url(ENDPOINT, channels, WireFormat.TEXT, client_id=client_id)
    assert url.isascii()
    assert parse_qsl(urlsplit(url).query) == [
        ("CHANNEL_ID", "/".join(channels)),
        ("clientId", client_id),
        ("revision", "19"),
    ]


def test_a_server_without_mids_is_asked_by_tag_and_time() -> None:
    url = subscription_url(ENDPOINT, ["a"], WireFormat.TEXT, position=Position("277", "Sun, 22 Nov"))
    assert url.endswith("?CHANNEL_ID=a&tag=277&time=Sun%2C%2022%20Nov&revision=19")
