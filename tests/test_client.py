"""A client's life: started, live, closed, started again; and what it must never leave behind."""

import asyncio
import contextlib
import gc
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import BaseModel

from bitrix_pull import (
    AccessToken,
    HandlerFailed,
    Notice,
    PullClient,
    PullEvent,
    PullOptions,
    State,
    StateChanged,
    Webhook,
)
from bitrix_pull.emulator import Emulator, Owner
from bitrix_pull.errors import (
    InsufficientScope,
    InvalidArgument,
    NotRunning,
    PullError,
    StartTimeout,
    TokenExpired,
    Unreachable,
    WrongAuthType,
)
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running
from tests.connection.stand_ins import StandInPortal, listener_of, stay_silent, tcp_server


def now() -> float:
    return asyncio.get_running_loop().time()


def state_of(pull: PullClient) -> State:
    """Return the state; a type checker would believe that it cannot change between two asserts."""
    return pull.state


async def others() -> set[asyncio.Task[Any]]:
    """Return the tasks that run beside this one, once those that are done have gone."""
    for _ in range(3):
        await asyncio.sleep(0)
    current = asyncio.current_task()
    return {task for task in asyncio.all_tasks() if task is not current}


async def start(pull: PullClient) -> "asyncio.Task[None]":
    """Run a client in the background; return when it is live."""
    task = asyncio.create_task(pull.run())
    await asyncio.sleep(0)
    await pull.wait_live()
    return task


async def nobody_connected(emu: Emulator) -> None:
    """Wait until the push server has noticed that everybody has gone."""
    async with asyncio.timeout(5):
        while emu.push.connections:
            await asyncio.sleep(0.01)


# -- starting and closing -----------------------------------------------------------


def test_it_can_be_built_outside_a_loop_and_used_in_several_one_after_the_other() -> None:
    emu = Emulator(security_key="key", port=0)
    portal = StandInPortal()
    pull = listener_of(portal)
    assert state_of(pull) is State.IDLE

    async def main() -> None:
        async with emu:
            portal.config = emu.portal.config("application", 1)
            async with pull:
                emu.portal.send("x", {"n": len(pull.events)})
                count = len(pull.events) + 1
                async with asyncio.timeout(5):
                    while len(pull.events) < count:
                        await asyncio.sleep(0.01)
                assert state_of(pull) is State.LIVE
            assert state_of(pull) is State.CLOSED

    for _ in range(3):
        asyncio.run(main())
    assert pull.numbers == [0, 1, 2]


async def test_async_with_is_live_and_leaves_nothing_behind() -> None:
    async with Emulator() as emu:
        before = await others()
        pull = PullClient(AccessToken(emu.portal_url, emu.token))
        async with pull as entered:
            assert entered is pull
            assert state_of(pull) is State.LIVE
            assert len(emu.push.connections) == 1
        assert state_of(pull) is State.CLOSED
        await nobody_connected(emu)
        gc.collect()  # A socket or session that was left open would warn here.
        assert await others() <= before


def test_run_serves_until_it_is_cancelled() -> None:
    async def main() -> None:
        async with emulator() as emu:
            before = await others()
            pull = Listener(emu)
            task = await start(pull)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert state_of(pull) is State.CLOSED
            await nobody_connected(emu)
            assert await others() <= before

    virtual_time.run(main)


def test_one_can_wait_for_a_run_that_was_just_started() -> None:
    async def main() -> None:
        async with emulator() as emu:
            pull = Listener(emu)
            task = asyncio.create_task(pull.run())
            await pull.wait_live(timeout=10)
            assert state_of(pull) is State.LIVE
            await pull.close()
            await task

    virtual_time.run(main)


def test_run_returns_when_the_client_is_closed() -> None:
    async def main() -> None:
        async with emulator() as emu:
            pull = Listener(emu)
            task = await start(pull)
            await pull.close()
            await asyncio.wait_for(task, 1)
            assert state_of(pull) is State.CLOSED

    virtual_time.run(main)


