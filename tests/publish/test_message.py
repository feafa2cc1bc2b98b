"""What is checked before anything is sent (protocol §2, event.add)."""

import dataclasses
import json
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, RootModel
from pydantic.dataclasses import dataclass as pydantic_dataclass

from bitrix_pull import Message, PublicChannel
from bitrix_pull.errors import InvalidArgument


def check(
    command: Any = "order_update", params: Any = None, module: Any = "application", users: Any = None
) -> Message:
    return Message(command, params, module=module, users=users)


@given(command=st.from_regex(r"[A-Za-z0-9_:|.\-]+", fullmatch=True))
def test_commands_that_the_portal_takes(command: str) -> None:
    assert check(command).command == command


@pytest.mark.parametrize("command", ["", "a b", "a\n", "é", "a/b", "a,b", None, 7, b"a", "x" * 500 + "!"])
def test_commands_that_it_refuses(command: object) -> None:
    with pytest.raises(InvalidArgument, match="COMMAND_ERROR") as caught:
        check(command)
    assert len(str(caught.value)) < 250


@given(module=st.from_regex(r"[a-z0-9._]+", fullmatch=True))
def test_modules_that_the_portal_takes(module: str) -> None:
    assert check(module=module).module == module


@pytest.mark.parametrize("module", ["", "CRM", "a-b", "a:b", "crm\n", None, 7])
def test_modules_that_it_refuses(module: object) -> None:
    with pytest.raises(InvalidArgument, match="MODULE_ID_ERROR"):
        check(module=module)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"a": [1, 2.5, None, True, "я"]},
        OrderedDict(a=1),
        MappingProxyType({"a": {"b": ()}}),
        {"n": 10**30},
    ],
)
def test_params_are_any_json_object(params: Mapping[str, Any]) -> None:
    content = json.loads(check(params=params).body)
    assert content["params"] == json.loads(json.dumps(dict(params)))


def test_no_params_are_an_empty_object() -> None:
    assert check().body == b'{"module_id":"application","command":"order_update","params":{}}'


def test_text_goes_as_it_is() -> None:
    assert check(params={"t": "✓ 😀"}).body.endswith('"params":{"t":"✓ 😀"}}'.encode())


@pytest.mark.parametrize("params", [[], [1], "{}", b"{}", 7, True])
def test_params_that_are_no_object_are_refused(params: object) -> None:
    with pytest.raises(InvalidArgument, match="PARAMS_ERROR"):
        check(params=params)


def cyclic() -> dict[str, object]:
    cycle: dict[str, object] = {}
    cycle["self"] = cycle
    return cycle


def deep() -> dict[str, object]:
    inner: dict[str, object] = {}
    for _ in range(100_000):
        inner = {"a": inner}
    return inner


@pytest.mark.parametrize(
    "params",
    [
        {"x": float("nan")},
        {"x": float("inf")},
        {"x": {1, 2}},
        {"x": b"bytes"},
        {"x": object()},
        {(1, 2): "x"},
        {"x": "half \ud83d"},
        {"half \udc00": 1},
        cyclic(),
    ],
    ids=["nan", "infinity", "set", "bytes", "object", "tuple key", "surrogate", "surrogate key", "cycle"],
)
def test_what_json_cannot_hold_is_refused(params: dict[Any, Any]) -> None:
    with pytest.raises(InvalidArgument):
        check(params=params)


def test_too_deep_params_are_refused() -> None:
    with pytest.raises(InvalidArgument):
        check(params=deep())


@pytest.mark.parametrize(
    ("users", "ids"),
    [
        (None, ()),
        (5, (5,)),
        ([5, 1, 5], (5, 1)),
        ((1,), (1,)),
        (range(1, 4), (1, 2, 3)),
        (iter([2, 1]), (2, 1)),
        ({7: "name"}, (7,)),
    ],
)
def test_users_are_one_id_or_several(users: object, ids: tuple[int, ...]) -> None:
    assert check(users=users).users == ids


@pytest.mark.parametrize(
    "users",
    [0, -1, True, 1.0, "1", b"1", "", [], [0], ["1"], [1, True], [1.0], [None], [[1]], object(), ["x" * 500]],
)
def test_what_is_no_user_id_is_refused(users: object) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check(users=users)
    assert len(str(caught.value)) < 150


def test_it_is_a_value_error_too() -> None:
    with pytest.raises(ValueError, match="command"):
        check("no spaces")


