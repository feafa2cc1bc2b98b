"""What ``health()`` tells an operator: what is wrong now, since when, and who holds things up."""

import asyncio
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from bitrix_pull import AccessToken, Health, PullClient, PullEvent, State
from bitrix_pull.emulator import Emulator
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running
from tests.virtual_time import unix_time


def now() -> datetime:
    return datetime.fromtimestamp(unix_time(), UTC)


def test_before_the_first_start_nothing_is_claimed() -> None:
    health = PullClient(AccessToken("acme.bitrix24.com", "token-of-nobody")).health()
    assert (health.portal, health.state, health.transport) == ("acme.bitrix24.com", State.IDLE, "")
    assert (health.server_version, health.silent_for_s, health.channels_end_at) == (0, None, None)
    assert (health.last_event_at, health.last_error, health.last_error_at) == (None, "", None)
    assert (health.oldest, health.lag_s, health.next_attempt_in_s) == (None, 0.0, None)
    assert (health.alive, health.ready, health.live) == (False, False, False)


def test_it_tells_where_a_live_client_is_connected() -> None:
    async def main() -> None:
        async with emulator(channel_life_s=3_600) as emu, Listener(emu) as pull:
            live_since = now()
            await asyncio.sleep(100)
            health = pull.health()
            assert (health.portal, health.transport, health.server_version) == (pull.portal, "websocket", 4)
            assert abs((health.since - live_since).total_seconds()) < 1
            assert health.channels_end_at is not None
            assert 3_400 < (health.channels_end_at - now()).total_seconds() < 3_600
            assert health.last_event_at is None
            # Its own pings are answered all the time.
            assert health.silent_for_s is not None
            assert health.silent_for_s <= 60
            emu.portal.send("x", {"n": 1})
            await pull.received(1)
            health = pull.health()
            assert health.last_event_at is not None
            assert abs((health.last_event_at - now()).total_seconds()) < 1
            assert (health.next_attempt_in_s, health.last_error) == (None, "")

    virtual_time.run(main)


def test_polls_are_heard_too() -> None:
    async def main() -> None:
        async with emulator() as emu, Listener(emu, transport="long_polling") as pull:
            await asyncio.sleep(300)
            health = pull.health()
            assert health.transport == "long_polling"
            assert health.silent_for_s is not None
            assert health.silent_for_s <= 60

    virtual_time.run(main)


def test_in_an_outage_it_tells_what_is_wrong_since_when_and_what_comes_next() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as pull:
            await pull.reached(State.LIVE)
            emu.push.faults.websocket_refusal = emu.push.faults.poll_refusal = 503
            await emu.push.disconnect_all()
            await asyncio.sleep(300)
            await pull.reached(State.BACKOFF)
            health = pull.health()
            assert "503" in health.last_error
            assert health.last_error_at is not None
            assert health.next_attempt_in_s is not None
            assert 0 < (before := health.next_attempt_in_s) <= 72
            assert health.silent_for_s is not None
            assert health.silent_for_s > 200
            assert health.alive
            assert not health.ready
            await asyncio.sleep(1)
            assert pull.health().next_attempt_in_s == pytest.approx(before - 1, abs=0.1)

            emu.push.faults.websocket_refusal = emu.push.faults.poll_refusal = None
            await pull.reached(State.LIVE)
            health = pull.health()
            assert (health.last_error, health.next_attempt_in_s) == ("", None)
            # When it last was, stays known.
            assert health.last_error_at is not None

    virtual_time.run(main)


def test_trouble_with_the_configuration_is_told_while_the_stream_is_live() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as pull:
            await pull.reached(State.LIVE)
            emu.portal.faults.locked_channels = frozenset({"private"})
            await asyncio.sleep(3_950)
            health = pull.health()
            assert health.state is State.LIVE
            assert "private channel" in health.last_error
            emu.portal.faults.locked_channels = frozenset()
            await asyncio.sleep(100)
            assert pull.health().last_error == ""

    virtual_time.run(main)