def test_close_may_be_called_before_twice_and_by_several_at_once() -> None:
    async def main() -> None:
        async with emulator() as emu:
            pull = Listener(emu)
            await pull.close()
            assert state_of(pull) is State.IDLE
            async with pull:
                await asyncio.gather(*(pull.close() for _ in range(5)))
                assert state_of(pull) is State.CLOSED
                await pull.close()
            assert state_of(pull) is State.CLOSED
            await nobody_connected(emu)

    virtual_time.run(main)


STATES = [State.CONFIGURING, State.CONNECTING, State.CATCHING_UP, State.LIVE, State.RENEWING, State.BACKOFF]


@pytest.mark.parametrize("state", STATES)
def test_close_in_every_state_ends_at_once_with_nothing_left_running(state: State) -> None:
    async def main() -> None:
        async with emulator() as emu, tcp_server(stay_silent) as silent:
            portal: Any = StandInPortal(websocket=f"ws://{silent}/")
            match state:
                case State.CONFIGURING:
                    pull = PullClient(AccessToken(f"http://{silent}", "token-of-nobody"))
                case State.CONNECTING:
                    pull = listener_of(portal)
                case State.BACKOFF:
                    pull = PullClient(AccessToken("http://127.0.0.1:1", "token-of-nobody"))
                case _:
                    pull = Listener(emu)
            task = asyncio.create_task(pull.run())
            await asyncio.sleep(0)
            if state in (State.CATCHING_UP, State.RENEWING):
                await pull.wait_live()
                await asyncio.sleep(1)
            if state is State.CATCHING_UP:
                await emu.push.disconnect_all()
            elif state is State.RENEWING:
                emu.portal.channels.expire(Owner("application", 1))
            async with asyncio.timeout(20):
                while pull.state is not state:
                    await asyncio.sleep(0.01)
            # Well into it: something is under way that has to be stopped.
            await asyncio.sleep(0.05)
            assert state_of(pull) is state
            since = now()
            await pull.close(drain=0)
            assert now() - since <= 2.5
            assert state_of(pull) is State.CLOSED
            await asyncio.wait_for(task, 1)
            await nobody_connected(emu)
            assert not [task for task in await others() if task.get_name().startswith("bitrix_pull")]

    virtual_time.run(main)


def test_closing_while_channels_are_renewed_closes_the_new_connection_too() -> None:
    """During the overlap there are two connections, and neither may outlive the client."""

    async def main() -> None:
        async with emulator() as emu:
            pull = Listener(emu)
            task = await start(pull)
            emu.portal.channels.expire(Owner("application", 1))
            async with asyncio.timeout(5):
                while len(emu.push.connections) < 2:
                    await asyncio.sleep(0.01)
            await pull.close(drain=0)
            await asyncio.wait_for(task, 1)
            await asyncio.sleep(1)
            assert list(emu.push.connections) == []
            readers = [task for task in await others() if task.get_name().startswith("bitrix_pull")]
            assert readers == []

    virtual_time.run(main)


def test_close_gives_handlers_time_for_what_was_received() -> None:
    async def main() -> None:
        async with emulator() as emu:
            for drain, expected in ((5.0, [0, 1, 2]), (0.0, [])):
                pull = Listener(emu, start="latest")
                done: list[int] = []

                @pull.on("x")
                async def slow(event: PullEvent[Any], done: list[int] = done) -> None:
                    await asyncio.sleep(1)
                    done.append(event.params["n"])

                async with pull:
                    for n in range(3):
                        emu.portal.send("x", {"n": n})
                    await pull.received(3)
                    since = now()
                    await pull.close(drain=drain)
                    assert now() - since <= 4
                assert done == expected

    virtual_time.run(main)


def test_a_handler_can_close_the_client() -> None:
    async def main() -> None:
        async with emulator() as emu:
            before = await others()
            pull = Listener(emu)

            @pull.on("stop")
            async def stop(event: PullEvent[Any]) -> None:
                await pull.close(drain=1)

            task = await start(pull)
            emu.portal.send("stop")
            await asyncio.wait_for(task, 5)
            assert state_of(pull) is State.CLOSED
            await nobody_connected(emu)
            assert await others() <= before

    virtual_time.run(main)


