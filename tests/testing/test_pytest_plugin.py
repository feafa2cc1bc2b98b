"""The pytest plugin, in runs of pytest of its own, as users' suites are."""

import re
import textwrap
from collections.abc import Mapping

import pytest

PLUGIN = (
    *("-p", "no:cacheprovider", "-W", "error"),
    *("-o", "asyncio_default_fixture_loop_scope=function"),
)

HEARS = """
    import asyncio
    {mark}

    async def test_it(bitrix_portal, bitrix_account, pull_client):
        heard = asyncio.Queue()
        pull_client.on("order_update")(heard.put_nowait)
        bitrix_portal.portal.send("order_update", {{"id": 7}})
        event = await asyncio.wait_for(heard.get(), 30)
        assert event.params == {{"id": 7}}
        assert {check}
"""

ANYIO = """
    import pytest

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend():
        return "asyncio"
"""

DAY = """
    {mark}

    async def test_it(pull_client, bitrix_portal, bitrix_clock):
        events = pull_client.subscribe("order_update")
        async with events:
            await bitrix_clock.advance(hours=13)
            bitrix_portal.portal.send("order_update", {{"id": 7}})
            await bitrix_clock.advance(seconds=1)
            assert (await anext(events)).params == {{"id": 7}}
        states = [entry.kind for entry in bitrix_portal.journal.entries("subscribed")]
        assert len(states) >= 2  # Its channels have ended, and it listens on new ones.
"""


def wants(mark: str, check: str) -> str:
    """Return a test that hears something of the portal that a mark describes."""
    return HEARS.format(mark=f"import pytest; pytestmark = pytest.mark.bitrix({mark})", check=check)


def run(
    pytester: pytest.Pytester, tests: Mapping[str, str], *arguments: str, **outcomes: int
) -> pytest.RunResult:
    """Run files of tests, by their names, in a process of its own: the start of one takes a second."""
    pytester.makepyfile(**{f"test_{name}": textwrap.dedent(test) for name, test in tests.items()})
    result = pytester.runpytest_subprocess(*PLUGIN, *arguments)
    result.assert_outcomes(**outcomes)
    return result


def test_with_pytest_asyncio_and_with_anyio(pytester: pytest.Pytester) -> None:
    marked = "import pytest; pytestmark = pytest.mark.asyncio"
    tests = {
        "pytest_asyncio": HEARS.format(mark=marked, check="True"),
        "anyio": HEARS.format(mark=ANYIO, check="True"),
        "half_a_day_of_a_portal_takes_no_time": DAY.format(mark=ANYIO),
    }
    run(pytester, tests, "--asyncio-mode=strict", passed=3)


def test_a_mark_says_what_portal_is_wanted(pytester: pytest.Pytester) -> None:
    tests = {
        "unmarked": HEARS.format(mark="", check="bitrix_portal.push.version == 4"),
        "version": wants("version=5", "bitrix_portal.push.version == 5"),
        "mode": wants("mode='shared'", "bitrix_portal.push.mode == 'shared'"),
        "licence": wants("licence='small'", "bitrix_portal.portal.features['rest_offline_extended'] == 'N'"),
        "account": wants("account='oauth'", "type(bitrix_account).__name__ == 'OAuth'"),
        "faults": wants("faults={'delay_s': 0.001}", "bitrix_portal.portal.faults.delay_s == 0.001"),
        "half_a_day_of_a_portal_takes_no_time": DAY.format(mark=""),
    }
    run(pytester, tests, "--asyncio-mode=auto", "--strict-markers", passed=7)


def test_options_say_it_where_no_mark_does_and_each_test_has_a_portal_of_its_own(
    pytester: pytest.Pytester,
) -> None:
    tests = {
        "unmarked": wants("", "bitrix_portal.push.version == 3"),
        "marked": wants("version=4", "bitrix_portal.push.version == 4"),
        "its_own": """
            import pytest

            @pytest.mark.parametrize("n", range(3))
            async def test_it(bitrix_portal, n):
                assert not bitrix_portal.portal.calls
                bitrix_portal.portal.calls["x"] = 1
        """,
    }
    # In a process of pytest-xdist, to which options are passed on.
    run(pytester, tests, "--asyncio-mode=auto", "--strict-markers", "--bitrix-version=3", "-n", "1", passed=5)


def test_without_a_plugin_for_asynchronous_tests_it_says_what_to_do(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("async def test_it(bitrix_portal): pass")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:asyncio")

    result.assert_outcomes(errors=1)
    assert "install pytest-asyncio, or mark the test with @pytest.mark.anyio" in result.stdout.str()


BAD_USE = {
    "sync": ("def test_it(bitrix_portal): pass", "write `async def`"),
    "version": (
        "@pytest.mark.bitrix(version=7)\nasync def test_it(bitrix_portal): pass",
        "none of (2, 3, 4, 5)",
    ),
    "name": (
        "@pytest.mark.bitrix(verison=5)\nasync def test_it(bitrix_portal): pass",
        "none of ['verison']",
    ),
    "fault": (
        "@pytest.mark.bitrix(faults={'x': 1})\nasync def test_it(bitrix_portal): pass",
        "no fault 'x'",
    ),
    "trio": (
        "@pytest.fixture\ndef anyio_backend(): return 'trio'\n"
        "@pytest.mark.anyio\nasync def test_it(bitrix_portal): pass",
        "runs on asyncio",
    ),
}
"""Tests that ask for what cannot be, and what they are told."""


def test_bad_use_says_what_to_do(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    # The last lines say which file was told what, as far as the terminal is wide.
    monkeypatch.setenv("COLUMNS", "1000")
    tests = {name: f"import pytest\n{test}" for name, (test, _) in BAD_USE.items()}
    # In its other mode pytest-asyncio would take the test that is anyio's.
    trio = {"trio": tests.pop("trio")}
    told = run(pytester, tests, "--asyncio-mode=auto", errors=len(tests)).stdout.str()
    told += run(pytester, trio, "--asyncio-mode=strict", "test_trio.py", errors=1).stdout.str()
    for name, (_, says) in BAD_USE.items():
        assert re.search(rf"^ERROR test_{name}\.py::test_it - .*{re.escape(says)}", told, re.MULTILINE), told


def test_a_run_that_does_not_use_it_imports_nothing_for_it(pytester: pytest.Pytester) -> None:
    test = """
        import sys

        def test_it():
            assert "bitrix_pull.testing.pytest_plugin" in sys.modules
            late = {"bitrix_pull.client", "bitrix_pull.emulator", "aiohttp", "pydantic", "websockets"}
            assert not late & sys.modules.keys()
    """
    pytester.makepyfile(textwrap.dedent(test))
    # From Python 3.12 on pytest-asyncio itself is warned about what it asks asyncio for.
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:asyncio", "-W", "error")
    result.assert_outcomes(passed=1)
