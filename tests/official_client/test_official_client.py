"""The vendor's own JavaScript client in a browser, as a guest on the emulator, and our client beside it.

It is no work of ours, so it sees what our client and our emulator may both get wrong.
"""

import asyncio
import importlib.util
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bitrix_pull import PullClient, PullEvent, Webhook
from bitrix_pull.emulator import Emulator
from tests.browsers import browser
from tests.npm import OFFICIAL_CLIENT, installed

if TYPE_CHECKING or importlib.util.find_spec("playwright"):
    from playwright.async_api import Page
else:
    Page = None

pytestmark = pytest.mark.browser


@asynccontextmanager
async def guest(emulator: Emulator) -> AsyncGenerator[Page]:
    """A page with the official client, connected."""
    modules = await asyncio.to_thread(installed, OFFICIAL_CLIENT)
    app = web.Application()
    app.router.add_get("/", _file(Path(__file__).with_name("page.html")))
    app.router.add_get(
        "/b24jssdk.js", _file(modules / "@bitrix24" / "b24jssdk" / "dist" / "umd" / "index.js")
    )
    async with TestServer(app) as server, browser() as chromium:
        page = await chromium.new_page()
        await page.goto(str(server.make_url("/")))
        await page.evaluate("webhook => begin(webhook)", emulator.webhook_url)
        await page.wait_for_function("() => pull.isConnected()")
        yield page


def _file(path: Path) -> Any:
    async def serve(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(path)

    return serve


async def heard(page: Page, count: int) -> list[dict[str, Any]]:
    """Wait until it has heard so many events."""
    await page.wait_for_function("count => heard.length >= count", arg=count)
    found: list[dict[str, Any]] = await page.evaluate("heard")
    return found


@pytest.mark.parametrize("version", [4, 5])
async def test_it_hears_the_portal_and_our_client_and_ours_hears_it(version: int) -> None:
    async with Emulator(version=version) as emulator:
        pull = PullClient(Webhook(emulator.webhook_url))
        async with pull, pull.subscribe(module="application") as events, guest(emulator) as page:
            # The portal to both.
            emulator.portal.send("deal", {"id": 7, "for": "Юрий"}, module="crm", users=[1], audience="user")
            assert await heard(page, 1) == [
                {"type": "server", "module": "crm", "command": "deal", "params": {"id": 7, "for": "Юрий"}}
            ]
            # Ours to it.
            await pull.publish("ours", {"n": [1, {"a": None}]}, to_self=True)
            (_, ours) = await heard(page, 2)
            assert (ours["type"], ours["command"], ours["params"]) == (
                "client",
                "ours",
                {"n": [1, {"a": None}]},
            )
            assert (await _next(events)).command == "ours"
            # It to ours.
            await page.evaluate("pull.sendMessage([1], 'application', 'theirs', {n: 8, 'для': 'нас'})")
            theirs = await _next(events)
            assert (theirs.command, theirs.params, theirs.kind) == (
                "theirs",
                {"n": 8, "для": "нас"},
                "client",
            )


@pytest.mark.parametrize("version", [4, 5])
async def test_it_catches_up_after_a_cut(version: int) -> None:
    async with Emulator(version=version) as emulator, guest(emulator) as page:
        emulator.portal.send("before", module="crm", users=[1], audience="user")
        await heard(page, 1)
        await emulator.push.disconnect_all(1001)
        emulator.portal.send("meanwhile", module="crm", users=[1], audience="user")
        await page.wait_for_function("() => pull.isConnected()")
        emulator.portal.send("after", module="crm", users=[1], audience="user")
        assert [event["command"] for event in await heard(page, 3)] == ["before", "meanwhile", "after"]


async def _next(events: Any) -> PullEvent[Any]:
    async with asyncio.timeout(30):
        event: PullEvent[Any] = await anext(events)
        return event