def test_a_handler_that_closes_the_client_does_not_wait_for_itself() -> None:
    async def main() -> None:
        async with emulator() as emu:
            pull = Listener(emu)

            @pull.on("stop")
            async def stop(event: PullEvent[Any]) -> None:
                await pull.close()

            task = await start(pull)
            emu.portal.send("stop")
            since = now()
            await asyncio.wait_for(task, 30)
            assert now() - since <= 3

    virtual_time.run(main)


def test_a_handler_that_ignores_its_cancellation_does_not_keep_close_from_ending() -> None:
    async def main() -> None:
        async with emulator() as emu:
            pull = Listener(emu)
            release = asyncio.Event()

            @pull.on("x")
            async def stubborn(event: PullEvent[Any]) -> None:
                while not release.is_set():
                    try:
                        await release.wait()
                    except asyncio.CancelledError:
                        continue

            task = await start(pull)
            emu.portal.send("x")
            await pull.received(1)
            closing = asyncio.create_task(pull.close(drain=1))
            done, _ = await asyncio.wait({closing}, timeout=60)
            release.set()
            assert done
            await asyncio.wait_for(task, 1)

    virtual_time.run(main)


def test_it_can_be_started_again_and_goes_on_where_it_was() -> None:
    async def main() -> None:
        async with emulator() as emu:
            pull = Listener(emu)
            for n in range(0, 6, 2):
                async with pull:
                    emu.portal.send("x", {"n": n})
                    await pull.received(n + 1)
                    await asyncio.sleep(10)
                emu.portal.send("x", {"n": n + 1})
                await asyncio.sleep(60)
            async with pull:
                await pull.received(6)
            assert pull.numbers == list(range(6))

    virtual_time.run(main)


def test_two_runs_at_once_are_refused_and_the_first_goes_on() -> None:
    async def main() -> None:
        async with emulator() as emu, Listener(emu) as pull:
            with pytest.raises(RuntimeError, match="running already"):
                await pull.run()
            with pytest.raises(RuntimeError, match="running already"):
                await pull.__aenter__()
            emu.portal.send("x", {"n": 1})
            await pull.received(1)
            assert state_of(pull) is State.LIVE

    virtual_time.run(main)


def test_two_clients_on_one_portal_do_not_disturb_each_other() -> None:
    async def main() -> None:
        async with emulator() as emu, Listener(emu) as one, Listener(emu) as two:
            emu.portal.send("x", {"n": 1})
            await one.received(1)
            await two.received(1)
            await one.close()
            emu.portal.send("x", {"n": 2})
            await two.received(2)
            assert (one.numbers, two.numbers) == ([1], [1, 2])

    virtual_time.run(main)


# -- failing to start ---------------------------------------------------------------


def test_a_portal_that_is_not_there_is_a_start_timeout_with_its_cause() -> None:
    async def main() -> None:
        pull = PullClient(AccessToken("http://127.0.0.1:1", "token-of-nobody"))
        since = now()
        with pytest.raises(StartTimeout) as raised:
            await pull.__aenter__()
        assert isinstance(raised.value.__cause__, Unreachable)
        assert "127.0.0.1:1" in str(raised.value)
        assert now() - since <= 10
        assert state_of(pull) is State.CLOSED

    virtual_time.run(main)


@pytest.mark.parametrize("silent_part", ["portal", "push server"])
def test_a_silent_server_is_a_start_timeout_that_names_it(silent_part: str) -> None:
    async def main() -> None:
        async with tcp_server(stay_silent) as silent:
            if silent_part == "portal":
                pull = PullClient(AccessToken(f"http://{silent}", "token-of-nobody"))
            else:
                pull = listener_of(StandInPortal(websocket=f"ws://{silent}/"))
            with pytest.raises(StartTimeout, match=silent_part):
                await pull.__aenter__()
            assert state_of(pull) is State.CLOSED

    virtual_time.run(main)


