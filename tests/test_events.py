"""What a client hands to its user."""

import pickle
import traceback
from copy import copy, deepcopy
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, cast

import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from bitrix_pull import AccessToken, PullClient
from bitrix_pull.events import (
    BACKEND_SENDER,
    UNKNOWN_SENDER,
    Event,
    Origin,
    PullEvent,
    Sender,
    SenderType,
    State,
    adapter_of,
)


class Order(BaseModel):
    id: int


def event(params: Any = None, **more: Any) -> PullEvent:
    return PullEvent("1", "application", "x", params or {}, {}, BACKEND_SENDER, "server", **more)


def test_params_can_be_read_as_a_model() -> None:
    assert event({"id": "7"}).parse(Order) == Order(id=7)


def test_they_can_be_read_as_whatever_pydantic_validates() -> None:
    assert event({"id": "7"}).parse(dict[str, int]) == {"id": 7}
    assert event({"id": "7"}).parse(TypeAdapter(dict[str, int])) == {"id": 7}
    assert event({"a": "7"}).parse(TypeAdapter(int | dict[str, str])) == {"a": "7"}


def test_a_model_leaves_what_came_to_be_seen() -> None:
    came = event({"id": "7", "more": []})
    typed = came.with_model(adapter_of(Order))
    assert (typed.params, typed.raw) == (Order(id=7), {"id": "7", "more": []})
    assert came.raw is came.params is typed.raw
    assert typed.parse(dict[str, Any]) == {"id": "7", "more": []}
    assert event({}).with_model(adapter_of(dict[str, int])).raw == {}


def test_who_asks_for_the_same_model_gets_the_same() -> None:
    came = event({"id": "7"})
    typed = came.with_model(adapter_of(Order))
    assert came.with_model(adapter_of(Order)) is typed
    assert came.with_model(adapter_of(dict[str, int])) is not typed


def test_unions_are_told_apart_by_the_order_of_their_parts() -> None:
    assert adapter_of(cast("type[Any]", int | str)) is not adapter_of(cast("type[Any]", str | int))


def test_an_event_made_by_hand_came_by_no_client() -> None:
    assert event().portal == ""
    with pytest.raises(RuntimeError, match="no client"):
        event().client  # noqa: B018


def test_copies_know_where_the_event_came_from_and_pickles_its_portal() -> None:
    pull = PullClient(AccessToken("acme.bitrix24.com", "token"))
    came: Event = event({"id": "7"})
    came.origin = Origin("acme", pull)
    typed = came.with_model(adapter_of(Order))
    for copied in (copy(typed), deepcopy(typed), typed.but(size=2), typed.for_attempt(2)):
        assert (copied.client, copied.portal, copied.raw) == (pull, "acme", {"id": "7"})
    pickled = pickle.loads(pickle.dumps(typed.for_attempt(2)))
    assert (pickled.portal, pickled.raw, pickled.attempts) == ("acme", {"id": "7"}, 2)
    with pytest.raises(RuntimeError, match="pickle"):
        pickled.client  # noqa: B018


def test_params_that_do_not_fit_say_so() -> None:
    with pytest.raises(ValidationError):
        event({"id": "seven"}).parse(Order)


@pytest.mark.parametrize(
    ("created_unix", "created"),
    [
        (None, None),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (1795313792, datetime(2026, 11, 22, 2, 16, 32, tzinfo=UTC)),
    ],
)
def test_creation_is_utc(created_unix: int | None, created: datetime | None) -> None:
    assert event(created_unix=created_unix).created == created


def test_an_event_equals_only_itself_and_can_be_a_key() -> None:
    first, second = event({"id": 7}), event({"id": 7})
    assert first != second
    assert len({first, second, first}) == 2


def test_defaults_are_those_of_a_live_message() -> None:
    live = event()
    assert (live.replayed, live.healed, live.expiry, live.created) == (False, False, None, None)


def test_senders() -> None:
    assert Sender(SenderType.CLIENT).id == ""
    assert Sender(SenderType.UNKNOWN) == UNKNOWN_SENDER
    assert Sender(SenderType.BACKEND) == BACKEND_SENDER != UNKNOWN_SENDER


@pytest.mark.parametrize("state", State)
def test_a_state_prints_as_its_name(state: State) -> None:
    assert str(state) == state.name.lower()


class Person(BaseModel):
    """A model with what pydantic reports in different ways: types, a validator, a kind of its own."""

    id: int
    name: Annotated[str, Field(max_length=3)]
    even: int
    odd: int
    kind: Literal["a", "b"]

    @field_validator("even")
    @classmethod
    def _is_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("it is odd")
        return value

    @field_validator("odd")
    @classmethod
    def _is_odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise PydanticCustomError("my_kind", "it is even, {{really}}")
        return value


def test_what_does_not_fit_a_model_is_not_shown() -> None:
    params = {"id": "Ann Smith", "name": "Bob Miller", "even": 7_007, "odd": 8_008, "kind": "Eve Jones"}
    came = event(params)
    with pytest.raises(ValidationError) as plain:
        Person.model_validate(params)
    for ask in (lambda: came.parse(Person), lambda: came.with_model(adapter_of(Person))):
        with pytest.raises(ValidationError) as caught:
            ask()
        told = "".join(traceback.format_exception(caught.value))
        for value in params.values():
            assert str(value) not in told
        assert "input_value" not in told
        # Programs get all that pydantic tells.
        assert caught.value.errors(include_url=False, include_context=False) == plain.value.errors(
            include_url=False, include_context=False
        )
        assert "it is odd" in told
        assert "at most 3 characters" in told
