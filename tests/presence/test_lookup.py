"""What a server of version 5 may answer, be it odd; and how many calls it gets at once."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from bitrix_pull import Presence
from bitrix_pull.errors import ConnectionLost, MalformedFrame
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.portal.public_channels import PublicChannels
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.presence.lookup import CALLS_AT_ONCE, PresenceLookup
from bitrix_pull.wire.channel_ids import PublicChannel
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


def lookup(server: Server) -> PresenceLookup:
    async def config() -> PullConfig:
        return PullConfig.model_validate({"server": {"version": 5}})

    rest = RestClient(StandInPortal())
    channels = PublicChannels(rest, "application", config=config, now=lambda: 0.0)
    return PresenceLookup(server, config=config, public_channels=channels)


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