def test_it_waits_for_a_server_that_comes_back_in_time() -> None:
    async def main() -> None:
        emu = emulator()
        await emu.start()
        emu.portal.faults.fail_rest(1)
        async with Listener(emu) as pull:
            assert state_of(pull) is State.LIVE
            assert emu.portal.calls["pull.application.config.get"] == 2
        await emu.close()

    virtual_time.run(main)


async def test_what_only_a_person_can_change_is_raised_everywhere_and_asked_for_once() -> None:
    async with Emulator() as emu:
        emu.portal.application_scope.clear()
        pull = Listener(emu)

        with pytest.raises(InsufficientScope, match="scope"):
            await pull.__aenter__()
        assert state_of(pull) is State.CLOSED

        async with pull.subscribe("x") as events:
            with pytest.raises(InsufficientScope):
                await pull.run()
            with pytest.raises(InsufficientScope):
                await anext(events)
        with pytest.raises(PullError):
            await pull.wait_live(timeout=1)
        assert emu.portal.calls.total() == 2
        assert emu.push.counters.websockets == emu.push.counters.pollings == 0


def test_failed_is_final_says_why_and_asks_no_more() -> None:
    async def main() -> None:
        async with emulator() as emu:
            pull = Listener(emu)
            notices = pull.notices()
            first = asyncio.ensure_future(anext(notices))
            await asyncio.sleep(0)
            task = await start(pull)
            emu.portal.expire_token(emu.token)
            emu.portal.rotate()
            with pytest.raises(PullError, match="expired"):
                await task
            calls = emu.portal.calls.copy()
            requests = emu.push.counters.websockets, emu.push.counters.pollings
            await asyncio.sleep(86_400)
            assert emu.portal.calls == calls
            assert (emu.push.counters.websockets, emu.push.counters.pollings) == requests
            heard = [await first]
            while not (isinstance(heard[-1], StateChanged) and heard[-1].state is State.FAILED):
                heard.append(await anext(notices))
            assert heard[-1].error is not None
            assert state_of(pull) is State.FAILED
            with pytest.raises(StopAsyncIteration):
                await anext(notices)
            await pull.close()
            assert state_of(pull) is State.CLOSED

    virtual_time.run(main)


def test_what_fails_for_good_ends_the_block_in_the_place_of_whatever_it_waits_for() -> None:
    async def wait(emu: Emulator) -> None:
        async with Listener(emu):
            emu.portal.expire_token(emu.token)
            emu.portal.rotate()
            await asyncio.sleep(86_400)

    async def main() -> None:
        async with emulator() as emu:
            with pytest.raises(PullError, match="expired") as caught:
                await wait(emu)
            assert now() < 600
            assert caught.value.__suppress_context__
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            assert await others() == set()

    virtual_time.run(main)


def test_the_blocks_own_error_and_a_cancellation_from_outside_come_before_the_clients() -> None:
    async def fail(emu: Emulator) -> None:
        async with Listener(emu):
            emu.portal.expire_token(emu.token)
            emu.portal.rotate()
            try:
                await asyncio.sleep(86_400)
            finally:
                raise LookupError("the block's own")

    async def wait(emu: Emulator) -> None:
        async with Listener(emu) as pull:
            failing = asyncio.ensure_future(pull.reached(State.FAILED))
            task = asyncio.current_task()
            assert task is not None
            failing.add_done_callback(lambda _: task.cancel())
            emu.portal.expire_token(emu.token)
            emu.portal.rotate()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(86_400)
            await asyncio.sleep(86_400)

    async def main() -> None:
        async with emulator() as emu:
            with pytest.raises(LookupError):
                await fail(emu)
        async with emulator() as emu:
            waiting = asyncio.create_task(wait(emu))
            await asyncio.wait({waiting})
            assert waiting.cancelled()

    virtual_time.run(main)


