"""The handler's test of the README is run as it stands there."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_readme_shows_a_test_that_passes(pytester: pytest.Pytester) -> None:
    test = re.search(r"<!-- handler-test -->\n```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert test is not None
    # As few as are promised, imports and empty lines left out.
    lines = [line for line in test[1].splitlines() if line and not line.startswith("from ")]
    assert len(lines) <= 10
    heavy = "{'pydantic', 'aiohttp', 'websockets', 'google.protobuf', 'bitrix_pull.client'}"
    # Plugins of pytest may have imported some of it.
    begin, end = (
        "import sys\nbefore = set(sys.modules)\n",
        f"\n    assert not {heavy} & (set(sys.modules) - before)",
    )
    pytester.makepyfile(f"{begin}{test[1]}{end}")
    result = pytester.runpytest_subprocess(
        *("-p", "no:cacheprovider", "-W", "error", "--asyncio-mode=auto"),
        *("-o", "asyncio_default_fixture_loop_scope=function"),
    )
    result.assert_outcomes(passed=1)
