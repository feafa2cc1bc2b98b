"""``PullClient.online`` against the emulator: who is online, and what happens where that cannot be told."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from bitrix_pull import Presence, PullClient, Webhook
from bitrix_pull.emulator import Emulator
from bitrix_pull.errors import (
    CallTimeout,
    ConnectionLost,
    InvalidArgument,
    InvalidSignature,
    NotRunning,
    PresenceUnavailable,
    Unreachable,
)
from tests.presence.conftest import Users, client, emulator, in_virtual_time
from tests.virtual_time import unix_time

OFFLINE = Presence(online=False)
ONLINE = Presence(online=True, last_seen_s=0)


@in_virtual_time
async def test_version_4_tells_who_is_connected() -> None:
    async with emulator(4) as emulated, Users(emulated) as users, client(emulated) as pull:
        await users.come(2, 3)
        assert await pull.online([1, 2, 3, 4]) == {1: ONLINE, 2: ONLINE, 3: ONLINE, 4: OFFLINE}
        await users.go(3)
        assert await pull.online([3, 2, 3]) == {3: OFFLINE, 2: ONLINE}
        assert await pull.online(2) == {2: ONLINE}


@in_virtual_time
async def test_version_5_tells_since_when_somebody_is_gone() -> None:
    async with emulator(5) as emulated, Users(emulated) as users, client(emulated) as pull:
        await users.come(2, 3)
        await users.go(3)
        await asyncio.sleep(100)
        answer = await pull.online([1, 2, 3, 4])
        seen = answer.pop(3).last_seen_s
        assert answer == {1: ONLINE, 2: ONLINE, 4: OFFLINE}
        assert seen is not None
        assert 99 <= seen <= 102


@in_virtual_time
async def test_on_version_5_the_portal_tells_of_users_who_never_connected() -> None:
    async with emulator(5) as emulated, client(emulated) as pull:
        emulated.portal.last_active[2] = unix_time() - 300
        for _ in range(2):  # The second time the push server knows.
            answer = await pull.online([1, 2, 3])
            seen = answer.pop(2)
            assert answer == {1: ONLINE, 3: OFFLINE}
            assert not seen.online
            assert seen.last_seen_s is not None
            assert 300 <= seen.last_seen_s <= 303
        asked = [count for method, count in emulated.portal.calls.items() if "lastseen" in method.lower()]
        assert asked == [1]


@in_virtual_time
async def test_an_inactive_user_among_others_is_offline() -> None:
    async with emulator(4) as emulated, Users(emulated) as users, client(emulated) as pull:
        emulated.portal.inactive.add(999)
        await users.come(2)
        assert await pull.online([1, 2, 999]) == {1: ONLINE, 2: ONLINE, 999: OFFLINE}


@in_virtual_time
async def test_more_users_than_a_request_takes_are_asked_for_in_several() -> None:
    async with emulator(4) as emulated, Users(emulated) as users, client(emulated) as pull:
        await users.come(2, 250)
        answer = await pull.online(range(1, 251))
        assert [user for user, presence in answer.items() if presence.online] == [1, 2, 250]
        assert list(answer) == list(range(1, 251))


@pytest.mark.parametrize("version", [4, 5])
@in_virtual_time
async def test_many_may_ask_at_once_beside_the_stream(version: int) -> None:
    async with emulator(version) as emulated, Users(emulated) as users, client(emulated) as pull:
        received: list[Any] = []
        pull.on("x")(received.append)
        await users.come(2, 4)

        async def ask(user: int) -> bool:
            emulated.portal.send("x", {"n": user})
            return (await pull.online([user, user + 1]))[user].online

        answers = await asyncio.gather(*(ask(user) for user in range(1, 31)))
        assert [user for user, online in enumerate(answers, 1) if online] == [1, 2, 4]
        async with asyncio.timeout(5):
            while len(received) < 30:
                await asyncio.sleep(0.01)
        # What changes meanwhile is seen by who asks after it.
        await users.go(2)
        assert not (await pull.online(2))[2].online


@pytest.mark.parametrize("version", [4, 5])
@in_virtual_time
async def test_who_gives_up_harms_nobody(version: int) -> None:
    async with emulator(version) as emulated, Users(emulated) as users, client(emulated) as pull:
        await users.come(2)
        await pull.online(2)
        for _ in range(3):
            asking = asyncio.create_task(pull.online([2, 3]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        assert await pull.online([2, 3]) == {2: ONLINE, 3: OFFLINE}


@pytest.mark.parametrize("version", [4, 5])
@in_virtual_time
async def test_a_server_that_does_not_answer_is_told_after_5_s(version: int) -> None:
    async with emulator(version) as emulated, client(emulated, ping_interval_s=60) as pull:
        await pull.online(1)
        [connection] = emulated.push.connections
        connection.line.faults.mute = True
        started = asyncio.get_running_loop().time()
        with pytest.raises(CallTimeout):
            await pull.online([1])
        assert 4.9 < asyncio.get_running_loop().time() - started < 5.5


@pytest.mark.parametrize("version", [4, 5])
@in_virtual_time
async def test_a_cut_ends_the_question_at_once(version: int) -> None:
    async with emulator(version) as emulated, client(emulated) as pull:
        await pull.online(1)
        [connection] = emulated.push.connections
        connection.line.faults.mute = True
        asking = [asyncio.create_task(pull.online([1])) for _ in range(3)]
        await asyncio.sleep(0.5)
        connection.abort()
        for task in asking:
            with pytest.raises(ConnectionLost):
                await task
        with pytest.raises(Unreachable):
            await pull.online([1])
        await asyncio.sleep(0.05)
        await pull.wait_live(60)
        assert await pull.online([1]) == {1: ONLINE}


class Forger:
    """A REST client of the user's own that tells public channels with wrong signatures."""

    def __init__(self, emulated: Emulator) -> None:
        self._portal = emulated.portal

    async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
        if method == "pull.application.config.get":
            return self._portal.config("application", 1)
        found = self._portal.public_channels("application", params["USERS"])
        return {user: {**channel, "signature": "00" * 20} for user, channel in found.items()}