def test_the_log_tells_the_life_of_a_client_once_each_under_the_portals_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async with emulator() as emu:
            pull = PullClient(AccessToken(emu.portal_url, emu.token), name="acme")
            task = await start(pull)
            assert pull.portal == "acme"
            await pull.publish("x", {})
            await emu.push.disconnect_all()
            await pull.wait_live()
            await asyncio.sleep(10)
            await pull.publish("x", {})
            emu.portal.expire_token(emu.token)
            emu.portal.rotate()
            with pytest.raises(PullError):
                await task
            await pull.close()

    caplog.set_level("INFO", "bitrix_pull")
    virtual_time.run(main)

    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert all(text.startswith("acme: ") for _, text in told)
    assert {record.portal for record in caplog.records} == {"acme"}  # type: ignore[attr-defined]
    assert [text for level, text in told if level == "ERROR"] == [
        text for _, text in told if "failed for good" in text
    ]
    assert sum(text == "acme: live" for _, text in told) == 2
    assert "expired" in told[-1][1]
    assert len(told) < 8


async def test_waiting_for_a_client_that_does_not_run_is_an_error() -> None:
    pull = PullClient(StandInPortal())
    with pytest.raises(NotRunning):
        await pull.wait_live()
    with pytest.raises(NotRunning):
        await pull.publish("x", users=[1], route="socket")


def test_serving_waits_for_no_portal_and_closes_at_the_end_of_the_block() -> None:
    async def main() -> None:
        emu = emulator()
        await emu.start()
        await emu.close()
        pull = Listener(emu)
        async with pull.serving() as same:
            assert same is pull
            assert state_of(pull) is not State.LIVE
            await emu.start()
            await pull.wait_live(timeout=60)
            emu.portal.send("x", {"n": 1})
            await pull.received(1)
        assert state_of(pull) is State.CLOSED
        await emu.close()
        assert await others() == set()

    virtual_time.run(main)


def test_serving_leaves_the_block_alone_when_the_client_fails_for_good() -> None:
    async def main() -> None:
        async with emulator() as emu, Listener(emu).serving() as pull:
            await pull.wait_live()
            emu.portal.expire_token(emu.token)
            emu.portal.rotate()
            await asyncio.sleep(600)
            assert state_of(pull) is State.FAILED
            assert not pull.health().alive

    virtual_time.run(main)


async def test_serving_raises_what_the_store_says_before_the_block(tmp_path: Path) -> None:
    async with Emulator() as emu, Listener(emu, resume=str(tmp_path / "point")):
        with pytest.raises(InvalidArgument, match="in use"):
            async with Listener(emu, resume=str(tmp_path / "point")).serving():
                pytest.fail("the block was entered")


async def listening(pull: PullClient) -> tuple["asyncio.Task[list[Notice]]", "asyncio.Task[list[object]]"]:
    """Iterate over a client's notices, and over its events."""

    async def notices() -> list[Notice]:
        return [notice async for notice in pull.notices()]

    async def events() -> list[object]:
        async with pull.subscribe() as arriving:
            return [event async for event in arriving]

    both = asyncio.create_task(notices()), asyncio.create_task(events())
    await asyncio.sleep(0)
    return both


async def test_iterators_end_when_the_resume_store_cannot_be_used(tmp_path: Path) -> None:
    async with Emulator() as emu, Listener(emu, resume=str(tmp_path / "point")):
        second = Listener(emu, resume=str(tmp_path / "point"))
        notices, events = await listening(second)
        with pytest.raises(InvalidArgument, match="in use"):
            await second.run()
        async with asyncio.timeout(10):
            last = (await notices)[-1]
            with pytest.raises(InvalidArgument, match="in use"):
                await events
        assert isinstance(last, StateChanged)
        assert last.state is State.FAILED


async def test_closing_a_client_before_its_first_step_leaves_nobody_waiting() -> None:
    async with Emulator() as emu:
        pull = Listener(emu)
        notices, events = await listening(pull)

        async def serve() -> None:
            async with pull.serving():
                pass

        serving = asyncio.create_task(serve())
        await asyncio.sleep(0)
        await pull.close()
        async with asyncio.timeout(10):
            await serving
            assert await events == []
            await notices
        assert state_of(pull) is State.CLOSED


