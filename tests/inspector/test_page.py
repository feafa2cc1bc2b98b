"""The page in a real browser."""

import asyncio
import importlib.util
import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from bitrix_pull import AccessToken, PullClient
from bitrix_pull.emulator import Emulator
from bitrix_pull.inspector import Inspector
from tests.browsers import browser

if TYPE_CHECKING or importlib.util.find_spec("playwright"):
    from playwright.async_api import Browser, Page, expect
else:
    Browser = Page = expect = None

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

WIDE = {"width": 1280, "height": 800}
NARROW = {"width": 400, "height": 800}

ROWS = "#rows [role=row]"

NAMELESS = """() =>
    [...document.querySelectorAll("button, input, select, textarea, [role=tab], [role=grid], [role=img]")]
        .filter((each) => !(each.ariaLabel || each.textContent.trim()))
        .filter((each) => !each.labels?.[0]?.textContent.trim())
        .map((each) => each.outerHTML)"""
"""What a screen reader could not name."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def chromium() -> AsyncGenerator[Browser]:
    expect.set_options(timeout=30_000)
    async with browser() as chromium:
        yield chromium


@asynccontextmanager
async def page_of(chromium: Browser, size: dict[str, int] = WIDE) -> AsyncGenerator[tuple[Page, Emulator]]:
    """The page over a live client. Whatever goes wrong in it fails the test; what it loads is its own."""
    wrong: list[str] = []

    def loading(url: str) -> None:
        if not url.startswith((own, "data:")):
            wrong.append(url)

    async with Emulator() as emulator:
        emulator.push.gather_s = 0.02
        emulator.portal.application_scope.add("pull_channel")
        pull = PullClient(AccessToken(emulator.portal_url, emulator.token), name="acme.bitrix24.com")
        async with Inspector(pull) as inspector, pull:
            context = await chromium.new_context(
                viewport={"width": size["width"], "height": size["height"]},
                permissions=["clipboard-read", "clipboard-write"],
            )
            page = await context.new_page()
            own = inspector.url.partition("?")[0]
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("request", lambda request: loading(request.url))
            await page.goto(inspector.url)
            await expect(page.locator("#state-name")).to_have_text("Live")
            yield page, emulator
            await context.close()
    assert wrong == []


async def count_of_rows(page: Page, count: int) -> None:
    """Wait until the table tells so many events."""
    await expect(page.locator("#grid")).to_have_attribute("aria-rowcount", str(count + 1))


def send(emulator: Emulator, count: int, **params: Any) -> None:
    for number in range(count):
        emulator.portal.send("order_update", {"id": number, **params})


async def names(page: Page) -> list[str]:
    return [text.strip() for text in await page.locator(f"{ROWS} .name").all_text_contents()]


async def test_events_come_newest_first_and_the_key_leaves_the_address(chromium: Browser) -> None:
    async with page_of(chromium) as (page, emulator):
        assert "key" not in page.url
        assert await page.locator("#nothing").is_visible()
        emulator.portal.send("first", {"id": 1})
        emulator.portal.send("second", {"id": 2}, module="im")
        await count_of_rows(page, 2)
        assert await names(page) == ["im.second", "application.first"]
        assert await page.locator("#portal").text_content() == "acme.bitrix24.com"
        # The cookie opens the page from now on.
        await page.reload()
        await count_of_rows(page, 2)


async def test_a_pause_holds_what_comes_and_a_filter_leaves_out(chromium: Browser) -> None:
    async with page_of(chromium) as (page, emulator):
        emulator.portal.send("order_update", {"for": "Юрий"})
        emulator.portal.send("deal_update", {"for": "Ada"}, module="crm")
        await count_of_rows(page, 2)
        await page.click("#pause")
        emulator.portal.send("order_new", {"for": "Юрий"})
        await expect(page.locator("#count")).to_contain_text("1 held")
        await count_of_rows(page, 2)
        await page.fill("#by-text", "юрий")
        await count_of_rows(page, 1)
        await page.click("#pause")
        await count_of_rows(page, 2)
        await page.fill("#by-command", "NEW")
        await count_of_rows(page, 1)
        assert await names(page) == ["application.order_new"]
        await page.fill("#by-command", "")
        await page.fill("#by-text", "")
        await page.select_option("#by-module", "crm")
        await count_of_rows(page, 1)
        assert await names(page) == ["crm.deal_update"]


async def test_only_rows_that_can_be_seen_exist_and_what_is_read_stays_where_it_is(
    chromium: Browser,
) -> None:
    async with page_of(chromium) as (page, emulator):
        send(emulator, 300)
        await count_of_rows(page, 300)
        assert await page.locator(ROWS).count() < 40
        await page.evaluate("document.querySelector('#grid').scrollTop = 3000")
        row = page.locator(ROWS, has_text='{"id":190}')
        before = await row.bounding_box()
        send(emulator, 50, more=True)
        await count_of_rows(page, 350)
        await page.evaluate("new Promise(requestAnimationFrame)")
        assert await row.bounding_box() == before


async def test_it_is_used_by_keyboard(chromium: Browser) -> None:
    async with page_of(chromium) as (page, emulator):
        for number in range(3):
            emulator.portal.send(
                f"event_{number}", {"id": number, "inside": {"deep": {"deeper": 12345678901234567890}}}
            )
        await count_of_rows(page, 3)
        await page.focus("#by-text")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.id") == "pause"
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.id") == "grid"
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("ArrowDown")
        chosen = page.locator(f"{ROWS}[aria-selected=true]")
        assert await chosen.get_attribute("id") == await page.get_attribute("#grid", "aria-activedescendant")
        assert await page.text_content("#event-name") == "application.event_1"
        await page.keyboard.press("End")
        assert await page.text_content("#event-name") == "application.event_0"
        await page.keyboard.press(" ")
        assert await page.get_attribute("#pause", "aria-pressed") == "true"
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "panel-event"
        # What is nested is a disclosure, opened by key too; numbers keep all their digits.
        await page.focus("#params details details details summary")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("text=12345678901234567890")
        await page.focus("#tab-event")
        await page.keyboard.press("ArrowRight")
        assert await page.evaluate("document.activeElement.id") == "tab-notices"
        assert await page.locator("#panel-notices").is_visible()


async def test_an_event_is_copied_as_a_test(chromium: Browser) -> None:
    async with page_of(chromium) as (page, emulator):
        emulator.portal.send("order_update", {"id": 7, "token": "not for anybody"})
        await count_of_rows(page, 1)
        await page.click(ROWS)
        await page.click("#copy-test")
        await page.wait_for_selector("#copied:has-text('Copied')")
        copied: str = await page.evaluate("navigator.clipboard.readText()")
        assert 'client.deliver("order_update", {"id": 7, "token": "***"})' in copied
        assert "not for anybody" not in await page.content()


async def test_publishing_tells_the_outcome_and_the_event_comes(chromium: Browser) -> None:
    async with page_of(chromium) as (page, _):
        await page.click("#tab-publish")
        await page.fill("[name=params]", '{"text": "<b>bold</b>"}')
        await page.click("#publish .main")
        await page.wait_for_selector("#outcomes li.good:has-text('Accepted by REST')")
        await count_of_rows(page, 1)
        await page.click(ROWS)
        assert '"<b>bold</b>"' in (await page.text_content("#params") or "")
        await page.click("#tab-publish")
        await page.fill("[name=params]", "{nope")
        await page.click("#publish .main")
        await page.wait_for_selector("#outcomes li.bad:has-text('no JSON')")


async def test_presence_queue_and_doctor(chromium: Browser) -> None:
    async with page_of(chromium) as (page, _):
        await page.click("#tab-presence")
        await page.click("#presence .main")
        await page.wait_for_selector("#presence-answer tr:has-text('online')")
        await page.click("#tab-queue")
        await page.wait_for_selector("#queue-answer:has-text('nothing: the portal queues no events')")
        await page.click("#tab-doctor")
        await page.click("#doctor .main")
        await page.wait_for_selector(".verdict:has-text('All is well.')")


async def test_an_outage_and_a_gap_are_seen_and_said(chromium: Browser) -> None:
    async with page_of(chromium) as (page, emulator):
        send(emulator, 3)
        await count_of_rows(page, 3)
        # Until what happens is news, and no longer what the page began with.
        await expect(page.locator("#plot")).to_have_attribute("aria-label", re.compile("^The last"))
        await emulator.stop()
        await page.wait_for_selector("#state[data-look=warn]:has-text('Not connected')")
        await page.wait_for_selector("#trouble:has-text('Next attempt in')")
        await page.wait_for_selector("#announcer:has-text('Not connected')", state="attached")
        await emulator.start(keep_history=False)
        await page.wait_for_selector("#state[data-look=good]:has-text('Live')")
        await page.wait_for_selector("#f-gaps:has-text('1')")
        await page.wait_for_selector("#plot .mark.gap", state="attached")
        await page.wait_for_selector("#plot .mark.again", state="attached")
        assert await page.locator("#trouble").is_hidden()
        await page.click("#tab-notices")
        assert "events may be lost" in (await page.text_content("#notices") or "")


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["1280", "400"])
async def test_it_fits_its_window_and_everything_has_a_name(chromium: Browser, size: dict[str, int]) -> None:
    async with page_of(chromium, size) as (page, emulator):
        emulator.portal.send(
            "a_command_with_a_name_that_is_as_long_as_commands_are_in_the_wild", {"text": "x" * 500}
        )
        await count_of_rows(page, 1)
        await page.click(ROWS)
        for tab in await page.locator("[role=tab]").all():
            await tab.click()
            width = await page.evaluate("document.documentElement.scrollWidth")
            assert width <= size["width"], await tab.text_content()
        nameless = await page.evaluate(NAMELESS)
        assert nameless == []


async def test_a_page_whose_inspector_has_stopped_says_so(chromium: Browser) -> None:
    async with Emulator() as emulator:
        pull = PullClient(AccessToken(emulator.portal_url, emulator.token))
        async with Inspector(pull) as inspector, pull:
            page = await chromium.new_page()
            await page.goto(inspector.url)
            await expect(page.locator("#state-name")).to_have_text("Live")
        await expect(page.locator("#state-name")).to_have_text("No contact with the inspector")
        await page.close()


async def test_a_page_takes_a_flood_in_bounded_memory(chromium: Browser) -> None:
    """The page's part of ``python -m tests.soak inspector``, in small."""
    async with page_of(chromium) as (page, emulator):
        for _ in range(12):
            send(emulator, 500)
            await asyncio.sleep(0.05)
        await expect(page.locator("#f-received")).to_have_text("6,000")
        await expect(page.locator("#count")).to_have_text("5,000")
        await count_of_rows(page, 5_000)
        newest = page.locator(ROWS).first
        assert json.loads(await newest.locator(".params").text_content() or "") == {"id": 499}
        assert await page.locator(ROWS).count() < 40
