"""Who gets a message by which route, and what is said where a route cannot serve (protocol §2, §3, §7)."""

from typing import Any

import pytest

from bitrix_pull import AccessToken, Message, PublicChannel, PullClient, PullOptions, Webhook
from bitrix_pull.emulator import Emulator
from bitrix_pull.errors import NoChannel, NotRunning, RouteUnavailable
from bitrix_pull.publish.publisher import Route
from tests.publish.conftest import AlteredPortal, channel_of, client, next_numbers

ROUTES: list[tuple[Route, int]] = [("rest", 4), ("endpoint", 4), ("socket", 4), ("socket", 5)]


@pytest.mark.parametrize(("route", "version"), ROUTES)
async def test_all_who_are_named_get_it_once(route: Route, version: int) -> None:
    async with Emulator(version=version) as emu:
        emu.portal.application_scope.add("pull_channel")
        second = PullClient(AccessToken(emu.portal_url, emu.portal.issue_token(user_id=2)))
        third = PullClient(AccessToken(emu.portal_url, emu.portal.issue_token(user_id=3)))
        channels: list[str | PublicChannel] | None = None
        if route != "rest":
            channels = [channel_of(emu, 3), channel_of(emu, 1).text]
        async with (
            client(emu) as pull,
            second,
            third,
            pull.subscribe() as mine,
            second.subscribe() as seconds,
            third.subscribe() as thirds,
        ):
            await pull.publish("x", {"n": 1}, users=[2, 1], channels=channels, to_self=True, route=route)
            await pull.publish("x", {"n": 2}, users=[1, 2, 3], route=route)
            assert await next_numbers(mine, 2) == [1, 2]
            assert await next_numbers(seconds, 2) == [1, 2]
            assert await next_numbers(thirds, 1) == ([2] if route == "rest" else [1])


@pytest.mark.parametrize(("route", "version"), ROUTES)
async def test_to_self_needs_no_scope_and_no_id(route: Route, version: int) -> None:
    async with Emulator(version=version) as emu:
        auth = AccessToken(emu.portal_url, emu.portal.issue_token(user_id=7))
        async with PullClient(auth) as pull, pull.subscribe() as events:
            await pull.publish("x", {"n": 1}, to_self=True, route=route)
            assert await next_numbers(events, 1) == [1]
            assert not emu.portal.calls["pull.channel.public.list"]


async def test_to_self_on_a_shared_server_that_does_not_tell_who_one_is() -> None:
    async with Emulator(mode="shared") as emu, client(emu) as pull, pull.subscribe() as events:
        with pytest.raises(RouteUnavailable, match=r"users=\[your id\]"):
            await pull.publish("x", {"n": 1}, to_self=True, route="rest")
        for n, route in enumerate(("endpoint", "socket")):
            await pull.publish("x", {"n": n}, to_self=True, route=route)  # type: ignore[arg-type]
        assert await next_numbers(events, 2) == [0, 1]


async def test_over_rest_oneself_is_addressed_by_id(emu: Emulator) -> None:
    portal = AlteredPortal(emu)
    pull = PullClient(portal)
    await pull.publish("x", to_self=True)
    await pull.publish("x", to_self=True, users=[1])
    await pull.publish("x", to_self=True, users=[5])
    assert [call.get("USER_ID") for _, call in portal.calls] == ["1", "1", [5, 1]]
    await pull.close()


async def test_rest_cannot_address_channels(emu: Emulator) -> None:
    async with client(emu) as pull, pull.subscribe() as events:
        with pytest.raises(RouteUnavailable, match='route="endpoint"'):
            await pull.publish("x", channels=channel_of(emu, 1), route="rest")
        many = [Message("x", channels=channel_of(emu, 1)), Message("x", {"n": 0})]
        receipt = await pull.publish_many(many, route="rest")
        assert [fate.outcome for fate in receipt.fates] == ["refused", "accepted"]
        assert await next_numbers(events, 1) == [0]
        receipt = await pull.publish("x", {"n": 1}, channels=channel_of(emu, 1))
        assert receipt.route == "endpoint"
        assert await next_numbers(events, 1) == [1]


async def test_what_auto_takes(emu: Emulator) -> None:
    async with Emulator(version=5) as five, client(five) as pull:
        assert (await pull.publish("x", users=1)).route == "rest"
        assert (await pull.publish("x", channels=channel_of(five, 1))).route == "socket"
    async with client(emu, user=True) as pull:
        assert (await pull.publish("x", users=1)).route == "endpoint"


async def test_a_user_whom_the_portal_does_not_know(emu: Emulator) -> None:
    class Portal(AlteredPortal):
        async def call(self, method: str, params: Any, /) -> Any:
            answer = await super().call(method, params)
            return [] if method == "pull.channel.public.list" else answer

    pull = PullClient(Portal(emu))
    messages = [Message("x", users=[1, 77]), Message("x", users=1), Message("x", users=77)]
    receipt = await pull.publish_many(2 * messages, route="endpoint")
    assert [(fate.outcome, fate.missed) for fate in receipt.fates] == 2 * [
        ("refused", (77,)),
        ("accepted", ()),
        ("refused", (77,)),
    ]
    with pytest.raises(NoChannel, match=r"x to user 77 was not sent.*Inactive"):
        receipt.raise_for_failures()
    await pull.close()


