import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bitrix_pull.emulator import Emulator
from tests.emulator.conftest import Call, Clock

REFERENCE = Path(__file__).parents[1] / "reference"
RECORDED_ERRORS = {
    (entry["status"], entry["body"]["error"]): entry["body"]
    for entry in json.loads((REFERENCE / "errors.json").read_text())
    if isinstance(entry["body"], dict)
}


def error(answer: tuple[int, Any]) -> tuple[int, str]:
    status, body = answer
    assert set(body) == {"error", "error_description"}
    return status, body["error"]


# -- how a call may look ------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    ["pull.application.config.get", "Pull.Application.Config.Get.json", "/pull.application.config.get"],
)
async def test_names_go_with_and_without_a_suffix_in_any_case(
    emulator: Emulator, session: aiohttp.ClientSession, method: str
) -> None:
    async with session.post(f"{emulator.portal_url}/rest/{method}", json={"auth": emulator.token}) as answer:
        assert answer.status == 200
        assert "channels" in (await answer.json())["result"]
    assert emulator.portal.calls == {"pull.application.config.get": 1}


@pytest.mark.parametrize("way", ["json", "form", "query", "bearer"])
async def test_the_token_is_taken_wherever_it_stands(
    emulator: Emulator, session: aiohttp.ClientSession, way: str
) -> None:
    auth = {"auth": emulator.token}
    verb, request = {
        "json": ("POST", {"json": auth}),
        "form": ("POST", {"data": auth}),
        "query": ("GET", {"params": auth}),
        "bearer": ("GET", {"headers": {"Authorization": f"Bearer {emulator.token}"}}),
    }[way]
    async with session.request(verb, f"{emulator.portal_url}/rest/server.time", **request) as answer:  # type: ignore[arg-type]
        assert answer.status == 200
        assert (await answer.json())["result"] == "2027-01-15T11:00:00+03:00"


async def test_a_form_carries_lists_and_maps(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    fields = {"auth": emulator.token, "USER_ID[]": "1", "TEXT": "hello"}
    async with session.post(f"{emulator.portal_url}/rest/pull.application.push.add", data=fields) as answer:
        assert (await answer.json())["result"] is True
    assert emulator.portal.notifications[0].users == [1]


async def test_an_answer_tells_its_time(call: Call) -> None:
    _, body = await call("server.time")
    recorded = json.loads((REFERENCE / "config_v4_live.json").read_text())["time"]
    assert set(body["time"]) == set(recorded)
    assert {name: type(value) for name, value in body["time"].items()} == {
        name: type(value) for name, value in recorded.items()
    }
    assert body["time"]["start"] == 1_800_000_000
    assert body["time"]["date_start"] == "2027-01-15T11:00:00+03:00"
    assert body["time"]["finish"] >= 1_800_000_000.25


# -- who may call -------------------------------------------------------------------------


async def test_unknown_credentials_are_refused(
    emulator: Emulator, session: aiohttp.ClientSession, call: Call
) -> None:
    assert error(await call("server.time", token="0" * 80)) == (401, "NO_AUTH_FOUND")
    for url in (
        f"{emulator.portal_url}/rest/server.time",
        f"{emulator.portal_url}/rest/server.time?auth[]=x",
    ):
        async with session.get(url) as answer:
            assert error((answer.status, await answer.json())) == (401, "NO_AUTH_FOUND")
    for path in ("1/0123456789abcdef", f"2/{emulator.portal.webhook_code(1)}", "999999999999999999/x"):
        async with session.get(f"{emulator.portal_url}/rest/{path}/server.time") as answer:
            assert error((answer.status, await answer.json())) == (403, "INVALID_CREDENTIALS")


async def test_an_expired_token_is_called_so(emulator: Emulator, clock: Clock, call: Call) -> None:
    token = emulator.portal.issue_token(1, expires_in_s=3600)
    assert (await call("server.time", token=token))[0] == 200
    clock.now += 3600
    assert await call("server.time", token=token) == (401, RECORDED_ERRORS[401, "expired_token"])
    emulator.portal.expire_token(emulator.token)
    assert error(await call("server.time")) == (401, "expired_token")


@pytest.mark.parametrize("body", ['{"auth":"%s","x":"\\ud800"}', '{"auth":"%s"', "[]", "null", ""])
async def test_json_that_php_cannot_read_takes_the_token_along(
    emulator: Emulator, session: aiohttp.ClientSession, body: str
) -> None:
    data = body.replace("%s", emulator.token)
    headers = {"Content-Type": "application/json"}
    async with session.post(f"{emulator.portal_url}/rest/server.time", data=data, headers=headers) as answer:
        assert await answer.json() == {
            "error": "NO_AUTH_FOUND",
            "error_description": "Wrong authorization data",
        }
        assert answer.status == 401


async def test_a_missing_permission_is_named(emulator: Emulator, call: Call, call_webhook: Call) -> None:
    assert error(await call("pull.channel.public.list", USERS=[1])) == (403, "insufficient_scope")
    emulator.portal.application_scope.add("pull_channel")
    assert (await call("pull.channel.public.list", USERS=[1]))[0] == 200
    emulator.portal.webhook_scope.clear()
    assert error(await call_webhook("pull.config.get")) == (403, "insufficient_scope")
    assert (await call_webhook("server.time"))[0] == 200


@pytest.mark.parametrize("method", ["config.get", "event.add", "push.add"])
async def test_a_webhook_is_no_application(call_webhook: Call, method: str) -> None:
    assert await call_webhook(f"pull.application.{method}") == (403, RECORDED_ERRORS[403, "WRONG_AUTH_TYPE"])


async def test_an_application_is_no_user(emulator: Emulator, call: Call) -> None:
    emulator.portal.application_scope.add("pull_channel")
    assert error(await call("pull.config.get")) == (403, "WRONG_AUTH_TYPE")


async def test_an_unknown_method_is_called_so(emulator: Emulator, call: Call, call_webhook: Call) -> None:
    assert error(await call("pull.unknown")) == (404, "ERROR_METHOD_NOT_FOUND")
    assert error(await call_webhook("pull.unknown")) == (404, "ERROR_METHOD_NOT_FOUND")
    assert emulator.portal.calls == {"pull.unknown": 2}


# -- browsers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/rest/server.time.json", "/rest/1/code/server.time", "/rest/no.such.method"]
)
async def test_pages_of_any_origin_may_call(
    emulator: Emulator, session: aiohttp.ClientSession, path: str
) -> None:
    url = emulator.portal_url + path
    asked = {"Origin": "https://app.example", "Access-Control-Request-Headers": "content-type"}
    async with session.options(url, headers=asked) as preflight:
        assert preflight.status == 200
        assert "content-type" in preflight.headers["Access-Control-Allow-Headers"]
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        assert preflight.headers["Access-Control-Allow-Origin"] == "*"
    for _ in range(2):
        async with session.post(url, json={}, headers={"Origin": "https://app.example"}) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
        emulator.portal.faults.fail_rest(1)