def test_a_new_start_knows_no_trouble_of_the_last_one() -> None:
    async def main() -> None:
        async with emulator() as emu:
            pull = Listener(emu)
            emu.portal.push_configured = False
            async with running(pull):
                await pull.reached(State.FAILED)
                assert "not configured" in pull.health().last_error
                assert not pull.health().alive
            emu.portal.push_configured = True
            async with pull:
                assert pull.health().last_error == ""

    virtual_time.run(main)


def test_gaps_and_what_was_healed_are_counted() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as pull:
            await pull.reached(State.LIVE)
            emu.portal.send("x", {"n": 0})
            await pull.received(1)
            emu.push.faults.replay_race = lambda _: emu.portal.send("x", {"n": 1})
            await emu.push.disconnect_all()
            await asyncio.sleep(0.5)
            emu.push.faults.replay_race = None
            await pull.received(2)
            assert (pull.health().healed, pull.health().gaps) == (1, 0)
            emu.push.drop_history()
            await emu.push.disconnect_all()
            await asyncio.sleep(30)
            assert (pull.health().healed, pull.health().gaps) == (1, 1)

    virtual_time.run(main)


@pytest.mark.parametrize("settings", [{}, {"concurrency": 2}, {"ack": "manual"}, {"retries": 1}])
def test_it_names_the_event_that_has_waited_longest_and_the_handler(settings: dict[str, Any]) -> None:
    async def main() -> None:
        async with emulator() as emu:
            pull, go_on = Listener(emu), asyncio.Event()

            async def takes_its_time(event: PullEvent) -> None:
                await go_on.wait()
                if settings.get("ack"):
                    event.ack()

            pull.on("slow", **settings)(takes_its_time)
            async with pull:
                emu.portal.send("slow", {"n": 1})
                await pull.received(1)
                await asyncio.sleep(100)
                emu.portal.send("slow", {"n": 2})
                await pull.received(2)
                await asyncio.sleep(20)
                health = pull.health()
                oldest = health.oldest
                assert oldest is not None
                assert oldest.event == f"application.slow (mid {pull.events[0].mid})"
                assert oldest.handler.endswith("takes_its_time")
                assert oldest.age_s == health.lag_s == pytest.approx(120, abs=2)
                go_on.set()
                await asyncio.sleep(1)
                assert (pull.health().oldest, pull.health().lag_s) == (None, 0.0)

    virtual_time.run(main)


def test_an_iterator_may_be_what_holds_things_up() -> None:
    async def main() -> None:
        async with emulator() as emu, Listener(emu) as pull, pull.subscribe("x") as events:
            emu.portal.send("x", {"n": 1})
            await anext(events)
            oldest = pull.health().oldest
            assert oldest is not None
            assert oldest.handler == "an iterator over application.x"

    virtual_time.run(main)


def test_what_failed_and_what_nobody_wants_is_counted() -> None:
    async def main() -> None:
        async with emulator() as emu:
            pull = PullClient(AccessToken(emu.portal_url, emu.token))

            @pull.on("x")
            def fail(event: PullEvent) -> None:
                raise ValueError

            async with pull:
                for command in ("x", "x", "y"):
                    emu.portal.send(command)
                await asyncio.sleep(2)
                health = pull.health()
                assert (health.handler_failures, health.unrouted) == (2, {"application.y": 1})
            async with pull:
                assert pull.health().handler_failures == 0

    virtual_time.run(main)


async def test_it_can_be_asked_from_another_thread() -> None:
    async with Emulator() as emu, Listener(emu) as pull:
        emu.portal.send("x", {"n": 1})
        await pull.received(1)
        told: list[Health] = []
        thread = threading.Thread(target=lambda: told.append(pull.health()))
        thread.start()
        await asyncio.to_thread(thread.join)
    assert told[0].live
    # And when all is over.
    thread = threading.Thread(target=lambda: told.append(pull.health()))
    thread.start()
    thread.join()
    assert told[1].state is State.CLOSED
