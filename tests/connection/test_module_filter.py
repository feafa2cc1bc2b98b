"""Events of a portal's modules on an application's stream: told of once, left out if wanted (protocol §1)."""

import logging
from typing import Any

import pytest

from bitrix_pull import AccessToken, PullClient, PullOptions, Webhook
from bitrix_pull.emulator import Emulator
from bitrix_pull.errors import InvalidArgument


def client(emu: Emulator, *, user: bool = False, **arguments: Any) -> PullClient:
    return PullClient(
        Webhook(emu.webhook_url) if user else AccessToken(emu.portal_url, emu.token), **arguments
    )


async def modules(events: Any, count: int) -> list[str]:
    return [(await anext(events)).module_id for _ in range(count)]


def send_all(emu: Emulator) -> set[str]:
    """Send what the user hears of the portal, and return its mids; then an event of the application."""
    sent = {
        emu.portal.send("message", module=module, users=[1], audience="user")
        for module in ("im", "tasks", "im")
    }
    emu.portal.send("order_update", users=[1])
    return sent


async def test_portal_events_of_an_application_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bitrix_pull")
    async with Emulator(version=5) as emu, client(emu) as pull, pull.subscribe() as events:
        send_all(emu)
        assert await modules(events, 4) == ["im", "tasks", "im", "application"]
        assert pull.health().ignored == 0
    (told,) = [record for record in caplog.records if "ignore_modules" in record.getMessage()]
    assert (told.levelname, told.name) == ("INFO", "bitrix_pull.connection")
    assert "module im " in told.getMessage()


@pytest.mark.parametrize(("version", "user"), [(5, True), (4, False)])
async def test_where_they_are_expected_or_the_applications_own_nothing_is_told(
    version: int, user: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bitrix_pull")
    audience: Any = "user" if user else "application"
    async with Emulator(version=version) as emu, client(emu, user=user) as pull, pull.subscribe() as events:
        emu.portal.send("message", module="im", users=[1], audience=audience)
        assert await modules(events, 1) == ["im"]
    assert "ignore_modules" not in caplog.text


async def test_ignored_modules_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bitrix_pull")
    options = PullOptions(ignore_modules={"im", "tasks"})
    async with Emulator(version=5) as emu:
        async with client(emu, options=options) as pull, pull.subscribe() as events:
            sent = send_all(emu)
            assert await modules(events, 1) == ["application"]
            assert (pull.health().ignored, pull.health().received) == (3, 1)
        # They are dealt with as much as what was handled.
        assert sent <= emu.push.acknowledged.keys()
    assert "ignore_modules" not in caplog.text


@pytest.mark.parametrize("modules", [["pull"], ["online"], ["rest"], ["IM"], [""], ["a b"], "im", [7], None])
def test_what_can_be_no_module_to_ignore_is_refused(modules: Any) -> None:
    with pytest.raises(InvalidArgument, match="ignore_modules"):
        PullOptions(ignore_modules=modules)
