import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitrix_pull import PullEvent
from bitrix_pull.events import BACKEND_SENDER, Sender, SenderType
from bitrix_pull.inspector.shown import shown_event, shown_value

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def an_event(params: Any, **others: Any) -> PullEvent[Any]:
    known = {"sender": BACKEND_SENDER, "kind": "server", "extra": {}, "module_id": "application", **others}
    return PullEvent(mid="1" * 26, command="order_update", params=params, **known)


def shown(params: Any, **others: Any) -> dict[str, Any]:
    event: dict[str, Any] = orjson.loads(shown_event(an_event(params, **others), 1.0))
    return event


@given(JSON)
def test_whatever_json_comes_the_page_can_read_it(params: Any) -> None:
    event = shown(params)
    json.loads(event["params"])
    assert "\n" not in event["params"]


@given(
    st.dictionaries(st.sampled_from(["id", "title", "пол"]), st.integers() | st.sampled_from(["a", "Юрий"]))
)
def test_what_is_no_secret_is_shown_as_it_came(params: dict[str, Any]) -> None:
    assert json.loads(shown(params)["params"]) == params


@pytest.mark.parametrize(
    "params",
    [
        {"access_token": "short one"},
        {"auth": {"refresh_token": "two words"}},
        {"AUTH_ID": "short one"},
        [{"password": 12345678}],
        {"text": "see https://acme.bitrix24.com/rest/1/two0words/"},
        {"text": "two0words" * 6},
        {"CHANNEL_ID": "two words/short one"},
    ],
)
def test_what_is_a_secret_by_its_name_or_shape_is_not(params: Any) -> None:
    told = shown(params, extra={"channel_id": "short one"})
    for secret in ("short one", "two words", "12345678", "two0words"):
        assert secret not in json.dumps(told)
    assert "***" in told["params"]


def test_the_channel_of_a_client_is_not_shown() -> None:
    event = shown({}, sender=Sender(SenderType.CLIENT, "ab" * 16), kind="client")
    assert event["sender"] == "client"
    assert "abab" not in json.dumps(event)


@pytest.mark.parametrize(
    "params",
    [
        lambda: {"text": "x" * 1_000_000},
        lambda: {"list": list(range(300_000))},
        lambda: {"x" * 1_000_000: 1},
        lambda: {f"name {number}": {"a": number} for number in range(100_000)},
        lambda: ["x" * 10_000] * 100,
    ],
)
def test_a_large_event_is_shown_in_part_and_says_so(params: Callable[[], Any]) -> None:
    told = shown_event(an_event(params()), 1.0)
    assert len(told) < 200_000
    assert orjson.loads(told)["cut"] is True


def test_a_deep_event_is_cut_where_it_is_too_deep() -> None:
    params: Any = {}
    for _ in range(5_000):
        params = {"a": params}
    event = shown(params)
    assert event["cut"] is True
    assert event["params"].count("{") < 100


def test_an_integer_of_any_size_keeps_its_digits() -> None:
    assert json.loads(written := shown({"id": 10**30})["params"]) == {"id": 10**30}, written


def test_a_name_is_hidden_only_where_it_has_a_plain_value() -> None:
    assert shown_value({"auth": {"domain": "acme.bitrix24.com"}}) == {"auth": {"domain": "acme.bitrix24.com"}}
    assert shown_value({"token": ""}) == {"token": ""}
