"""Params arrive as they were given, by every route (protocol §2, §5 and §7)."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bitrix_pull import AccessToken, PullClient, Subscription
from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.php import as_php_writes
from bitrix_pull.publish.publisher import Route
from tests.laws import examples

TEXT = st.text(st.characters(codec="utf-8"), max_size=10)
INTEGERS = st.integers() | st.sampled_from([2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**40 + 1])
SCALARS = st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
PARAMS = st.dictionaries(TEXT, VALUES, max_size=5)


@dataclass(slots=True)
class Line:
    """A client that publishes to itself by one route, and what it hears."""

    runner: asyncio.Runner
    pull: PullClient
    events: Subscription[Any]
    route: Route

    def pass_through(self, params: dict[str, Any]) -> Any:
        async def pass_through() -> Any:
            async with asyncio.timeout(10):
                await self.pull.publish("x", params, users=1, route=self.route)
                return (await anext(self.events)).params

        return self.runner.run(pass_through())


@pytest.fixture(
    scope="module",
    params=[("rest", 4), ("endpoint", 4), ("socket", 4), ("socket", 5)],
    ids=lambda p: f"{p[0]}-{p[1]}",
)
def line(request: pytest.FixtureRequest) -> Iterator[Line]:
    route, version = request.param
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def connect() -> Line:
            emu = await stack.enter_async_context(Emulator(version=version))
            emu.push.gather_s = 0.0
            pull = await stack.enter_async_context(PullClient(AccessToken(emu.portal_url, emu.token)))
            return Line(runner, pull, await stack.enter_async_context(pull.subscribe("x")), route)

        yield runner.run(connect())
        runner.run(stack.aclose())


@settings(max_examples=examples(20), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(params=PARAMS)
@example(params={})
@example(params={"map": {}, "list": [], "null": None, "nested": {"a": [{"b": [[], {}]}]}})
@example(params={"big": [2**63, -(2**64), 10**40 + 1], "float": [1e300, 5e-324, -0.0, 0.1]})
@example(params={"текст": "Привет 😀 \u2028 \x00 #!NGINXNME!#", "": "empty key"})
def test_params_arrive_as_they_were_given(line: Line, params: dict[str, Any]) -> None:
    sent: Any = params
    if line.route == "rest":
        # The portal is written in PHP, which has one type for maps and lists.
        sent = as_php_writes(params) or {}
    # As text, which tells 1 from 1.0 and from True.
    assert json.dumps(line.pass_through(params)) == json.dumps(sent)
