"""``PullClient.notify`` against the emulator's portal."""

from typing import Any

import pytest

from bitrix_pull import AccessToken, PullClient, Webhook
from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.portal import Notification
from bitrix_pull.errors import (
    AccessDenied,
    EmptyAppName,
    InvalidArgument,
    RouteUnavailable,
    TextError,
    UserIdError,
)


def client(emulator: Emulator, user: int = 1) -> PullClient:
    return PullClient(AccessToken(emulator.portal_url, emulator.portal.issue_token(user)))


async def test_a_notification_reaches_the_phones_of_users() -> None:
    async with Emulator() as emulator:
        pull = client(emulator)
        await pull.notify([5, 7, 5], "Новый заказ 🎉")
        await pull.notify(5, "Order 7", avatar="https://acme.example/a.png")
        await pull.close()
        assert emulator.portal.notifications == [
            Notification([5, 7], "Новый заказ 🎉", ""),
            Notification([5], "Order 7", "https://acme.example/a.png"),
        ]


@pytest.mark.parametrize(
    "arguments",
    [
        ([], "text"),
        ("5", "text"),
        ([0], "text"),
        ([True], "text"),
        (None, "text"),
        (5, ""),
        (5, " \n"),
        (5, None),
        (5, b"text"),
        (5, "lone \ud800 surrogate"),
    ],
)
async def test_what_the_portal_would_refuse_is_not_sent(arguments: tuple[Any, Any]) -> None:
    async with Emulator() as emulator:
        pull = client(emulator)
        with pytest.raises(InvalidArgument):
            await pull.notify(*arguments)
        await pull.close()
        assert not emulator.portal.calls


@pytest.mark.parametrize(
    "avatar",
    [
        "",
        "a.png",
        "ftp://acme.example/a.png",
        "javascript:alert(1)",
        "https://",
        "https://[",
        "https://a/\n",
        7,
    ],
)
async def test_an_avatar_is_an_address_on_the_web(avatar: Any) -> None:
    async with Emulator() as emulator:
        pull = client(emulator)
        with pytest.raises(InvalidArgument, match="avatar"):
            await pull.notify(5, "text", avatar=avatar)
        await pull.close()
        assert not emulator.portal.calls


async def test_user_mode_has_no_application_to_notify_in() -> None:
    async with Emulator() as emulator:
        pull = PullClient(Webhook(emulator.webhook_url))
        with pytest.raises(RouteUnavailable, match="access token of an installed application"):
            await pull.notify(1, "text")
        await pull.close()
        assert not emulator.portal.calls


async def test_refusals_say_what_to_do() -> None:
    async with Emulator() as emulator:
        pull, nobody = client(emulator), client(emulator, 2)
        with pytest.raises(AccessDenied, match="administrator"):
            await nobody.notify(2, "text")
        emulator.portal.application_name = ""
        with pytest.raises(EmptyAppName, match="Give the application a name"):
            await pull.notify(1, "text")
        for code, kind in (("TEXT_ERROR", TextError), ("USER_ID_ERROR", UserIdError)):
            emulator.portal.faults.fail_rest(1, 400, f'{{"error": "{code}"}}', "application/json")
            with pytest.raises(kind) as caught:
                await pull.notify(1, "text")
            assert caught.value.advice
            assert not caught.value.retryable
        await pull.close()
        await nobody.close()
