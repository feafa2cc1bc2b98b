"""Events as an async iterator."""

import asyncio

import pytest
from pydantic import BaseModel, ValidationError

from bitrix_pull.dispatch.router import Pattern
from bitrix_pull.dispatch.subscription import Subscription
from bitrix_pull.errors import NotRunning, Unreachable
from tests.dispatch.rig import Running, event, running

X = Pattern("x", "application")


class Order(BaseModel):
    id: int


def subscription(rig: Running) -> Subscription[dict[str, int]]:
    return rig.dispatcher.subscribe(X, None)


async def test_it_yields_what_comes_while_it_is_entered() -> None:
    async with running() as rig:
        rig.put(event(1))
        async with subscription(rig) as events:
            rig.put(event(2), event(3, "y"), event(4))
            assert [(await anext(events)).params["n"], (await anext(events)).params["n"]] == [2, 4]
        rig.put(event(5))
        await rig.idle()


async def test_it_waits_for_the_next_event() -> None:
    async with running() as rig, subscription(rig) as events:
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        assert not waiting.done()
        rig.put(event(1))
        assert (await asyncio.wait_for(waiting, 5)).params == {"n": 1}


async def test_giving_up_the_wait_loses_nothing() -> None:
    async with running() as rig, subscription(rig) as events:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(events), 0.001)
        rig.put(event(1))
        assert (await anext(events)).params == {"n": 1}


async def test_an_event_is_settled_when_the_next_is_asked_for() -> None:
    async with running() as rig, subscription(rig) as events:
        rig.put(event(1), event(2))
        assert len(rig.inbox) == 2
        await anext(events)
        assert len(rig.inbox) == 2
        await anext(events)
        assert len(rig.inbox) == 1
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        assert len(rig.inbox) == 0
        waiting.cancel()


async def test_leaving_drops_what_was_not_asked_for() -> None:
    async with running(max_events=3) as rig:
        async with subscription(rig) as events:
            rig.put(event(1), event(2), event(3))
            await anext(events)
            assert rig.inbox.full
        assert (len(rig.inbox), rig.inbox.size) == (0, 0)


async def test_leaving_by_an_error_settles_too() -> None:
    async def consume(rig: Running) -> None:
        async with subscription(rig) as events:
            rig.put(event(1), event(2))
            async for _ in events:
                raise ZeroDivisionError

    async with running() as rig:
        with pytest.raises(ZeroDivisionError):
            await consume(rig)
        await rig.idle()


async def test_each_subscription_gets_every_event() -> None:
    async with running() as rig, subscription(rig) as first, subscription(rig) as second:
        sent = event(1)
        rig.put(sent)
        assert await anext(first) is sent
        assert await anext(second) is sent


async def test_finishing_ends_the_iteration_after_what_is_queued() -> None:
    async with running() as rig, subscription(rig) as events:
        rig.put(event(1), event(2))
        rig.dispatcher.finish(None)
        assert [item.params["n"] async for item in events] == [1, 2]
        assert [item async for item in events] == []
        assert len(rig.inbox) == 0


async def test_finishing_wakes_who_waits() -> None:
    async with running() as rig, subscription(rig) as events:
        waiting = asyncio.ensure_future(anext(events, None))
        await asyncio.sleep(0)
        rig.dispatcher.finish(None)
        assert await asyncio.wait_for(waiting, 5) is None


async def test_finishing_with_an_error_raises_it_after_what_is_queued() -> None:
    error = Unreachable("nothing answers")
    async with running() as rig, subscription(rig) as events:
        rig.put(event(1))
        rig.dispatcher.finish(error)
        assert (await anext(events)).params == {"n": 1}
        for _ in range(2):
            with pytest.raises(Unreachable) as caught:
                await anext(events)
            assert caught.value is error


async def test_it_can_be_entered_again_and_starts_afresh() -> None:
    async with running() as rig:
        events = subscription(rig)
        async with events:
            rig.put(event(1))
            rig.dispatcher.finish(Unreachable("nothing answers"))
        async with events:
            rig.put(event(2))
            assert (await anext(events)).params == {"n": 2}
        await rig.idle()


async def test_it_cannot_be_entered_twice_at_once() -> None:
    async with running() as rig:
        async with subscription(rig) as events:
            with pytest.raises(RuntimeError, match="entered already"):
                await events.__aenter__()
            rig.put(event(1))
            assert (await anext(events)).params == {"n": 1}
        await rig.idle()


async def test_iterating_outside_the_context_is_refused() -> None:
    async with running() as rig:
        events = subscription(rig)
        with pytest.raises(NotRunning, match="async with"):
            await anext(events)
        async with events:
            pass
        with pytest.raises(NotRunning):
            await anext(events)


async def test_a_model_types_the_params_and_a_misfit_is_skipped_by_asking_again() -> None:
    async with running() as rig:
        async with rig.dispatcher.subscribe(X, Order) as events:
            wrong = event(1, params={"id": "seven"})
            rig.put(wrong, event(2, params={"id": "8"}))
            with pytest.raises(ValidationError):
                await anext(events)
            assert (await anext(events)).params == Order(id=8)
            assert len(rig.inbox) == 1
        assert wrong.params == {"id": "seven"}
        await rig.idle()