@pytest.mark.parametrize(("route", "user"), [("endpoint", False), ("socket", False), ("endpoint", True)])
async def test_an_inactive_user_among_others_fails_alone(emu: Emulator, route: Route, user: bool) -> None:
    emu.portal.inactive.add(999)
    async with client(emu, user=user) as pull, pull.subscribe() as events:
        messages = [Message("x", {"n": 1}, users=[999, 1]), Message("x", {"n": 2}, users=1)]
        receipt = await pull.publish_many(messages, route=route)
        assert [(fate.outcome, fate.missed) for fate in receipt.fates] == [
            ("refused", (999,)),
            ("accepted", ()),
        ]
        assert isinstance(receipt.fates[0].error, NoChannel)
        assert await next_numbers(events, 2) == [1, 2]


# -- routes that cannot serve --------------------------------------------------------------

UNAVAILABLE: list[tuple[dict[str, Any], Route, str]] = [
    ({"server": {"version": 3}}, "endpoint", "version 3"),
    ({"server": {"version": 5}}, "endpoint", "version 5"),
    ({"server": {"publish_enabled": False}}, "endpoint", "publish_enabled"),
    ({"server": {"publish_enabled": "N"}}, "endpoint", "publish_enabled"),
    ({"server": {"publish": "", "publish_secure": ""}}, "endpoint", "names no publish endpoint"),
    ({"server": {"publish_enabled": False}}, "socket", "publish_enabled"),
]


@pytest.mark.parametrize(("altered", "route", "why"), UNAVAILABLE)
@pytest.mark.parametrize("mode", ["application", "user"])
async def test_a_route_that_is_switched_off_names_one_that_works(
    emu: Emulator, altered: dict[str, Any], route: Route, why: str, mode: Any
) -> None:
    portal = AlteredPortal(emu, **altered)
    pull = PullClient(portal, mode=mode)
    if route == "socket":
        await pull.__aenter__()
    with pytest.raises(RouteUnavailable, match=why) as raised:
        await pull.publish("x", users=1, route=route)
    if mode == "application":
        assert 'route="rest"' in str(raised.value)
        assert (await pull.publish("x", users=1)).route == "rest"
    else:
        assert 'route="rest"' not in str(raised.value)
        works = "socket" if portal.altered["server"].keys() & {"publish"} or why == "version 5" else None
        assert ('route="socket"' in str(raised.value)) == (works == "socket")
    await pull.close()


@pytest.mark.parametrize(
    ("version", "advice"), [(3, "nothing else works"), (4, 'route="endpoint"'), (5, 'route="socket"')]
)
async def test_where_rest_cannot_serve_the_way_that_works_is_named(version: int, advice: str) -> None:
    async with Emulator(version=version) as emu:
        webhook = PullClient(Webhook(emu.webhook_url))
        with pytest.raises(RouteUnavailable, match=f"webhook.*{advice}"):
            await webhook.publish("x", users=1, route="rest")
        await webhook.close()
        application = PullClient(AccessToken(emu.portal_url, emu.token))
        with pytest.raises(RouteUnavailable, match=f"channels.*{advice}"):
            await application.publish("x", channels="0" * 32, route="rest")
        await application.close()


async def test_a_publisher_without_a_public_channel(emu: Emulator) -> None:
    channels = {"private": {"id": "0" * 32}, "shared": {"id": "1" * 32}}
    pull = PullClient(AlteredPortal(emu, channels=channels))
    with pytest.raises(RouteUnavailable, match=r'no public channel.*route="rest"'):
        await pull.publish("x", users=1, route="endpoint")
    await pull.close()


async def test_text_mode_takes_no_messages_over_the_socket(emu: Emulator) -> None:
    async with client(emu, protobuf=False) as pull:
        with pytest.raises(RouteUnavailable, match=r'protobuf.*route="rest"'):
            await pull.publish("x", users=1, route="socket")
    async with client(emu, user=True, protobuf=False) as pull:
        with pytest.raises(RouteUnavailable, match=r'protobuf.*route="endpoint"'):
            await pull.publish("x", users=1, route="socket")


async def test_long_polling_cannot_send(emu: Emulator) -> None:
    async with client(emu, transport="long_polling") as pull:
        with pytest.raises(RouteUnavailable, match='route="endpoint"'):
            await pull.publish("x", users=1, route="socket")


async def test_a_missing_scope_is_explained_once_and_not_asked_for_again(emu: Emulator) -> None:
    emu.portal.application_scope.remove("pull_channel")
    async with client(emu) as pull, pull.subscribe() as events:
        for _ in range(3):
            with pytest.raises(RouteUnavailable, match=r"pull\.application\.event\.add"):
                await pull.publish("x", users=[1, 2], route="endpoint")
        assert emu.portal.calls["pull.channel.public.list"] == 1
        # Oneself is known from the configuration.
        messages = [
            Message("x", {"n": 1}, users=1),
            Message("x", users=2),
            Message("x", {"n": 2}, to_self=True),
        ]
        receipt = await pull.publish_many(messages, route="endpoint")
        assert [fate.outcome for fate in receipt.fates] == ["accepted", "refused", "accepted"]
        assert await next_numbers(events, 2) == [1, 2]


async def test_the_socket_needs_a_client_that_is_started(emu: Emulator) -> None:
    pull = PullClient(Webhook(emu.webhook_url), options=PullOptions())
    with pytest.raises(NotRunning):
        await pull.publish("x", users=1, route="socket")
    await pull.close()
