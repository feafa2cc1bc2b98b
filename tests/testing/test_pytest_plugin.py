"""The pytest plugin, in runs of pytest of its own, as users' suites are."""

import textwrap

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


def run(pytester: pytest.Pytester, test: str, *arguments: str, **outcomes: int) -> None:
    """Run a file of tests in a process of its own."""
    pytester.makepyfile(textwrap.dedent(test))
    pytester.runpytest_subprocess(*PLUGIN, *arguments).assert_outcomes(**outcomes)


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_with_pytest_asyncio(pytester: pytest.Pytester, mode: str) -> None:
    mark = "import pytest; pytestmark = pytest.mark.asyncio" if mode == "strict" else ""
    run(pytester, HEARS.format(mark=mark, check="True"), f"--asyncio-mode={mode}", passed=1)


def test_with_anyio(pytester: pytest.Pytester) -> None:
    run(pytester, HEARS.format(mark=ANYIO, check="True"), passed=1)


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


@pytest.mark.parametrize("mark", ["", ANYIO])
def test_half_a_day_of_a_portal_takes_no_time(pytester: pytest.Pytester, mark: str) -> None:
    mode = "strict" if mark else "auto"
    run(pytester, DAY.format(mark=mark), f"--asyncio-mode={mode}", passed=1)


def test_without_a_plugin_for_asynchronous_tests_it_says_what_to_do(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("async def test_it(bitrix_portal): pass")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:asyncio")

    result.assert_outcomes(errors=1)
    assert "install pytest-asyncio, or mark the test with @pytest.mark.anyio" in result.stdout.str()


@pytest.mark.parametrize(
    ("mark", "options", "check"),
    [
        ("version=5", (), "bitrix_portal.push.version == 5"),
        ("", ("--bitrix-version=3",), "bitrix_portal.push.version == 3"),
        ("version=4", ("--bitrix-version=3",), "bitrix_portal.push.version == 4"),
        ("mode='shared'", (), "bitrix_portal.push.mode == 'shared'"),
        ("licence='small'", (), "bitrix_portal.portal.features['rest_offline_extended'] == 'N'"),
        ("account='oauth'", (), "type(bitrix_account).__name__ == 'OAuth'"),
        ("faults={'delay_s': 0.001}", (), "bitrix_portal.portal.faults.delay_s == 0.001"),
    ],
)
def test_a_mark_and_options_say_what_portal_is_wanted(
    pytester: pytest.Pytester, mark: str, options: tuple[str, ...], check: str
) -> None:
    test = HEARS.format(mark=f"import pytest; pytestmark = pytest.mark.bitrix({mark})", check=check)
    run(pytester, test, "--asyncio-mode=auto", "--strict-markers", *options, passed=1)


@pytest.mark.parametrize(
    ("test", "says"),
    [
        ("def test_it(bitrix_portal): pass", "write `async def`"),
        ("@pytest.mark.bitrix(version=7)\nasync def test_it(bitrix_portal): pass", "none of (2, 3, 4, 5)"),
        ("@pytest.mark.bitrix(verison=5)\nasync def test_it(bitrix_portal): pass", "none of ['verison']"),
        ("@pytest.mark.bitrix(faults={'x': 1})\nasync def test_it(bitrix_portal): pass", "no fault 'x'"),
        ("@pytest.mark.anyio\nasync def test_it(bitrix_portal): pass", "runs on asyncio"),
    ],
)
def test_bad_use_says_what_to_do(pytester: pytest.Pytester, test: str, says: str) -> None:
    mode = "strict" if "anyio" in test else "auto"
    backend = "\n@pytest.fixture\ndef anyio_backend(): return 'trio'\n" if "anyio" in test else ""
    pytester.makepyfile(f"import pytest\n{backend}{test}")
    result = pytester.runpytest_subprocess(*PLUGIN, f"--asyncio-mode={mode}")

    assert result.ret != 0
    assert says in result.stdout.str()


def test_each_test_has_a_portal_of_its_own(pytester: pytest.Pytester) -> None:
    test = """
        import pytest

        @pytest.mark.parametrize("n", range(3))
        async def test_it(bitrix_portal, n):
            assert not bitrix_portal.portal.calls
            bitrix_portal.portal.calls["x"] = 1
    """
    run(pytester, test, "--asyncio-mode=auto", "-n", "2", passed=3)


def test_a_run_that_does_not_use_it_imports_nothing_for_it(pytester: pytest.Pytester) -> None:
    test = """
        import sys

        def test_it():
            assert "bitrix_pull.testing.pytest_plugin" in sys.modules
            late = {"bitrix_pull.client", "bitrix_pull.emulator", "aiohttp", "pydantic", "websockets"}
            assert not late & sys.modules.keys()
    """
    run(pytester, test, passed=1)
