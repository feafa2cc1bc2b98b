"""Functions around handlers: what they see, what they may change, and what is refused."""

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel

from bitrix_pull.dispatch.dependencies import Supply
from bitrix_pull.dispatch.registry import CallNext, Context
from bitrix_pull.dispatch.router import Router
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import Event, PullEvent
from tests import virtual_time
from tests.dispatch.rig import event, mids, running


class Order(BaseModel):
    n: int


def around(name: str, said: list[str]) -> Any:
    async def middleware(event: Event, call_next: CallNext, context: Context) -> object:
        said.append(f"{name} before")
        try:
            return await call_next(event)
        finally:
            said.append(f"{name} after")

    return middleware


async def test_they_go_from_the_outside_to_the_inside_and_see_the_outcome() -> None:
    top, inner, said = Router(), Router(), list[str]()
    outcomes: list[object] = []
    top.include(inner)
    inner.middleware(around("inner", said))

    @top.middleware
    async def outcome(event: Event, call_next: CallNext, context: Context) -> object:
        outcomes.append(await call_next(event))
        return outcomes[-1]

    top.middleware(around("top", said))

    @inner.on("x")
    async def handle(event: PullEvent) -> str:
        said.append("handler")
        return "done"

    @inner.on("y")
    def plain(event: PullEvent) -> str:
        said.append("plain")
        return "done too"

    @top.on("z")
    def outside(event: PullEvent) -> None:
        said.append("outside")

    async with running(top) as rig:
        for command, name in (("x", "handler"), ("y", "plain")):
            rig.put(event(1, command))
            await rig.idle()
            assert said == ["top before", "inner before", name, "inner after", "top after"]
            said.clear()
        rig.put(event(2, "z"))
        await rig.idle()
        assert said == ["top before", "outside", "top after"]
    assert outcomes == ["done", "done too", None]


async def test_one_registered_while_it_runs_counts_from_the_next_event_on() -> None:
    router, said = Router(), list[str]()
    router.on("x")(lambda event: said.append("handler"))
    async with running(router) as rig:
        rig.put(event(1))
        await rig.idle()
        router.middleware(around("late", said))
        rig.put(event(2))
        await rig.idle()
    assert said == ["handler", "late before", "handler", "late after"]


async def test_it_may_put_another_event_in_the_place_of_the_first() -> None:
    router, seen = Router(), list[tuple[Any, Any, bool]]()

    @router.middleware
    async def doubled(event: Any, call_next: CallNext, context: Context) -> object:
        return await call_next(replace(event, params=Order(n=event.params.n * 2)))

    @router.on("x", model=Order, ack="manual")
    async def handle(event: PullEvent[Order]) -> None:
        seen.append((event.params.n, event.raw, event.attempts == 1))
        event.ack()

    async with running(router) as rig:
        rig.put(event(4))
        await rig.idle()
        assert rig.settled == mids(4)
    assert seen == [(8, {"n": 4}, True)]


async def test_it_may_stop_an_event_which_is_settled_then_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    router, seen = Router(), list[str]()

    @router.middleware
    async def evens(event: Any, call_next: CallNext, context: Context) -> None:
        if event.params["n"] % 2 == 0:
            await call_next(event)

    router.on("x")(lambda event: seen.append(event.mid))
    caplog.set_level(logging.INFO, "bitrix_pull")
    async with running(router) as rig:
        rig.put(*(event(number) for number in range(6)))
        await rig.idle()
        assert rig.settled == mids(*range(6))
    assert seen == mids(0, 2, 4)
    (record,) = caplog.records
    assert "evens has stopped application.x" in record.getMessage()


def test_what_it_raises_passes_through_retries_as_the_handlers_own() -> None:
    async def main() -> None:
        router, calls = Router(), list[int]()

        @router.middleware
        async def failing_twice(event: Event, call_next: CallNext, context: Context) -> object:
            if event.attempts < 3:
                raise ConnectionError("no database")
            return await call_next(event)

        @router.on("x", retries=2, retry_delay=1)
        async def handle(event: PullEvent) -> None:
            calls.append(event.attempts)

        async with running(router) as rig:
            rig.put(event(1))
            await rig.idle(10)
            assert (calls, rig.failures) == ([3], [])

    virtual_time.run(main)


def test_the_handlers_timeout_is_around_it() -> None:
    async def main() -> None:
        router = Router()

        @router.middleware
        async def slow(event: Event, call_next: CallNext, context: Context) -> object:
            await asyncio.sleep(60)
            return await call_next(event)

        router.on("x", timeout=1)(lambda event: None)
        async with running(router) as rig:
            rig.put(event(1))
            await rig.idle(10)
            assert isinstance(rig.failures[0].error, TimeoutError)

    virtual_time.run(main)


# -- what it provides ---------------------------------------------------------------


