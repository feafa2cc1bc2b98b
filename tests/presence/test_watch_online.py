"""``PullClient.watch_online``: the present state first, then every change, also those of an outage."""

import asyncio
from typing import Any

import pytest

from bitrix_pull import PresenceChanged, PullClient, PullEvent, Webhook
from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.rpc import RpcSubscriber
from bitrix_pull.errors import (
    InvalidArgument,
    NotRunning,
    PresenceUnavailable,
    PullError,
)
from bitrix_pull.wire.close_codes import ServerClose
from tests.presence.conftest import Users, changes, client, emulator, in_virtual_time, nothing_for

VERSIONS = pytest.mark.parametrize("version", [4, 5])


def watched(emulated: Emulator) -> set[int]:
    """Return whom version 5 was asked to watch, over all connections."""
    return {
        user
        for connection in emulated.push.connections
        if isinstance(connection, RpcSubscriber)
        for user in connection.watched
    }


def now() -> float:
    return asyncio.get_running_loop().time()


@VERSIONS
@in_virtual_time
async def test_the_present_state_comes_first_and_then_what_changes(version: int) -> None:
    async with emulator(version) as emulated, Users(emulated) as users, client(emulated) as pull:
        await users.come(2)
        async with pull.watch_online([2, 3], interval_s=10) as watch:
            assert watch.online == {2: True, 3: False}
            await users.come(3)
            assert await changes(watch, 1) == [(3, True)]
            assert watch.online == {2: True, 3: True}
            await users.go(2)
            assert await anext(watch) == PresenceChanged(2, online=False)
            assert await nothing_for(watch, 100)
        assert watched(emulated) == set()


@in_virtual_time
async def test_version_5_tells_at_once_and_only_of_those_who_are_watched() -> None:
    async with (
        emulator(5) as emulated,
        Users(emulated) as users,
        client(emulated) as pull,
        pull.watch_online([2, 3], interval_s=3_600) as watch,
    ):
        assert watched(emulated) == {2, 3}
        started = now()
        await users.come(4)
        await users.come(3)
        assert await changes(watch, 1) == [(3, True)]
        assert now() - started < 1
        await users.go(3, 4)
        assert await changes(watch, 1) == [(3, False)]


@in_virtual_time
async def test_version_4_is_asked_at_intervals() -> None:
    async with (
        emulator(4) as emulated,
        Users(emulated) as users,
        client(emulated) as pull,
        pull.watch_online(2, interval_s=30) as watch,
    ):
        started = now()
        await users.come(2)
        assert await changes(watch, 1) == [(2, True)]
        assert 29 < now() - started < 31
        before = emulated.push.counters.requests
        assert await nothing_for(watch, 299)
        assert emulated.push.counters.requests - before in (9, 10)


@VERSIONS
@in_virtual_time
async def test_what_changed_during_an_outage_is_noticed_after_it(version: int) -> None:
    async with emulator(version) as emulated, Users(emulated) as users, client(emulated) as pull:
        await users.come(2, 3)
        async with pull.watch_online([2, 3, 4], interval_s=300) as watch:
            await emulated.push.disconnect_all()
            # The watching client stays out for a while; all the others leave for good.
            emulated.push.faults.websocket_refusal = 502
            await users.go(3)
            emulated.push.faults.websocket_refusal = None
            await pull.wait_live()
            await asyncio.sleep(40)
            assert not watch.online[3]
            # User 2 may have come back later than the watching client.
            await asyncio.sleep(300)
            assert watch.online == {2: True, 3: False, 4: False}
            # Also who has come back meanwhile is told only if the state is another one.
            assert await changes(watch, 1) == [(3, False)]
            if version == 5:
                assert watched(emulated) == {2, 3, 4}
                await users.come(4)
                assert await changes(watch, 1) == [(4, True)]


