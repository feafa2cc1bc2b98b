"""Public channels of users: asked for once, until their end (protocol §2 and §3)."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from bitrix_pull.errors import (
    CallerFailed,
    InsufficientScope,
    InvalidConfig,
    PortalUnavailable,
    PullError,
    RouteUnavailable,
)
from bitrix_pull.portal import public_channels
from bitrix_pull.portal.auth import Mode
from bitrix_pull.portal.models import PullConfig, read_config
from bitrix_pull.portal.public_channels import ABSENT_S, DENIED_S, ENDED_S, RENEWAL_S, Own, PublicChannels
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.wire.channel_ids import PublicChannel
from tests import virtual_time

NOW = 1_800_000_000.0
LIFE_S = 43_205


def told(user: int, *, generation: int = 1, end: float | None = NOW + LIFE_S) -> dict[str, Any]:
    """Return a channel as a portal tells it."""
    channel = {"user_id": user, "public_id": f"{generation:016x}{user:016x}", "signature": "ab" * 20}
    if end is None:
        return channel
    return channel | {"end": datetime.fromtimestamp(end, UTC).isoformat()}


def channel(user: int, *, generation: int = 1) -> PublicChannel:
    return PublicChannel.parse(f"{generation:016x}{user:016x}.{'ab' * 20}")


class Portal:
    """A portal that knows everybody but user 404, where 999 is inactive, and a clock of its own.

    Attributes:
        asked: The users of each request.
        failing: What the next requests raise.
        own: ``publicChannels`` of the configuration.
        private: ``channels.private`` of the configuration.
    """

    def __init__(self, mode: Mode = "application") -> None:
        self.asked: list[list[int]] = []
        self.params: list[Mapping[str, Any]] = []
        self.failing: list[Exception] = []
        self.own: dict[str, Any] = {}
        self.private: dict[str, Any] = {"id": "a" * 32}
        self.generation = 1
        self.end: float | None = NOW + LIFE_S
        self.now = NOW
        self.slow_s = 0.0
        self.channels = PublicChannels(RestClient(self), mode, config=self._config, now=lambda: self.now)

    async def _config(self) -> PullConfig:
        return read_config({"channels": {"private": self.private}, "publicChannels": self.own})

    async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
        assert method == "pull.channel.public.list"
        self.asked.append(list(params["USERS"]))
        self.params.append(params)
        await asyncio.sleep(self.slow_s)
        if self.failing:
            raise self.failing.pop(0)
        nobody = {"public_id": None, "signature": "cd" * 20, "end": "1970-01-01T12:00:05+00:00"}
        return {
            str(user): told(user, generation=self.generation, end=self.end) | (nobody if user == 999 else {})
            for user in params["USERS"]
            if user != 404
        }

    @staticmethod
    def iso(unix: float) -> str:
        return datetime.fromtimestamp(unix, UTC).isoformat()


async def test_each_user_is_asked_for_once() -> None:
    portal = Portal()
    assert await portal.channels.of_users([1, 2, 1]) == {1: channel(1), 2: channel(2)}
    assert await portal.channels.of_users([2, 3]) == {2: channel(2), 3: channel(3)}
    assert await portal.channels.of_users([1, 2, 3]) == {n: channel(n) for n in (1, 2, 3)}
    assert await portal.channels.of_users([]) == {}
    assert portal.asked == [[1, 2], [3]]


@pytest.mark.parametrize(("mode", "application"), [("application", "Y"), ("user", None)])
async def test_an_application_asks_for_its_own_channels(mode: Mode, application: str | None) -> None:
    portal = Portal(mode)
    await portal.channels.of_users([1])
    assert portal.params[0].get("APPLICATION") == application


async def test_what_the_configuration_tells_is_not_asked_for() -> None:
    portal = Portal("user")
    portal.own = {"7": told(7, generation=9)}
    assert await portal.channels.of_users([7]) == {7: channel(7, generation=9)}
    assert portal.asked == []
    # Whoever keeps the configuration asks for another one some seconds after the end.
    portal.now = NOW + LIFE_S + RENEWAL_S - 1
    assert await portal.channels.of_users([7]) == {7: channel(7, generation=9)}
    portal.now += 2
    portal.generation, portal.end = 10, portal.now + LIFE_S
    assert await portal.channels.of_users([7]) == {7: channel(7, generation=10)}


async def test_an_application_never_takes_its_users_portal_wide_channel_for_its_own() -> None:
    portal = Portal()
    portal.own = {"7": told(7, generation=9)}
    portal.private |= {"public_id": channel(7, generation=3).text, "end": portal.iso(NOW + LIFE_S)}
    assert await portal.channels.of_users([7]) == {7: channel(7, generation=3)}
    assert await portal.channels.own() == Own(7, channel(7, generation=3))
    assert portal.asked == []
    portal.now = NOW + LIFE_S + RENEWAL_S + 1
    portal.end = portal.now + LIFE_S
    assert await portal.channels.of_users([7]) == {7: channel(7)}
    # Where the portal does not tell it, as on version 5, it is asked for.
    del portal.private["public_id"]
    portal.channels.forget([7])
    assert await portal.channels.of_users([7]) == {7: channel(7)}
    assert portal.asked == [[7], [7]]
    assert await portal.channels.own() == Own(7, None)


async def test_a_channel_is_good_until_its_end() -> None:
    portal = Portal()
    await portal.channels.of_users([1])
    portal.now = NOW + LIFE_S - 1
    await portal.channels.of_users([1])
    assert len(portal.asked) == 1
    portal.now += 2
    portal.generation, portal.end = 2, portal.now + LIFE_S
    for _ in range(3):
        assert await portal.channels.of_users([1]) == {1: channel(1, generation=2)}
    assert len(portal.asked) == 2


async def test_a_portal_that_is_late_with_a_new_channel_is_not_asked_for_each_message() -> None:
    portal = Portal()
    portal.now = NOW + LIFE_S + 1
    for _ in range(10):
        assert await portal.channels.of_users([1]) == {1: channel(1)}
    assert len(portal.asked) == 1
    portal.now += ENDED_S
    portal.generation = 2
    assert await portal.channels.of_users([1]) == {1: channel(1, generation=2)}


async def test_a_channel_without_an_end_is_asked_for_again_after_some_minutes() -> None:
    portal = Portal()
    portal.end = None
    await portal.channels.of_users([1])
    portal.now += public_channels.LIFE_UNKNOWN_S - 1
    await portal.channels.of_users([1])
    assert len(portal.asked) == 1
    portal.now += 2
    await portal.channels.of_users([1])
    assert len(portal.asked) == 2


async def test_who_has_no_channel_is_left_out() -> None:
    portal = Portal()
    for _ in range(3):
        assert await portal.channels.of_users([404, 999, 1]) == {1: channel(1)}
    assert portal.asked == [[404, 999, 1]]
    # They may be active one day.
    portal.now += ABSENT_S + 1
    await portal.channels.of_users([404, 1])
    assert portal.asked[1:] == [[404]]


@pytest.mark.parametrize("mode", ["application", "user"])
async def test_a_configuration_may_name_the_user_without_a_channel(mode: Mode) -> None:
    portal = Portal(mode)
    portal.own = {"7": told(7) | {"public_id": None}}
    assert await portal.channels.own() == Own(7, None)
    assert await portal.channels.of_users([7]) == {7: channel(7)}


def test_concurrent_calls_ask_once_for_each_user() -> None:
    async def main() -> None:
        portal = Portal()
        portal.slow_s = 1
        calls = [portal.channels.of_users(users) for users in ([1, 2], [2, 3], [1, 2, 3], [2])]
        found = await asyncio.gather(*calls)
        assert [sorted(channels) for channels in found] == [[1, 2], [2, 3], [1, 2, 3], [2]]
        assert portal.asked == [[1, 2], [3]]

    virtual_time.run(main)


def test_a_cancelled_call_leaves_nothing_behind() -> None:
    async def main() -> None:
        portal = Portal()
        portal.slow_s = 1
        first = asyncio.create_task(portal.channels.of_users([1]))
        second = asyncio.create_task(portal.channels.of_users([1]))
        await asyncio.sleep(0.5)
        first.cancel()
        assert await second == {1: channel(1)}
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert portal.asked == [[1], [1]]

    virtual_time.run(main)


@pytest.mark.parametrize("error", [PortalUnavailable("HTTP 502"), LookupError()])
async def test_a_failed_request_poisons_nothing(error: Exception) -> None:
    portal = Portal()
    portal.failing = [error]
    with pytest.raises((PortalUnavailable, CallerFailed)):
        await portal.channels.of_users([1])
    assert await portal.channels.of_users([1]) == {1: channel(1)}


async def test_a_malformed_answer_is_told_without_what_it_holds() -> None:
    portal = Portal("user")
    portal.own = {"7": {"user_id": 7, "public_id": "canary", "signature": "zz"}}
    with pytest.raises(InvalidConfig) as raised:
        await portal.channels.of_users([7])
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize(
    ("mode", "advice"), [("application", 'route="rest".*event.add'), ("user", "pull_channel")]
)
async def test_a_missing_scope_is_asked_about_once_in_a_while(mode: Mode, advice: str) -> None:
    portal = Portal(mode)
    portal.own = {"7": told(7)}
    portal.private |= {"public_id": channel(7).text}
    portal.failing = [InsufficientScope("no")]
    for _ in range(5):
        with pytest.raises(RouteUnavailable, match=advice):
            await portal.channels.of_users([1])
    assert len(portal.asked) == 1
    assert await portal.channels.of_users([7]) == {7: channel(7)}
    portal.now += DENIED_S + 1
    assert await portal.channels.of_users([1]) == {1: channel(1)}


async def test_long_lists_are_asked_for_in_pieces() -> None:
    portal = Portal()
    found = await portal.channels.of_users(range(1, 2_501))
    assert [len(users) for users in portal.asked] == [1_000, 1_000, 500]
    assert len(found) == 2_500 - 2


async def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_channels, "CHANNELS_KEPT", 3)
    portal = Portal()
    assert len(await portal.channels.of_users(range(1, 6))) == 5
    await portal.channels.of_users([3, 4, 5])
    assert len(portal.asked) == 1
    await portal.channels.of_users([1])
    assert portal.asked[1:] == [[1]]


async def test_what_the_push_server_refused_is_asked_for_anew() -> None:
    portal = Portal()
    await portal.channels.of_users([1, 2])
    portal.channels.forget([1, 99])
    portal.generation = 2
    assert await portal.channels.of_users([1, 2]) == {1: channel(1, generation=2), 2: channel(2)}


# -- oneself -----------------------------------------------------------------------------


async def test_oneself_is_found_by_the_private_channel() -> None:
    portal = Portal("user")
    portal.own = {"7": told(7), "8": told(8)}
    portal.private["public_id"] = channel(8).text
    assert await portal.channels.own() == Own(8, channel(8))


@pytest.mark.parametrize(("mode", "own"), [("application", None), ("user", channel(7))])
async def test_oneself_without_a_private_channel_is_the_only_one_named(
    mode: Mode, own: PublicChannel | None
) -> None:
    portal = Portal(mode)
    portal.own = {"7": told(7)}
    assert await portal.channels.own() == Own(7, own)
    portal.own = {"7": told(7), "8": told(8)}
    assert await portal.channels.own() == Own(None, None)


async def test_a_portal_that_does_not_tell_who_one_is() -> None:
    portal = Portal()
    portal.private["public_id"] = channel(8).text
    assert await portal.channels.own() == Own(None, channel(8))


def test_a_channel_is_never_shown() -> None:
    assert channel(8).id.hex() not in repr(Own(8, channel(8)))
    assert isinstance(RouteUnavailable("x"), PullError)