def test_wait_live_waits_as_long_as_it_is_told() -> None:
    async def main() -> None:
        pull = PullClient(AccessToken("http://127.0.0.1:1", "token-of-nobody"))
        task = asyncio.create_task(pull.run())
        await asyncio.sleep(0)
        with pytest.raises(StartTimeout) as raised:
            await pull.wait_live(timeout=100)
        assert isinstance(raised.value.__cause__, Unreachable)
        waiting = asyncio.create_task(pull.wait_live())
        await asyncio.sleep(1000)
        await pull.close()
        with pytest.raises(NotRunning):
            await waiting
        await task

    virtual_time.run(main)


# -- handlers -----------------------------------------------------------------------


def test_a_handler_that_hangs_stops_neither_other_handlers_nor_the_link() -> None:
    async def main() -> None:
        async with emulator() as emu, Listener(emu) as pull:

            @pull.on("x")
            async def hang(event: PullEvent[Any]) -> None:
                await asyncio.Event().wait()

            for n in range(20):
                emu.portal.send("x", {"n": n})
                await asyncio.sleep(60)
            assert pull.numbers == list(range(20))
            health = pull.health()
            assert (health.state, health.connects, health.waiting) == (State.LIVE, 1, 20)
            await pull.close(drain=0)

    virtual_time.run(main)


def test_handlers_can_publish_and_subscribe() -> None:
    async def main() -> None:
        async with emulator() as emu, Listener(emu) as pull:
            answers: list[Any] = []

            @pull.on("question")
            async def answer(event: PullEvent[Any]) -> None:
                async with pull.subscribe("answer") as events:
                    await pull.publish("answer", {"to": event.params["n"]})
                    await pull.publish("answer", {"to": event.params["n"]}, users=[1], route="socket")
                    answers.append((await anext(events)).params)
                    answers.append((await anext(events)).params)

            for n in range(3):
                emu.portal.send("question", {"n": n})
            async with asyncio.timeout(10):
                while len(answers) < 6:
                    await asyncio.sleep(0.05)
            assert answers == [{"to": n} for n in (0, 0, 1, 1, 2, 2)]

    virtual_time.run(main)


class Order(BaseModel):
    id: int
    total: float = 0.0


def test_events_know_their_client_and_its_portal_on_every_way() -> None:
    async def main() -> None:
        async with emulator() as emu:
            pull = Listener(emu)
            seen: list[tuple[str, object, str]] = []

            @pull.on("order", model=Order, retries=1, retry_delay=0.1)
            def handle(event: PullEvent[Order]) -> None:
                seen.append(("handler", event.client, event.portal))
                raise ValueError

            async with pull.subscribe("order", model=Order) as events, running(pull):
                await pull.reached(State.LIVE)
                emu.portal.send("order", {"id": 7})
                event = await anext(events)
                seen.append(("iterator", event.client, event.portal))
                await asyncio.sleep(5)
            (failure,) = [notice for notice in pull.heard if isinstance(notice, HandlerFailed)]
            seen.append(("notice", failure.event.client, failure.portal))
            assert {way for way, *_ in seen} == {"iterator", "handler", "notice"}
            assert all(came == [pull, pull.portal] for _, *came in seen)

    virtual_time.run(main)


def test_a_model_makes_params_of_its_own_type_and_reports_what_does_not_fit() -> None:
    async def main() -> None:
        async with emulator() as emu:
            pull = Listener(emu)
            orders: list[Order] = []

            @pull.on("order", model=Order)
            async def handle(event: PullEvent[Order]) -> None:
                orders.append(event.params)

            async with running(pull):
                await pull.reached(State.LIVE)
                emu.portal.send("order", {"id": "7", "total": 1.5, "more": True})
                emu.portal.send("order", {"id": "seven"})
                emu.portal.send("order", {"id": 8})
                await pull.received(3)
                await asyncio.sleep(1)
                assert orders == [Order(id=7, total=1.5), Order(id=8)]
                failures = [notice for notice in pull.heard if isinstance(notice, HandlerFailed)]
                (failed,) = [failure.event for failure in failures]
                assert isinstance(failed, PullEvent)
                assert failed.params == {"id": "seven"}

    virtual_time.run(main)


