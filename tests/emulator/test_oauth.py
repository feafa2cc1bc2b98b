from typing import Any

import aiohttp
import pytest

from bitrix_pull.emulator import Emulator
from tests.emulator.conftest import Call, Clock
from tests.emulator.test_rest import error


async def refresh(
    emulator: Emulator, session: aiohttp.ClientSession, *, verb: str = "GET", **changes: str
) -> tuple[int, Any]:
    fields = {
        "grant_type": "refresh_token",
        "client_id": emulator.portal.client_id,
        "client_secret": emulator.portal.client_secret,
        "refresh_token": emulator.refresh_token,
        **changes,
    }
    where = {"params": fields} if verb == "GET" else {"data": fields}
    async with session.request(verb, emulator.oauth_url, **where) as answer:  # type: ignore[arg-type]
        return answer.status, await answer.json()


@pytest.mark.parametrize("verb", ["GET", "POST"])
async def test_a_refresh_token_is_traded_for_new_tokens(
    emulator: Emulator, clock: Clock, session: aiohttp.ClientSession, call: Call, verb: str
) -> None:
    status, tokens = await refresh(emulator, session, verb=verb)
    assert status == 200
    access_token, new_refresh_token = tokens.pop("access_token"), tokens.pop("refresh_token")
    assert tokens == {
        "expires": 1_800_003_600,
        "expires_in": 3600,
        "client_endpoint": f"{emulator.portal_url}/rest/",
        "server_endpoint": f"{emulator.portal_url}/rest/",
        "domain": emulator.portal.address,
        "member_id": emulator.portal.member_id,
        "scope": "crm,pull,task,telephony,user",
        "status": "L",
        "user_id": 1,
    }
    assert new_refresh_token != emulator.refresh_token
    assert (await call("server.time", token=access_token))[0] == 200
    clock.now += 3600
    assert error(await call("server.time", token=access_token)) == (401, "expired_token")


async def test_a_refresh_token_works_once(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    _, tokens = await refresh(emulator, session)
    assert error(await refresh(emulator, session)) == (400, "invalid_grant")
    assert (await refresh(emulator, session, refresh_token=tokens["refresh_token"]))[0] == 200


async def test_a_refresh_token_lasts_180_days(
    emulator: Emulator, clock: Clock, session: aiohttp.ClientSession
) -> None:
    issued = emulator.portal.issue_refresh_token()
    clock.now += 180 * 86_400
    assert error(await refresh(emulator, session, refresh_token=issued)) == (400, "invalid_grant")
    # But for the first one, which a program may have been started with.
    assert (await refresh(emulator, session))[0] == 200


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"grant_type": "password"}, (400, "invalid_request")),
        ({"client_id": "local.unknown"}, (200, "wrong_client")),
        ({"client_secret": "wrong"}, (400, "invalid_client")),
        ({"refresh_token": "unknown"}, (400, "invalid_grant")),
    ],
)
async def test_what_is_wrong_with_a_refresh_is_named(
    emulator: Emulator, session: aiohttp.ClientSession, changes: dict[str, str], answer: tuple[int, str]
) -> None:
    assert error(await refresh(emulator, session, **changes)) == answer
    assert (await refresh(emulator, session))[0] == 200, "the refresh token was not used up"


async def test_requests_are_noted(emulator: Emulator, clock: Clock, session: aiohttp.ClientSession) -> None:
    emulator.portal.token_life_s = 60
    _, tokens = await refresh(emulator, session)
    assert tokens["expires_in"] == 60
    clock.now += 1
    await refresh(emulator, session)
    assert [(request.at, request.granted) for request in emulator.portal.token_requests] == [
        (clock.now - 1, True),
        (clock.now, False),
    ]


async def test_a_request_for_nothing_is_malformed(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    async with session.get(emulator.oauth_url) as answer:
        assert error((answer.status, await answer.json())) == (400, "invalid_request")
