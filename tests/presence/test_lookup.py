"""What a server of version 5 may answer, be it odd; and how many calls it gets at once."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from bitrix_pull import Presence
from bitrix_pull.errors import (
    ConnectionLost,
    InsufficientScope,
    MalformedFrame,
    MethodNotFound,
    PortalUnavailable,
)
from bitrix_pull.portal.auth import Caller
from bitrix_pull.portal.models import PullConfig, ServerConfig
from bitrix_pull.portal.public_channels import PublicChannels
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.presence.lookup import BUSY_S, CALLS_AT_ONCE, DENIED_S, PresenceLookup
from bitrix_pull.wire.channel_ids import PublicChannel
from tests import virtual_time
from tests.connection.stand_ins import StandInPortal


class Server:
    """A push server of version 5 that answers what a test tells it to."""

    def __init__(self, answer: Any = True) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.most_at_once = 0
        self._answer = answer
        self._at_once = 0

    async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
        self.calls.append((method, params))
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await asyncio.sleep(0)
        self._at_once -= 1
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    async def online(self, channels: Sequence[PublicChannel], /) -> set[bytes]:
        raise AssertionError("version 5 knows no channels")

    @property
    def stream(self) -> object:
        return self

    async def live_by_another(self, stream: object | None, /) -> None:
        raise AssertionError("nobody waits here")


def lookup(server: Server, portal: Caller | None = None) -> PresenceLookup:
    async def config() -> PullConfig:
        return PullConfig(ServerConfig(version=5))

    rest = RestClient(portal or StandInPortal())
    channels = PublicChannels(rest, "application", config=config, now=lambda: 0.0)
    return PresenceLookup(server, config=config, public_channels=channels, rest=rest)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"1": 0}, Presence(True, 0)),
        ({"1": 7, "2": 0}, Presence(False, 7)),
        ({}, Presence(False)),
        ([], Presence(False)),
        ({"1": None}, Presence(False)),
        ({"1": -1}, Presence(False)),
        ({"1": "0"}, Presence(False)),
        ({"1": True}, Presence(False)),
        ({"1": False}, Presence(False)),
    ],
)
async def test_only_a_plain_0_is_online(answer: Any, expected: Presence) -> None:
    server = Server(answer)
    assert await lookup(server).of_users([1]) == {1: expected}
    assert server.calls == [("getUsersLastSeen", {"userList": [1]})]


@pytest.mark.parametrize("answer", [None, True, 7, "x", [1]])
async def test_what_is_no_map_is_an_error_that_passes(answer: Any) -> None:
    with pytest.raises(MalformedFrame) as caught:
        await lookup(Server(answer)).of_users([1])
    assert caught.value.retryable


class Portal:
    """A portal that tells, or raises, what a test says about when users were last active."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[Any] = []

    async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
        assert (method, params["sendToQueueSever"]) == ("pull.api.user.getLastSeen", True)
        self.asked.append(params["userIds"])
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_the_portal_is_asked_about_users_whom_the_push_server_has_not_seen() -> None:
    async def main() -> None:
        # However short ago: connected they are not. Numbers may be text.
        portal = Portal({"2": "7", "3": 0, "4": None})
        presence = lookup(Server({"1": 0}), portal)
        expected = {
            1: Presence(True, 0),
            2: Presence(False, 7),
            3: Presence(False, 0),
            4: Presence(False),
            5: Presence(False),
        }
        assert await presence.of_users([1, 2, 3, 4, 5]) == expected
        assert portal.asked == [[2, 3, 4, 5]]
        # The push server has been told of those who are known, and of the others the portal knows nothing.
        await presence.of_users([4, 5])
        assert portal.asked[1:] == []
        await asyncio.sleep(DENIED_S + 1)
        await presence.of_users([4, 5])
        assert portal.asked[1:] == [[4, 5]]

    virtual_time.run(main)


@pytest.mark.parametrize(
    ("answer", "pause_s"),
    [
        (InsufficientScope("no"), DENIED_S),
        (MethodNotFound("no"), DENIED_S),
        (PortalUnavailable("no"), BUSY_S),
        ([1], BUSY_S),
    ],
)
def test_a_portal_that_does_not_tell_is_left_alone_for_a_while(answer: Any, pause_s: float) -> None:
    async def main() -> None:
        portal = Portal(answer)
        presence = lookup(Server({"1": 0}), portal)
        for _ in range(3):
            assert await presence.of_users([1, 2]) == {1: Presence(True, 0), 2: Presence(False)}
        assert portal.asked == [[2]]
        await asyncio.sleep(pause_s + 1)
        await presence.of_users([1, 2])
        assert portal.asked == [[2], [2]]

    virtual_time.run(main)


async def test_each_user_is_subscribed_to_but_not_all_at_once() -> None:
    server = Server()
    await lookup(server).subscribe(range(1, 251))
    assert server.calls == [("subscribeStatusChange", {"userId": user}) for user in range(1, 251)]
    assert 1 < server.most_at_once <= CALLS_AT_ONCE


async def test_the_first_failure_comes_out_as_it_is() -> None:
    error = ConnectionLost("cut")
    with pytest.raises(ConnectionLost) as caught:
        await lookup(Server(error)).subscribe([1, 2, 3])
    assert caught.value is error


async def test_users_whom_others_watch_stay_subscribed() -> None:
    server = Server()
    presence = lookup(server)
    presence.hold([1, 2])
    presence.hold([2, 3])
    await presence.release([1, 2])
    assert server.calls == [("unsubscribeStatusChange", {"userId": 1})]
    await presence.release([2, 3])
    assert server.calls[1:] == [("unsubscribeStatusChange", {"userId": user}) for user in (2, 3)]