PUB, SIG = "0123456789abcdef" * 2, "ab" * 20


@pytest.mark.parametrize(
    ("channels", "read"),
    [
        (None, ()),
        (f"{PUB}.{SIG}", (PublicChannel.parse(f"{PUB}.{SIG}"),)),
        (PUB.upper(), (PublicChannel.parse(PUB),)),
        ([PUB, f"{PUB}.{SIG}", PUB], (PublicChannel.parse(PUB), PublicChannel.parse(f"{PUB}.{SIG}"))),
        (PublicChannel.parse(PUB), (PublicChannel.parse(PUB),)),
    ],
)
def test_channels_are_texts_or_values_and_one_or_several(
    channels: Any, read: tuple[PublicChannel, ...]
) -> None:
    message = Message("x", channels=channels)
    assert message.channels == read
    assert message.to_everybody == (not read)


@pytest.mark.parametrize(
    "channels", ["", [], "zz", b"ab", [b"ab"], 7, [7], f"{PUB}.", PUB[1:], {PUB: 1}.items()]
)
def test_what_is_no_channel_is_refused_and_not_repeated(channels: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Message("x", channels=channels)
    assert PUB[1:] not in str(caught.value)


def test_to_self_is_a_boolean() -> None:
    assert not Message("x", to_self=True).to_everybody
    with pytest.raises(InvalidArgument, match="to_self"):
        Message("x", to_self=1)  # type: ignore[arg-type]


def test_a_message_is_what_it_was_when_it_was_made() -> None:
    params: dict[str, Any] = {"list": [1]}
    message = Message("x", params)
    params["list"].append(2)
    params["more"] = True
    assert message.params == {"list": [1]}
    assert message == Message("x", {"list": [1]})
    assert hash(message) == hash(Message("x", {"list": [1]}))


def test_what_is_shown_of_it_holds_neither_payload_nor_channels() -> None:
    shown = repr(Message("x", {"secret": "payload"}, channels=f"{PUB}.{SIG}"))
    assert "payload" not in shown
    assert PUB not in shown
    assert SIG not in shown


# -- what becomes of Python's values --------------------------------------------------------


class Color(Enum):
    RED = "red"


class Line(BaseModel):
    sku: str
    price: Decimal
    at: datetime


@dataclasses.dataclass
class Order:
    id: int
    lines: list[Line]
    _note: str = "not for others"


@pydantic_dataclass
class Note:
    text: str


AT = datetime(2026, 3, 31, 17, 5, 18, 123, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (AT, "2026-03-31T17:05:18.000123+00:00"),
        (datetime(2026, 3, 31), "2026-03-31T00:00:00"),
        (date(2026, 3, 31), "2026-03-31"),
        (time(17, 5), "17:05:00"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (Color.RED, "red"),
        (Decimal("0.10000000000000000000000000001"), "0.10000000000000000000000000001"),
        (10**40 + 1, 10**40 + 1),
        (
            Line(sku="a", price=Decimal("1.50"), at=AT),
            {"sku": "a", "price": "1.50", "at": "2026-03-31T17:05:18.000123Z"},
        ),
        (Order(7, []), {"id": 7, "lines": []}),
        (Note("x"), {"text": "x"}),
        (MappingProxyType({"a": AT.date()}), {"a": "2026-03-31"}),
        ((1, [Color.RED]), [1, ["red"]]),
    ],
)
def test_pythons_values_have_a_form_in_json(value: Any, written: Any) -> None:
    assert Message("x", {"value": value}).params == {"value": written}
    if isinstance(written, dict):
        assert Message("x", value).params == written


def test_dataclasses_and_models_may_hold_each_other() -> None:
    order = Order(7, [Line(sku="a", price=Decimal(1), at=AT)])
    assert Message("x", order).params["lines"][0]["price"] == "1"


@pytest.mark.parametrize(
    "value", [b"x", {1}, object(), Decimal("NaN"), Decimal("Infinity"), float("nan"), Order, Line, 1j]
)
def test_what_has_no_form_in_json_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument):
        Message("x", {"value": value})


@pytest.mark.parametrize("params", [Order, Line, Color.RED, AT, RootModel[list[int]]([1]), [1], "x"])
def test_what_becomes_no_object_is_refused(params: Any) -> None:
    with pytest.raises(InvalidArgument, match="PARAMS_ERROR"):
        Message("x", params)