@in_virtual_time
async def test_a_question_that_the_server_refuses_is_told_why() -> None:
    async with emulator(4) as emulated, PullClient(Forger(emulated)) as pull:
        with pytest.raises(InvalidSignature) as refused:
            await pull.online([1, 2])
        assert refused.value.code == 4021
        # The server has closed the connection over it; the client is back.
        await asyncio.sleep(1)
        assert await pull.online([1]) == {1: ONLINE}


@pytest.mark.parametrize("version", [2, 3])
@in_virtual_time
async def test_older_servers_do_not_tell(version: int) -> None:
    async with emulator(version) as emulated, client(emulated) as pull:
        with pytest.raises(PresenceUnavailable, match=f"version {version} .* version 4 and up"):
            await pull.online(1)


@pytest.mark.parametrize("options", [{"protobuf": False}, {"transport": "long_polling"}])
@in_virtual_time
async def test_text_and_polling_cannot_ask(options: Any) -> None:
    async with emulator(4) as emulated, client(emulated, **options) as pull:
        with pytest.raises(PresenceUnavailable, match="over a WebSocket in protobuf only"):
            await pull.online(1)


@in_virtual_time
async def test_without_the_scope_it_is_said_what_is_missing() -> None:
    async with emulator(4) as emulated:
        emulated.portal.application_scope = {"pull"}
        async with client(emulated) as pull:
            assert await pull.online(1) == {1: ONLINE}
            with pytest.raises(PresenceUnavailable, match='scope "pull_channel"') as caught:
                await pull.online([1, 2])
            assert not caught.value.retryable


@in_virtual_time
async def test_user_mode_has_its_own_channels() -> None:
    async with emulator(4) as emulated, Users(emulated) as users:
        await users.come(2)
        code = emulated.portal.webhook_code(3)
        async with (
            PullClient(Webhook(f"{emulated.portal_url}/rest/3/{code}/")),
            PullClient(Webhook(emulated.webhook_url)) as pull,
        ):
            # User 2 is in the application only.
            assert await pull.online([2, 3]) == {2: OFFLINE, 3: ONLINE}


@in_virtual_time
async def test_a_client_must_be_live() -> None:
    async with emulator(4) as emulated:
        pull = client(emulated)
        with pytest.raises(NotRunning):
            await pull.online(1)
        await pull.close()


@pytest.mark.parametrize("users", ["12", b"1", 1.5, None, [], [0], [-1], ["1"], [True], [1, None]])
async def test_users_are_ids(users: Any) -> None:
    pull = PullClient(Webhook("https://acme.bitrix24.com/rest/1/abcdefgh12345678/"))
    with pytest.raises(InvalidArgument, match=r"user ids as integers|users is empty|no user id"):
        await pull.online(users)