@VERSIONS
@in_virtual_time
async def test_renewed_channels_bring_a_new_connection_that_is_watched_over_too(version: int) -> None:
    async with (
        emulator(version, channel_life_s=600) as emulated,
        Users(emulated) as users,
        client(emulated) as pull,
    ):
        await users.come(2)
        async with pull.watch_online([2, 3], interval_s=50) as watch:
            await asyncio.sleep(2_000)
            assert pull.health().connects > 2
            assert watch.online == {2: True, 3: False}
            await users.come(3)
            assert (await changes(watch, 1))[-1] == (3, True)
            await users.go(2)
            assert (await changes(watch, 1))[-1] == (2, False)


@in_virtual_time
async def test_who_looks_while_a_connection_is_being_replaced_watches_over_the_new_one() -> None:
    async with (
        emulator(5, channel_life_s=30) as emulated,
        client(emulated) as pull,
        pull.watch_online([2, 3], interval_s=0.2),
    ):
        # A look in every phase of the replacement, which takes more than a second.
        for _ in range(3):
            connects = pull.health().connects
            while pull.health().connects == connects or len(emulated.push.connections) > 1:
                await asyncio.sleep(0.1)
            await asyncio.sleep(1)
            assert watched(emulated) == {2, 3}


@in_virtual_time
async def test_it_may_be_prepared_before_the_client_is_started() -> None:
    async with emulator(4) as emulated:
        pull = client(emulated)
        prepared = [pull.watch_online([1, 2]) for _ in range(2)]
        for watching in prepared:
            async with pull, watching as watch:
                assert watch.online == {1: True, 2: False}


@VERSIONS
@in_virtual_time
async def test_a_consumer_that_is_behind_gets_the_latest_state_only(version: int) -> None:
    async with (
        emulator(version) as emulated,
        Users(emulated) as users,
        client(emulated) as pull,
        pull.watch_online([2, 3], interval_s=1) as watch,
    ):
        for _ in range(3):
            await users.come(2)
            await asyncio.sleep(2)
            await users.go(2)
            await asyncio.sleep(2)
        await users.come(3)
        await asyncio.sleep(2)
        assert await changes(watch, 1) == [(3, True)]
        assert await nothing_for(watch, 5)


@VERSIONS
@in_virtual_time
async def test_several_watches_of_one_user_do_not_disturb_each_other(version: int) -> None:
    async with (
        emulator(version) as emulated,
        Users(emulated) as users,
        client(emulated) as pull,
        pull.watch_online([2, 3], interval_s=5) as one,
    ):
        async with pull.watch_online([2], interval_s=5) as another:
            await users.come(2)
            assert await changes(one, 1) == await changes(another, 1) == [(2, True)]
        if version == 5:
            assert watched(emulated) == {2, 3}
        await users.go(2)
        assert await changes(one, 1) == [(2, False)]


@in_virtual_time
async def test_another_client_cannot_pretend_that_somebody_has_come() -> None:
    async with (
        emulator(5) as emulated,
        client(emulated) as pull,
        client(emulated, 2) as other,
        pull.watch_online([3], interval_s=3_600) as watch,
    ):
        forged = {"user_id": 3, "online": True}
        await other.publish("userStatusChange", forged, module="online", users=[1], route="socket")
        odd: list[Any] = [
            [],
            {"user_id": "3"},
            {"user_id": 3, "online": None},
            {"user_id": 9, "online": True},
        ]
        for params in odd:
            emulated.portal.send("userStatusChange", params, module="online", users=[1])
        assert await nothing_for(watch, 5)
        assert watch.online == {3: False}
        emulated.portal.send("userStatusChange", forged, module="online", users=[1])
        assert await changes(watch, 1) == [(3, True)]


# -- how it ends ----------------------------------------------------------------------


@VERSIONS
@in_virtual_time
async def test_it_ends_with_the_client(version: int) -> None:
    async with emulator(version) as emulated:
        pull = client(emulated)
        async with pull, pull.watch_online([2]) as watch:
            waiting = asyncio.create_task(anext(watch, "the end"))
            await asyncio.sleep(0)
            await pull.close()
            assert await waiting == "the end"
            assert await anext(watch, "the end") == "the end"
        with pytest.raises(NotRunning):
            async with pull.watch_online([2]):
                pass