async def test_handlers_may_ask_for_what_it_provides() -> None:
    router, seen = Router(), list[tuple[str, ...]]()

    @router.middleware(provides=["session", "db"])
    async def with_session(event: Any, call_next: CallNext, context: Context) -> object:
        context["session"] = f"{context['db']}-{event.params['n']}"
        context["db"] = "mine"
        context["undeclared"] = "more"
        return await call_next(event)

    @router.on("x")
    async def handle(event: PullEvent, session: str, db: str, undeclared: str = "", *, table: str) -> None:
        seen.append((session, db, undeclared, table))

    async with running(router, supply=Supply({"db": "pool", "table": "orders"})) as rig:
        rig.put(event(1), event(2))
        await rig.idle()
    assert seen == [("pool-1", "mine", "", "orders"), ("pool-2", "mine", "", "orders")]


async def test_each_event_of_each_handler_has_a_context_of_its_own() -> None:
    router, contexts = Router(), list[Context]()

    @router.middleware
    async def noting(event: Event, call_next: CallNext, context: Context) -> object:
        assert context == {"db": 1}
        context["seen"] = True
        contexts.append(context)
        return await call_next(event)

    router.on("x")(lambda event: None)
    router.on("x")(lambda event: None)
    async with running(router, supply=Supply({"db": 1})) as rig:
        rig.put(event(1), event(2))
        await rig.idle()
    assert len({id(context) for context in contexts}) == len(contexts) == 4


async def test_what_it_says_to_provide_and_does_not_fails_the_event_by_name() -> None:
    router = Router()

    @router.middleware(provides=["session"])
    async def forgetful(event: Event, call_next: CallNext, context: Context) -> object:
        return await call_next(event)

    @router.on("x")
    async def handle(event: PullEvent, session: object) -> None:
        raise AssertionError("it is called without it")

    async with running(router) as rig:
        rig.put(event(1))
        await rig.idle()
        assert "session is not in the context" in str(rig.failures[0].error)


async def test_that_of_another_router_provides_nothing_here() -> None:
    top, one, other = Router(), Router(), Router()
    top.include(one)
    top.include(other)

    @one.middleware(provides=["session"])
    async def with_session(event: Event, call_next: CallNext, context: Context) -> object:
        return await call_next(event)

    @other.on("x")
    async def handle(event: PullEvent, session: object) -> None: ...

    with pytest.raises(InvalidArgument, match="asks for session"):
        async with running(top):
            pass


# -- what is refused ----------------------------------------------------------------


async def twice(event: Event, call_next: CallNext, context: Context) -> object:
    await call_next(event)
    return await call_next(event)


async def not_awaited(event: Event, call_next: CallNext, context: Context) -> object:
    call_next(event)
    return None


async def left_behind(event: Event, call_next: CallNext, context: Context) -> object:
    context["task"] = asyncio.ensure_future(call_next(event))
    await asyncio.sleep(0)
    return None


async def no_event(event: Event, call_next: CallNext, context: Context) -> object:
    return await call_next(None)


@pytest.mark.parametrize(
    ("middleware", "calls", "complaint"),
    [
        (twice, 1, "call_next a second time"),
        (not_awaited, 0, "not_awaited did not wait for call_next"),
        (left_behind, 1, "left_behind did not wait for call_next"),
        (no_event, 0, "takes the event, not NoneType"),
    ],
)
async def test_a_wrong_use_of_call_next_fails_the_event(middleware: Any, calls: int, complaint: str) -> None:
    router, called = Router(), list[Event]()
    router.middleware(middleware)

    @router.on("x")
    async def handle(event: PullEvent) -> None:
        called.append(event)
        await asyncio.sleep(0.01)

    async with running(router) as rig:
        rig.put(event(1))
        await rig.idle()
        assert complaint in str(rig.failures[0].error)
        await asyncio.sleep(0.02)
    assert len(called) == calls


def plain(event: Event, call_next: CallNext, context: Context) -> object: ...


async def of_two(event: Event, call_next: CallNext) -> object: ...


async def of_four(event: Event, call_next: CallNext, context: Context, db: object) -> object: ...


@pytest.mark.parametrize(
    ("middleware", "complaint"),
    [
        (plain, "middleware plain must be async"),
        (of_two, "middleware of_two.* must take three positional arguments"),
        (of_four, "middleware of_four.* must take three positional arguments"),
        (7, "middleware must be callable"),
    ],
)
def test_what_cannot_be_one_is_refused(middleware: Any, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        Router().middleware(middleware)


@pytest.mark.parametrize("provides", ["session", ["no name"], [7], 7])
def test_what_it_provides_are_names(provides: Any) -> None:
    with pytest.raises(InvalidArgument, match="provides"):
        Router().middleware(provides=provides)


async def test_it_cannot_provide_what_a_handler_calls_its_event() -> None:
    router = Router()

    @router.middleware(provides=["event"])
    async def middleware(event: Event, call_next: CallNext, context: Context) -> object:
        return await call_next(event)

    @router.on("x")
    async def handle(event: PullEvent) -> None: ...

    with pytest.raises(InvalidArgument, match="calls one of its own arguments event"):
        async with running(router):
            pass