# -- telling how it is ---------------------------------------------------------------


def test_notices_tell_the_life_of_a_connection_in_order() -> None:
    async def main() -> None:
        async with emulator() as emu:
            pull = Listener(emu)
            async with running(pull):
                await pull.reached(State.LIVE)
                emu.portal.send("x", {"n": 1})
                await pull.received(1)
                await emu.push.disconnect_all(1012)
                await asyncio.sleep(30)
                emu.portal.channels.expire(Owner("application", 1))
                await asyncio.sleep(30)
            changes = [notice for notice in pull.heard if isinstance(notice, StateChanged)]
            for earlier, later in pairwise(changes):
                assert later.previous is earlier.state
            assert [change.state for change in changes if change.state is not State.CLOSED] == [
                State.CONFIGURING,
                State.CONNECTING,
                State.LIVE,
                State.BACKOFF,
                State.CONNECTING,
                State.CATCHING_UP,
                State.LIVE,
                State.RENEWING,
                State.LIVE,
                State.CLOSING,
            ]
            backoff = changes[3]
            assert backoff.retry_in_s is not None
            assert 0.5 <= backoff.retry_in_s <= 0.6
            assert "1012" in str(backoff.error)

    virtual_time.run(main)


def test_notices_end_with_the_client() -> None:
    async def main() -> None:
        async with emulator() as emu:
            pull = Listener(emu)

            async def states() -> list[State]:
                return [notice.state async for notice in pull.notices() if isinstance(notice, StateChanged)]

            listening = asyncio.create_task(states())
            await asyncio.sleep(0)
            async with pull:
                pass
            assert (await listening)[-2:] == [State.CLOSING, State.CLOSED]

    virtual_time.run(main)


def test_every_iterator_of_notices_hears_everything() -> None:
    async def main() -> None:
        async with emulator() as emu:
            pull = Listener(emu)
            heard: list[list[Notice]] = [[], []]

            async def listen(notices: list[Notice]) -> None:
                async for notice in pull.notices():
                    notices.append(notice)

            tasks = [asyncio.create_task(listen(notices)) for notices in heard]
            await asyncio.sleep(0)
            async with pull:
                pass
            await asyncio.sleep(0)
            assert heard[0] == heard[1]
            assert len(heard[0]) >= 5
            for task in tasks:
                task.cancel()

    virtual_time.run(main)


def test_health_counts_and_tells_the_present_trouble() -> None:
    async def main() -> None:
        async with emulator() as emu, Listener(emu) as pull:
            health = pull.health()
            assert (health.state, health.live, health.connects) == (State.LIVE, True, 1)
            assert (health.received, health.duplicates, health.malformed) == (0, 0, 0)
            assert health.last_error == ""
            emu.portal.send("x", {"n": 1})
            await pull.received(1)
            await emu.push.disconnect_all()
            await asyncio.sleep(30)
            health = pull.health()
            assert (health.state, health.live, health.connects) == (State.LIVE, True, 2)
            assert health.received == 1
            assert health.duplicates >= 1
            # The trouble is over, and when it was stays known.
            assert health.last_error == ""
            assert health.last_error_at is not None
            await pull.close()
            assert not pull.health().live

    virtual_time.run(main)


# -- who it speaks for ----------------------------------------------------------------


async def test_user_mode_with_a_webhook_hears_the_portal() -> None:
    async with Emulator() as emu:
        pull = PullClient(Webhook(emu.webhook_url))
        heard: list[tuple[str, str, str]] = []
        complete = asyncio.Event()

        @pull.on()
        def note(event: PullEvent[Any]) -> None:
            heard.append((event.module_id, event.command, event.kind))
            if len(heard) == 4:
                complete.set()

        async with pull:
            emu.portal.send("message", {"id": 1}, module="im", users=[1], audience="user")
            emu.portal.send("task_update", {"id": 2}, module="tasks", users=[1], audience="user")
            emu.portal.send("deal_update", {"id": 3}, module="crm", audience="user")
            emu.portal.send_status(1)
            emu.portal.send("of_an_application", {"id": 4})
            async with asyncio.timeout(5):
                await complete.wait()
            assert heard == [
                ("im", "message", "server"),
                ("tasks", "task_update", "server"),
                ("crm", "deal_update", "server"),
                ("online", "user_status", "online"),
            ]
        assert emu.portal.calls.keys() == {"pull.config.get"}


