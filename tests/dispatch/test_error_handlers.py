"""Functions for what handlers have failed with."""

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from bitrix_pull.dispatch.dependencies import Supply
from bitrix_pull.dispatch.router import Router
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import Event, PullEvent
from tests import virtual_time
from tests.dispatch.rig import Running, event, mids, running

POLICIES: list[dict[str, Any]] = [{}, {"retries": 1, "retry_delay": 0.01}, {"concurrency": 2}]


class Order(BaseModel):
    n: str


def failing(router: Router, error: Exception, **policy: Any) -> None:
    async def handle(event: PullEvent) -> None:
        raise error

    router.on("x", **policy)(handle)


async def outcome(router: Router, supply: Supply | None = None) -> Running:
    """Let the handlers handle one event."""
    async with running(router, supply=supply) as rig:
        rig.put(event(1))
        await rig.idle()
        assert rig.settled == mids(1)
    return rig


@pytest.mark.parametrize("policy", POLICIES)
async def test_what_they_return_from_is_dealt_with(policy: dict[str, Any]) -> None:
    router, heard, buried = Router(), list[object](), list[object]()

    @router.on_error(ValueError)
    async def oops(event: PullEvent, error: ValueError) -> None:
        heard.append((event.mid, str(error)))

    failing(router, ValueError("no"), on_dead_letter=lambda event, error: buried.append(error), **policy)
    rig = await outcome(router)
    assert heard == [(mids(1)[0], "no")]
    assert (rig.failures, buried) == ([], [])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("again", [True, False])
async def test_what_they_raise_goes_on_to_the_dead_letter(policy: dict[str, Any], again: bool) -> None:
    router, buried = Router(), list[Exception]()
    first, other = ValueError("first"), OSError("other")

    @router.on_error(ValueError)
    def oops(event: PullEvent, error: ValueError) -> None:
        raise error if again else other

    failing(router, first, on_dead_letter=lambda event, error: buried.append(error), **policy)
    failing(router, KeyError("not its class"), **policy)
    rig = await outcome(router)
    left = first if again else other
    assert buried == [left]
    assert {type(failure.error) for failure in rig.failures} == {type(left), KeyError}
    assert again or other.__context__ is first


async def test_the_nearest_router_comes_first_and_there_the_nearest_class() -> None:
    top, middle, bottom, said = Router(), Router(), Router(), list[str]()
    top.include(middle)
    middle.include(bottom)

    def answering(name: str, error: Exception | None) -> Any:
        async def handler(event: Event, caught: Exception) -> None:
            said.append(f"{name} {type(caught).__name__}")
            if error is not None:
                raise error

        return handler

    top.on_error(Exception)(answering("top", None))
    middle.on_error(OSError)(answering("middle", LookupError()))
    bottom.on_error(Exception)(answering("bottom", None))
    bottom.on_error(ConnectionError)(answering("bottom's nearest", TimeoutError()))
    failing(bottom, ConnectionResetError())
    rig = await outcome(top)
    assert said == ["bottom's nearest ConnectionResetError", "middle TimeoutError", "top LookupError"]
    said.clear()
    failing(middle, ValueError())
    other = await outcome(middle)
    assert "bottom's nearest ValueError" not in said, "it is for what is below its own router alone"
    assert {type(failure.error) for failure in other.failures} == {ValueError, LookupError}
    assert rig.failures == []


async def test_they_hear_of_params_that_do_not_fit_too() -> None:
    router, heard = Router(), list[object]()

    @router.on_error(ValidationError)
    async def oops(event: PullEvent, error: ValidationError) -> None:
        heard.append(event.params)

    router.on("x", model=Order)(lambda event: None)
    router.on("x", model=Order, retries=2)(lambda event: None)
    rig = await outcome(router)
    assert (heard, rig.failures) == ([{"n": 1}, {"n": 1}], [])


async def test_they_may_ask_for_what_the_client_has() -> None:
    router, heard = Router(), list[object]()

    @router.on_error(ValueError)
    async def oops(event: PullEvent, error: ValueError, db: str) -> None:
        heard.append(db)

    failing(router, ValueError())
    await outcome(router, Supply({"db": "db"}))
    assert heard == ["db"]
    with pytest.raises(InvalidArgument, match=r"error handler .*oops asks for db"):
        await outcome(router)


@pytest.mark.parametrize("policy", POLICIES)
async def test_one_that_cancels_its_own_task_leaves_no_event_behind(policy: dict[str, Any]) -> None:
    router = Router()

    @router.on_error(ValueError)
    async def oops(event: PullEvent, error: ValueError) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    failing(router, ValueError("no"), **policy)
    rig = await outcome(router)
    assert [str(failure.error) for failure in rig.failures] == ["no"]


@pytest.mark.parametrize("policy", POLICIES)
def test_an_event_whose_error_handler_has_not_finished_at_the_end_is_not_settled(
    policy: dict[str, Any],
) -> None:
    async def main() -> None:
        router = Router()

        @router.on_error(ValueError)
        async def oops(event: PullEvent, error: ValueError) -> None:
            await asyncio.sleep(60)

        failing(router, ValueError(), **policy)
        async with running(router) as rig:
            rig.put(event(1))
            await asyncio.sleep(1)
        assert (rig.unsettled, rig.settled, rig.failures) == (mids(1), [], [])

    virtual_time.run(main)


def one(event: Event) -> None: ...


@pytest.mark.parametrize("kind", [BaseException, KeyboardInterrupt, "ValueError", ValueError(), one])
def test_a_class_of_exceptions_is_asked_for(kind: Any) -> None:
    with pytest.raises(InvalidArgument, match="on_error is for a class of exceptions"):
        Router().on_error(kind)


def test_what_cannot_be_one_is_refused() -> None:
    router = Router()
    with pytest.raises(InvalidArgument, match=r"error handler one.* must take the event and the error"):
        router.on_error(ValueError)(one)  # type: ignore[arg-type]
    router.on_error(ValueError)(lambda event, error: None)
    with pytest.raises(InvalidArgument, match="for ValueError already"):
        router.on_error(ValueError)(lambda event, error: None)
