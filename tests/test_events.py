"""What a client hands to its user."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from bitrix_pull.events import BACKEND_SENDER, UNKNOWN_SENDER, PullEvent, Sender, SenderType, State


class Order(BaseModel):
    id: int


def event(params: Any = None, **more: Any) -> PullEvent:
    return PullEvent("1", "application", "x", params or {}, {}, BACKEND_SENDER, "server", **more)


def test_params_can_be_read_as_a_model() -> None:
    assert event({"id": "7"}).parse(Order) == Order(id=7)


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