async def test_a_webhook_in_application_mode_is_told_what_to_do() -> None:
    async with Emulator() as emu:
        pull = PullClient(Webhook(emu.webhook_url), mode="application")
        with pytest.raises(WrongAuthType, match='mode="user"'):
            await pull.__aenter__()


class OwnClient:
    """A REST client of the user's own, over a session of their own."""

    def __init__(self, emu: Emulator, session: aiohttp.ClientSession) -> None:
        self._emu = emu
        self._session = session
        self.methods: list[str] = []

    async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
        self.methods.append(method)
        url = f"{self._emu.portal_url}/rest/{method}.json"
        async with self._session.post(url, json={**params, "auth": self._emu.token}) as response:
            return (await response.json())["result"]


async def test_a_rest_client_of_the_users_own() -> None:
    async with Emulator() as emu, aiohttp.ClientSession() as session:
        own = OwnClient(emu, session)
        async with PullClient(own) as pull, pull.subscribe("x") as events:
            await pull.publish("x", {"n": 1})
            async with asyncio.timeout(5):
                assert (await anext(events)).params == {"n": 1}
        assert own.methods == ["pull.application.config.get", "pull.application.event.add"]


@pytest.mark.parametrize("transport", ["websocket", "long_polling"])
async def test_a_session_given_by_the_user_is_used_and_not_closed(transport: Any) -> None:
    async with Emulator() as emu, aiohttp.ClientSession() as session:
        auth = AccessToken(emu.portal_url, emu.token)
        for _ in range(2):
            async with PullClient(auth, http=session, options=PullOptions(transport=transport)) as pull:
                await pull.publish("x")
            assert not session.closed


@pytest.mark.parametrize(
    "arguments", [{"mode": "admin"}, {"start": "now"}, {"resume": 7}], ids=lambda a: next(iter(a))
)
def test_arguments_that_cannot_work_are_refused_at_once(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(arguments))):
        PullClient(StandInPortal(), **arguments)
    with pytest.raises(InvalidArgument, match="no way to call a portal"):
        PullClient("acme.bitrix24.com")  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", range(6))
async def test_closing_a_client_that_has_just_failed_lets_go_of_its_store(steps: int, tmp_path: Path) -> None:
    async with Emulator() as emu:
        emu.portal.expire_token(emu.token)
        store = tmp_path / "resume.json"
        pull = PullClient(AccessToken(emu.portal_url, emu.token), resume=store)
        failing = asyncio.create_task(pull.run())
        async with asyncio.timeout(10):
            while pull.state is not State.FAILED:
                await asyncio.sleep(0)
        for _ in range(steps):
            await asyncio.sleep(0)
        await pull.close()
        await asyncio.wait({failing})
        assert isinstance(failing.exception(), TokenExpired)

        async with PullClient(AccessToken(emu.portal_url, emu.portal.issue_token()), resume=store) as other:
            assert state_of(other) is State.LIVE


def test_who_is_in_more_of_a_hurry_may_come_when_the_time_is_just_over() -> None:
    async def main() -> None:
        async with emulator() as emu:
            pull = PullClient(AccessToken(emu.portal_url, emu.token))

            @pull.on("x")
            async def stuck(event: PullEvent) -> None:
                await asyncio.Event().wait()

            async def close_later() -> None:
                await asyncio.sleep(5)
                await pull.close(1)

            async with pull.serving():
                await pull.wait_live()
                emu.portal.send("x")
                await asyncio.sleep(2)
                later = asyncio.create_task(close_later())
                await asyncio.sleep(0)
                await pull.close(5)
                await later
            assert pull.state is State.CLOSED

    virtual_time.run(main)
