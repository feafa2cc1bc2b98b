"""``where=``: which events of a kind a handler wants."""

from typing import Any

import pytest
from pydantic import BaseModel

from bitrix_pull.dispatch.router import Router
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import PullEvent
from tests.dispatch.rig import event, mids, running

POLICIES: list[dict[str, Any]] = [{}, {"retries": 3}, {"key": lambda event: 1, "concurrency": 2}]


class Order(BaseModel):
    n: int


def is_even(event: PullEvent[Order]) -> bool:
    return event.params.n % 2 == 0


@pytest.mark.parametrize("policy", POLICIES)
async def test_what_is_not_wanted_is_settled(policy: dict[str, Any]) -> None:
    router, seen = Router(), list[str]()
    router.on("x", model=Order, where=is_even, **policy)(lambda event: seen.append(event.mid))
    async with running(router) as rig:
        rig.put(*(event(number) for number in range(6)))
        await rig.idle()
        assert sorted(rig.settled) == mids(*range(6))
        assert rig.failures == []
    assert seen == mids(0, 2, 4)


async def test_whatever_is_true_is_wanted() -> None:
    router, seen = Router(), list[str]()
    router.on("x", where=lambda event: event.params["n"])(lambda event: seen.append(event.mid))
    async with running(router) as rig:
        rig.put(event(0), event(1), event(2))
        await rig.idle()
    assert seen == mids(1, 2)


async def test_others_want_it_all_the_same() -> None:
    router, seen = Router(), list[str]()
    router.on("x", where=lambda event: False)(lambda event: seen.append("never"))
    router.on("x")(lambda event: seen.append(event.mid))
    async with running(router) as rig:
        rig.put(event(1))
        await rig.idle()
        assert rig.settled == mids(1)
    assert seen == mids(1)


@pytest.mark.parametrize("policy", POLICIES)
async def test_one_that_raises_fails_the_event_for_good_and_is_named(policy: dict[str, Any]) -> None:
    router = Router()

    def handle(event: PullEvent) -> None:
        raise AssertionError("it is called")

    router.on("x", where=lambda event: event.params["missing"], **policy)(handle)
    async with running(router) as rig:
        rig.put(event(1))
        await rig.idle()
        (failure,) = rig.failures
        assert isinstance(failure.error, KeyError)
        assert any("where= of handler" in note and "handle" in note for note in failure.error.__notes__)


async def coroutine(event: PullEvent) -> bool:
    return True


async def test_one_that_turns_out_to_be_async_fails_the_event() -> None:
    router = Router()
    router.on("x", where=lambda event: coroutine(event))(lambda event: None)
    async with running(router) as rig:
        rig.put(event(1))
        await rig.idle()
        assert "plain function" in str(rig.failures[0].error)


class Async:
    async def __call__(self, event: PullEvent) -> bool:
        return True


@pytest.mark.parametrize(
    ("where", "complaint"),
    [
        (coroutine, "where must be a plain function"),
        (Async(), "where must be a plain function"),
        (lambda: True, "where .* must take exactly one positional argument"),
        (True, "where must be callable"),
    ],
)
def test_what_cannot_be_one_is_refused(where: Any, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        Router().on("x", where=where)(lambda event: None)
