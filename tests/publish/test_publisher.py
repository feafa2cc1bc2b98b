"""Publishing by each route, and what becomes of it (protocol §2 and §7)."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from bitrix_pull import AccessToken, PullClient, Receipt, Webhook
from bitrix_pull.emulator import Emulator
from bitrix_pull.errors import (
    InvalidArgument,
    NotRunning,
    PublishRefused,
    PublishTooLarge,
    RouteUnavailable,
    Unreachable,
    UserAccessError,
    WrongAuthType,
)
from bitrix_pull.publish.publisher import Route

pytestmark = pytest.mark.every_loop


@pytest.fixture
async def emu() -> AsyncIterator[Emulator]:
    async with Emulator() as emulator:
        emulator.push.gather_s = 0.02
        yield emulator


async def received(events: Any, count: int) -> list[Any]:
    async with asyncio.timeout(10):
        return [await anext(events) for _ in range(count)]


@pytest.mark.parametrize(
    ("route", "receipt", "kind"),
    [
        ("auto", Receipt("rest", 1, 1, confirmed=True), "server"),
        ("rest", Receipt("rest", 1, 1, confirmed=True), "server"),
        ("endpoint", Receipt("endpoint", 1, 1, confirmed=True), "client"),
        ("socket", Receipt("socket", 1, 1, confirmed=False), "client"),
    ],
)
async def test_each_route_reaches_oneself(emu: Emulator, route: Route, receipt: Receipt, kind: str) -> None:
    params = {"n": 1, "text": "Привет 😀", "list": [1, None, {"a": 0.5}], "map": {"b": True}}
    async with PullClient(AccessToken(emu.portal_url, emu.token)) as pull, pull.subscribe() as events:
        assert await pull.publish("order", params, users=1, route=route) == receipt
        (event,) = await received(events, 1)
        assert (event.module_id, event.command, event.params) == ("application", "order", params)
        assert event.kind == kind


async def test_the_shared_channel_is_reached_over_rest_only(emu: Emulator) -> None:
    async with PullClient(AccessToken(emu.portal_url, emu.token)) as pull, pull.subscribe() as events:
        await pull.publish("order", {"n": 1}, module="my.module")
        (event,) = await received(events, 1)
        assert (event.module_id, event.params) == ("my.module", {"n": 1})
        for route in ("endpoint", "socket"):
            with pytest.raises(RouteUnavailable, match='route="rest"'):
                await pull.publish("order", route=route)


async def test_it_works_on_a_client_that_is_not_started_but_for_the_socket(emu: Emulator) -> None:
    pull = PullClient(AccessToken(emu.portal_url, emu.token))
    assert (await pull.publish("x")).confirmed
    assert (await pull.publish("x", users=1, route="endpoint")).confirmed
    with pytest.raises(NotRunning):
        await pull.publish("x", users=1, route="socket")
    await pull.close()


async def test_a_single_user_goes_as_text_and_several_as_integers() -> None:
    calls: list[Mapping[str, Any]] = []

    class Portal:
        async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
            assert method == "pull.application.event.add"
            calls.append(params)
            return True

    pull = PullClient(Portal())
    await pull.publish("x", users=7)
    await pull.publish("x", users=[7, 8, 7])
    await pull.publish("x")
    assert [call.get("USER_ID") for call in calls] == ["7", [7, 8], None]
    assert calls[0] == {"COMMAND": "x", "PARAMS": {}, "MODULE_ID": "application", "USER_ID": "7"}
    await pull.close()


async def test_a_webhook_publishes_by_the_endpoint_and_to_users_only(emu: Emulator) -> None:
    async with PullClient(Webhook(emu.webhook_url)) as pull, pull.subscribe("x") as events:
        assert (await pull.publish("x", {"n": 1}, users=[1, 2])).route == "endpoint"
        (event,) = await received(events, 1)
        assert event.kind == "client"
        with pytest.raises(RouteUnavailable, match=r"users=\[…\]"):
            await pull.publish("x")
        with pytest.raises(RouteUnavailable, match='route="endpoint"'):
            await pull.publish("x", users=1, route="rest")


async def test_many_users_are_split_over_messages(emu: Emulator) -> None:
    pull = PullClient(Webhook(emu.webhook_url))
    receipt = await pull.publish("x", users=range(1, 1001))
    assert receipt == Receipt("endpoint", messages=10, requests=1, confirmed=True)
    await pull.close()


async def test_an_application_may_not_ask_for_the_channels_of_others(emu: Emulator) -> None:
    pull = PullClient(AccessToken(emu.portal_url, emu.token))
    with pytest.raises(RouteUnavailable, match='route="rest"'):
        await pull.publish("x", users=[1, 2], route="endpoint")
    await pull.close()


@pytest.mark.parametrize("route", ["endpoint", "socket"])
async def test_what_is_over_a_mebibyte_is_not_sent(emu: Emulator, route: Route) -> None:
    async with PullClient(AccessToken(emu.portal_url, emu.token)) as pull:
        before = emu.push.counters.requests
        with pytest.raises(PublishTooLarge):
            await pull.publish("x", {"text": "x" * 1_048_576}, users=1, route=route)
        assert emu.push.counters.requests == before


async def test_on_version_5_it_is_not_sent_either() -> None:
    async with Emulator(version=5) as emu, PullClient(AccessToken(emu.portal_url, emu.token)) as pull:
        with pytest.raises(PublishTooLarge):
            await pull.publish("x", {"text": "x" * 1_048_576}, users=1, route="socket")
        assert pull.health().connects == 1
        assert (await pull.publish("x", {"text": "x" * 1_000_000}, users=1, route="socket")).confirmed


async def test_a_refusal_of_the_endpoint_names_its_code(emu: Emulator) -> None:
    class Portal:
        """Tells a public channel with a signature that the push server never made."""

        async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
            config = emu.portal.config("application", 1)
            private = config["channels"]["private"]
            private["public_id"] = f"{private['public_id'].partition('.')[0]}.{'00' * 20}"
            return config

    pull = PullClient(Portal())
    with pytest.raises(PublishRefused, match="4021: Channel has an invalid signature") as raised:
        await pull.publish("x", users=1, route="endpoint")
    assert raised.value.code == 4021
    await pull.close()


async def test_what_the_portal_refuses_reaches_the_caller(emu: Emulator) -> None:
    pull = PullClient(AccessToken(emu.portal_url, emu.portal.issue_token(user_id=7)))
    with pytest.raises(UserAccessError, match="administrator"):
        await pull.publish("x", users=[1])
    assert (await pull.publish("x", users=7)).confirmed
    await pull.close()

    webhook = PullClient(Webhook(emu.webhook_url), mode="application")
    with pytest.raises(WrongAuthType, match="installed application"):
        await webhook.publish("x")
    await webhook.close()


async def test_nobody_answers() -> None:
    pull = PullClient(AccessToken("http://127.0.0.1:1", "token-of-nobody"))
    with pytest.raises(Unreachable):
        await pull.publish("x")
    with pytest.raises(InvalidArgument):
        await pull.publish("x y")
    await pull.close()