@VERSIONS
@in_virtual_time
async def test_it_ends_quietly_while_handlers_still_finish(version: int) -> None:
    async with emulator(version) as emulated:
        pull = client(emulated)
        handled = asyncio.Event()

        @pull.on("x")
        async def handle(event: PullEvent) -> None:
            await asyncio.sleep(3)
            handled.set()

        async with pull, pull.watch_online([2], interval_s=0.1) as watch:
            emulated.portal.send("x")
            await asyncio.sleep(0.5)
            await pull.close()
            assert await anext(watch, "the end") == "the end"
        assert handled.is_set()


@VERSIONS
@in_virtual_time
async def test_it_ends_with_the_reason_why_the_client_has_failed(version: int) -> None:
    async with emulator(version) as emulated, client(emulated) as pull, pull.watch_online([2]) as watch:
        emulated.portal.application_scope = set()
        await emulated.push.disconnect_all(ServerClose.WRONG_CHANNEL)
        with pytest.raises(PullError, match="insufficient_scope"):
            await anext(watch)


@in_virtual_time
async def test_it_ends_where_the_server_does_not_tell_any_more() -> None:
    async with (
        emulator(4, channel_life_s=300) as emulated,
        client(emulated) as pull,
        pull.watch_online([2], interval_s=10) as watch,
    ):
        # The next channel is one that the portal does not tell any more.
        emulated.portal.application_scope = {"pull"}
        await asyncio.sleep(400)
        with pytest.raises(PresenceUnavailable, match="pull_channel"):
            await anext(watch)


@VERSIONS
@in_virtual_time
async def test_a_server_that_is_silent_for_a_while_is_asked_again(version: int) -> None:
    async with (
        emulator(version) as emulated,
        Users(emulated) as users,
        client(emulated, ping_interval_s=3_600) as pull,
        pull.watch_online([2], interval_s=10) as watch,
    ):
        [connection] = emulated.push.connections
        connection.line.faults.mute = True
        await asyncio.sleep(18)
        connection.line.faults.mute = False
        await users.come(2)
        assert await changes(watch, 1) == [(2, True)]
        assert pull.health().connects == 1


@VERSIONS
@pytest.mark.parametrize("moment_s", [0.0, 0.001, 0.02, 0.5, 12.0])
@in_virtual_time
async def test_who_is_cancelled_at_any_moment_leaves_nothing_behind(version: int, moment_s: float) -> None:
    async with emulator(version) as emulated, client(emulated) as pull:

        async def watch() -> None:
            async with pull.watch_online(range(1, 200), interval_s=10) as watching:
                async for _ in watching:
                    pass

        before = len(asyncio.all_tasks())
        task = asyncio.create_task(watch())
        await asyncio.sleep(moment_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(2)
        assert len(asyncio.all_tasks()) <= before
        assert not any("presence" in task.get_name() for task in asyncio.all_tasks())
        assert watched(emulated) == set()


@in_virtual_time
async def test_what_fails_inside_comes_out_as_it_is() -> None:
    async with emulator(5) as emulated, client(emulated) as pull:
        with pytest.raises(ZeroDivisionError):
            async with pull.watch_online([2]):
                raise ZeroDivisionError


@pytest.mark.parametrize("version", [2, 3])
@in_virtual_time
async def test_older_servers_say_so_on_entering(version: int) -> None:
    async with emulator(version) as emulated, client(emulated) as pull:
        with pytest.raises(PresenceUnavailable):
            async with pull.watch_online([2]):
                pass


@pytest.mark.parametrize("interval_s", [0, -1.0, float("nan"), float("inf"), "5", None, True])
def test_arguments_are_checked_at_once(interval_s: Any) -> None:
    pull = PullClient(Webhook("https://acme.bitrix24.com/rest/1/abcdefgh12345678/"))
    with pytest.raises(InvalidArgument, match="interval_s"):
        pull.watch_online([1], interval_s=interval_s)
    with pytest.raises(InvalidArgument, match="users"):
        pull.watch_online([])
