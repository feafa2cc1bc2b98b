"""Events as an async iterator."""

import asyncio

import pytest
from pydantic import BaseModel, ValidationError

from bitrix_pull import AccessToken, PullClient
from bitrix_pull.dispatch.subscription import Subscription
from bitrix_pull.errors import NotRunning, Unreachable
from tests import virtual_time
from tests.dispatch.rig import Running, event, mids, run, running


class Order(BaseModel):
    id: int


def subscription(rig: Running) -> Subscription[dict[str, int]]:
    return rig.subscribe("x")


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
        async with rig.subscribe("x", model=Order) as events:
            wrong = event(1, params={"id": "seven"})
            rig.put(wrong, event(2, params={"id": "8"}))
            with pytest.raises(ValidationError):
                await anext(events)
            assert (await anext(events)).params == Order(id=8)
            assert len(rig.inbox) == 1
        assert wrong.params == {"id": "seven"}
        await rig.idle()


# -- what is settled, and what the next run gets again ---------------------------------


async def test_leaving_as_planned_settles_all() -> None:
    async with running() as rig:
        async with subscription(rig) as events:
            rig.put(event(1), event(2), event(3))
            async for _ in events:
                break
        assert rig.settled == mids(1, 2, 3)


async def lead_out(rig: Running, error: type[BaseException]) -> None:
    """Leave a subscription by an error, with one event handled and one in hand."""

    async def consume() -> None:
        async with subscription(rig) as events:
            rig.put(event(1), event(2), event(3))
            async for item in events:
                if item.params["n"] == 2:
                    raise error

    with pytest.raises(error):
        await consume()


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
async def test_what_an_error_leaves_behind_is_for_the_next_run(error: type[BaseException]) -> None:
    async with running(max_events=3) as rig:
        await lead_out(rig, error)
        assert not rig.inbox.full, "it must not take the place of others"
        await rig.idle()
    assert rig.settled == mids(1)
    assert rig.unsettled == mids(2, 3)


def test_unless_this_run_goes_on() -> None:
    async def main() -> Running:
        async with running() as rig:
            await lead_out(rig, ZeroDivisionError)
            await asyncio.sleep(29)
            assert rig.settled == mids(1)
            await asyncio.sleep(2)
        return rig

    rig = virtual_time.run(main)
    assert rig.settled == mids(1, 2, 3)
    assert rig.unsettled == []


def test_an_event_left_behind_waits_for_others_too() -> None:
    async def main() -> Running:
        async with running() as rig:
            async with subscription(rig) as other:
                await lead_out(rig, ZeroDivisionError)
                await asyncio.sleep(31)
                assert rig.settled == []
                for _ in range(3):
                    await anext(other)
                assert rig.settled == mids(1, 2)
            assert rig.settled == mids(1, 2, 3)
        return rig

    assert virtual_time.run(main).unsettled == []


async def test_what_was_not_asked_for_when_the_client_closes_stays_unsettled() -> None:
    async with running() as rig:
        async with subscription(rig) as events:
            rig.put(event(1), event(2), event(3))
            await anext(events)
            await anext(events)
            rig.dispatcher.finish(None)
            rig.put(event(4))
        assert rig.settled == mids(1, 4, 2), "it gets no more, and the one in hand is handled"
    assert rig.unsettled == mids(3)


async def test_a_new_run_begins_without_what_another_has_left() -> None:
    async with running() as rig:
        events = await subscription(rig).__aenter__()
        rig.put(event(1), event(2))
        await anext(events)
    again = asyncio.create_task(run(rig.dispatcher))
    await asyncio.sleep(0)
    rig.put(event(3))
    assert (await anext(events)).params == {"n": 3}
    await events.__aexit__(None, None, None)
    assert rig.settled == mids(3)
    assert rig.unsettled == []
    again.cancel()
    await asyncio.wait({again})


def test_who_waits_for_a_client_that_is_not_started_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """It may be started yet, so it is no error; but else nothing would ever say why nothing comes."""

    async def main() -> None:
        pull = PullClient(AccessToken("acme.bitrix24.com", "token"))
        async with pull.subscribe("order_update") as events, pull.portal_events("ONTASKADD") as tasks:
            for iterator in (events, tasks, events):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(60):
                        await anext(iterator)

    virtual_time.run(main)
    texts = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(texts) == 2
    assert all("is not running" in text and "pull.run()" in text for text in texts)
    assert "order_update" in texts[0]
    assert "ONTASKADD" in texts[1]


def test_nobody_is_told_who_waits_for_a_client_that_runs(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with running() as rig, subscription(rig) as events:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(60):
                    await anext(events)

    virtual_time.run(main)
    assert caplog.records == []
