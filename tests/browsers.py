"""A real browser for tests that are marked ``browser``. Where there is none they are left out, and the
last lines of the run say so."""

import importlib.util
import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Browser

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Not only what is seen is drawn.
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
)


def _missing() -> str:
    """Return what there is not; "" if there is a browser and what drives it."""
    if not any(map(shutil.which, _NAMES)):
        return "no Chromium here (Debian: apt-get install chromium)"
    if importlib.util.find_spec("playwright") is None:
        return "no playwright here (pip install playwright; it need not download a browser)"
    return ""


@asynccontextmanager
async def browser() -> AsyncGenerator["Browser"]:
    """A browser of one's own, with a profile that nothing has used before."""
    from playwright.async_api import async_playwright

    executable = next(filter(None, map(shutil.which, _NAMES)))
    # Chromium's sandbox does not work for root.
    options = [*_OPTIONS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=executable, args=options)
        try:
            yield started
        finally:
            await started.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what needs a browser where there is none."""
    if reason := _missing():
        for item in items:
            if item.get_closest_marker("browser"):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many were left out, and why."""
    left_out = [
        report for report in terminalreporter.stats.get("skipped", []) if "browser" in report.keywords
    ]
    if left_out and (reason := _missing()):
        terminalreporter.write_line(f"browser: {len(left_out)} tests were left out: {reason}")
