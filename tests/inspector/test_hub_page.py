"""The page beside hubs in a real browser."""

import importlib.util
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from bitrix_pull.inspector.hub import HubInspector
from tests.browsers import browser
from tests.hub.engine import Server, running
from tests.inspector.hubs import Hubs, hubs_beside
from tests.inspector.test_page import NAMELESS, NARROW, ROWS, WIDE, count_of_rows, names

if TYPE_CHECKING or importlib.util.find_spec("playwright"):
    from playwright.async_api import Browser, Page, expect
else:
    Browser = Page = expect = None

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def chromium() -> AsyncGenerator[Browser]:
    expect.set_options(timeout=30_000)
    async with browser() as chromium:
        yield chromium


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@asynccontextmanager
async def page_of(chromium: Browser, inspector: HubInspector, size: dict[str, int]) -> AsyncGenerator[Page]:
    """The page. Whatever goes wrong in it fails the test; what it loads is its own."""
    wrong: list[str] = []
    own = inspector.url.partition("?")[0]

    def loading(url: str) -> None:
        if not url.startswith((own, "data:")):
            wrong.append(url)

    context = await chromium.new_context(viewport={"width": size["width"], "height": size["height"]})
    page = await context.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: loading(request.url))
    await page.goto(inspector.url)
    yield page
    await context.close()
    assert wrong == []


@asynccontextmanager
async def busy_page(
    chromium: Browser, url: str, name: str, size: dict[str, int] = WIDE
) -> AsyncGenerator[tuple[Page, Hubs]]:
    async with (
        hubs_beside(url, name, "one", broken="gamma") as hubs,
        page_of(chromium, hubs.inspector, size) as page,
    ):
        await expect(page.locator("#state-name")).to_have_text("Engine answers")
        yield page, hubs


async def test_events_of_all_portals_and_a_filter_by_portal(
    chromium: Browser, valkey_url: str, name: str
) -> None:
    async with busy_page(chromium, valkey_url, name) as (page, hubs):
        assert "key" not in page.url
        assert await page.locator("#nothing").is_visible()
        hubs.send("acme", "order_update", {"id": 1, "html": "<b>bold</b>"})
        await count_of_rows(page, 1)
        hubs.send("beta", "order_new", {"id": 2}, module="im")
        await count_of_rows(page, 2)
        assert await names(page) == ["im.order_new", "application.order_update"]
        assert await page.locator(f"{ROWS} .portal").all_text_contents() == ["beta", "acme"]
        await page.fill("#by-portal", "AC")
        await count_of_rows(page, 1)
        await page.click(ROWS)
        assert await page.text_content("#event-name") == "application.order_update"
        assert "acme" in (await page.text_content("#event-facts") or "")
        assert '"<b>bold</b>"' in (await page.text_content("#params") or "")


async def test_workers_portals_readers_and_notices(chromium: Browser, valkey_url: str, name: str) -> None:
    async with busy_page(chromium, valkey_url, name) as (page, _):
        await expect(page.locator("#workers h3")).to_have_text("one")
        await expect(page.locator("#f-failed")).to_have_text("1")
        await expect(page.locator("#f-live")).to_have_text("2")
        await page.click("#tab-portals")
        await expect(page.locator("#found tbody tr")).to_have_count(3)
        # What has failed stands first, with its reason.
        assert "NO_AUTH_FOUND" in (await page.locator("#found tr.wrong").text_content() or "")
        await page.check("[name=wrong]")
        await expect(page.locator("#found tbody tr")).to_have_count(1)
        await page.click("#tab-readers")
        await expect(page.locator("#readers")).to_have_text("Nobody reads the log as a group.")
        await page.click("#tab-notices")
        await expect(page.locator("#notices [data-level=bad]")).to_contain_text("gamma has failed")


async def test_publishing_through_the_hub(chromium: Browser, valkey_url: str, name: str) -> None:
    async with busy_page(chromium, valkey_url, name) as (page, _):
        await page.click("#tab-publish")
        await page.fill("#publish [name=portal]", "acme")
        await page.click("#publish .main")
        await page.wait_for_selector("#outcomes li.good:has-text('acme order_update: Accepted by REST')")
        await count_of_rows(page, 1)
        await page.fill("#publish [name=params]", "{nope")
        await page.click("#publish .main")
        await page.wait_for_selector("#outcomes li.bad:has-text('no JSON')")


async def test_it_is_used_by_keyboard(chromium: Browser, valkey_url: str, name: str) -> None:
    async with busy_page(chromium, valkey_url, name) as (page, hubs):
        for number in range(2):
            hubs.send("acme", f"event_{number}")
            await count_of_rows(page, number + 1)
        await page.focus("#by-text")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.id") == "grid"
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("ArrowDown")
        assert await page.text_content("#event-name") == "application.event_0"
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "panel-event"
        await page.focus("#tab-event")
        await page.keyboard.press("ArrowRight")
        assert await page.evaluate("document.activeElement.id") == "tab-workers"
        assert await page.locator("#panel-workers").is_visible()


async def test_an_engine_that_goes_away_is_seen_and_said(chromium: Browser, server: Server) -> None:
    async with HubInspector(server.url) as inspector, page_of(chromium, inspector, WIDE) as page:
        await expect(page.locator("#state-name")).to_have_text("Engine answers")
        await expect(page.locator("#plot")).to_have_attribute("aria-label", re.compile("^The last"))
        server.kill()
        await expect(page.locator("#state-name")).to_have_text("Engine is away")
        await expect(page.locator("#trouble")).to_contain_text("What stands below is what was known last.")
        await expect(page.locator("#announcer")).to_contain_text("does not answer")
        server.start()
        await expect(page.locator("#state-name")).to_have_text("Engine answers")
        assert await page.locator("#trouble").is_hidden()
        await page.wait_for_selector("#plot .mark.again", state="attached")


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["1280", "400"])
async def test_it_fits_its_window_and_everything_has_a_name(
    chromium: Browser, valkey_url: str, name: str, size: dict[str, int]
) -> None:
    async with busy_page(chromium, valkey_url, name, size) as (page, hubs):
        hubs.send(
            "acme",
            "a_command_with_a_name_that_is_as_long_as_commands_are_in_the_wild",
            {"text": "x" * 500},
        )
        await count_of_rows(page, 1)
        await page.click(ROWS)
        for tab in await page.locator("[role=tab]").all():
            await tab.click()
            width = await page.evaluate("document.documentElement.scrollWidth")
            assert width <= size["width"], await tab.text_content()
        assert await page.evaluate(NAMELESS) == []
