"""The portal's limits on REST calls, as it is told to have them."""

import json
from email.utils import parsedate_to_datetime

import aiohttp
import pytest

from bitrix_pull.emulator import Emulator
from tests.emulator.conftest import Call, Clock
from tests.emulator.test_rest import RECORDED_ERRORS

METHOD = "server.time"
REFUSAL = (503, RECORDED_ERRORS[503, "QUERY_LIMIT_EXCEEDED"])


async def test_as_many_calls_as_anybody_likes(emulator: Emulator, call: Call) -> None:
    assert [(await call(METHOD))[0] for _ in range(60)] == [200] * 60
    assert emulator.portal.limits.refused == 0


async def test_a_bucket_that_overflows_and_drains(emulator: Emulator, call: Call, clock: Clock) -> None:
    limits = emulator.portal.limits
    limits.burst, limits.per_s = 3, 2.0
    assert [(await call(METHOD))[0] for _ in range(5)] == [200, 200, 200, 503, 503]
    assert await call(METHOD) == REFUSAL
    assert limits.refused == 3
    assert emulator.portal.calls[METHOD] == 3
    clock.now += 0.5
    assert [(await call(METHOD))[0] for _ in range(2)] == [200, 503]
    clock.now += 60
    assert [(await call(METHOD))[0] for _ in range(4)] == [200, 200, 200, 503]
    clock.now += 60
    limits.fill()
    assert await call(METHOD) == REFUSAL


async def test_a_method_that_has_used_up_its_time(emulator: Emulator, call: Call, clock: Clock) -> None:
    reset_at = int(clock.now) + 600
    emulator.portal.limits.exhaust(METHOD, reset_at)
    status, body = await call(METHOD)
    assert (status, body["error"], body["time"]) == (
        429,
        "OPERATION_TIME_LIMIT",
        {"operating_reset_at": reset_at},
    )
    assert (await call("pull.application.config.get"))[0] == 200
    clock.now = reset_at
    assert (await call(METHOD))[0] == 200


@pytest.mark.parametrize("form", [None, "seconds", "date"])
async def test_refusals_say_when_to_come_again(
    emulator: Emulator, session: aiohttp.ClientSession, clock: Clock, form: str | None
) -> None:
    limits = emulator.portal.limits
    limits.burst, limits.per_s = 1, 0.1
    limits.retry_after = form  # type: ignore[assignment]
    limits.fill()
    async with session.post(f"{emulator.portal_url}/rest/{METHOD}", json={"auth": emulator.token}) as answer:
        assert (answer.status, json.loads(await answer.read())) == REFUSAL
        header = answer.headers.get("Retry-After")
    match form:
        case None:
            assert header is None
        case "seconds":
            assert header == "11"
        case _:
            assert header is not None
            assert 10 <= parsedate_to_datetime(header).timestamp() - clock.now <= 11
