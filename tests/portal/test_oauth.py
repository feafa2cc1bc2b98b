"""Refreshing tokens: once, never lost, stored before they are used."""

import asyncio
import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bitrix_pull.errors import (
    AuthError,
    GrantRefused,
    InsufficientScope,
    InvalidArgument,
    NotAPortal,
    PaymentRequired,
    PortalUnavailable,
    TokenExpired,
    Unreachable,
)
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.http import HttpAnswer, HttpSession
from bitrix_pull.portal.oauth import OAuth
from bitrix_pull.portal.tokens import Tokens

from .conftest import answer, hang_up, refusal
from .granting import Clients, Grant, read, stale, write


async def test_a_good_token_is_used_as_it_is(grant: Grant, client: Clients) -> None:
    for tokens in (grant.tokens(), Tokens(access_token="access-1", refresh_token="refresh-1")):
        assert await client(tokens).call("app.info") == "access-1"
    assert grant.refreshes == 0


async def test_a_refused_token_is_refreshed_and_the_call_repeated(grant: Grant, client: Clients) -> None:
    rest = client(stale())
    assert await rest.call("app.info") == "access-2"
    assert await rest.call("app.info") == "access-2"
    assert grant.refreshes == 1
    assert [call.path for call in grant.stub.calls] == [
        "/rest/app.info.json",
        "/oauth/token/",
        "/rest/app.info.json",
        "/rest/app.info.json",
    ]
    assert grant.stub.calls[1].verb == "GET"


async def test_a_token_past_its_end_is_not_even_tried(grant: Grant, client: Clients) -> None:
    rest = client(stale(expires=str(int(time.time()) - 1)))
    assert await rest.call("app.info") == "access-2"
    assert grant.stub.calls[0].path == "/oauth/token/"


async def test_each_refresh_uses_the_token_of_the_one_before(grant: Grant, client: Clients) -> None:
    grant.extra = {"expires_in": 0}
    rest = client(stale())
    assert [await rest.call("app.info") for _ in range(3)] == ["access-2", "access-3", "access-4"]


async def test_a_wrong_clock_here_does_not_refresh_at_every_call(grant: Grant, client: Clients) -> None:
    grant.extra = {"expires": time.time() - 9000, "expires_in": 3600}
    rest = client(stale())
    assert [await rest.call("app.info") for _ in range(3)] == ["access-2"] * 3
    assert grant.refreshes == 1


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"expires": "odd", "expires_in": None},
        {"expires_in": "NaN"},
        {"expires": []},
        {"expires_in": 1e200},
        {"expires": -1e200},
    ],
)
async def test_tokens_are_kept_whatever_is_said_about_their_end(
    grant: Grant, client: Clients, extra: dict[str, Any], token_file: Path
) -> None:
    grant.extra = extra
    assert await client(token_file).call("app.info") == "access-2"
    assert read(token_file)["refresh_token"] == "refresh-2"
    assert await client(token_file).call("app.info") == "access-2"


@pytest.mark.parametrize(
    "extra", [{"nested": json.loads("[" * 300 + "]" * 300)}, {"large": "much " * 200_000}]
)
async def test_an_answer_of_nonsense_leaves_a_store_that_can_be_read(
    grant: Grant, client: Clients, extra: dict[str, Any], token_file: Path
) -> None:
    grant.extra = extra
    for _ in range(2):
        assert await client(token_file).call("app.info") == "access-2"
    content = read(token_file)
    assert (content["refresh_token"], content["member_id"]) == ("refresh-2", "m1")
    assert not content.keys() & extra.keys()


async def test_many_calls_at_once_make_one_refresh(grant: Grant, client: Clients) -> None:
    grant.gate.clear()
    rest = client(stale())
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(rest.call("app.info")) for _ in range(20)]
        await grant.refused_twenty.wait()
        grant.gate.set()
    assert {call.result() for call in calls} == {"access-2"}
    assert grant.refreshes == 1


async def test_a_refusal_that_comes_late_refreshes_nothing(grant: Grant, client: Clients) -> None:
    refreshed = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        grant.stub.reply(grant.handle)
        refusal_of_the_old_token = await grant.handle(request)
        await refreshed.wait()
        return refusal_of_the_old_token

    grant.stub.reply(slow)
    rest = client(stale())
    late = asyncio.create_task(rest.call("app.info"))
    await grant.refused_once.wait()
    assert await rest.call("app.info") == "access-2"
    refreshed.set()
    assert await late == "access-2"
    assert grant.refreshes == 1


async def test_a_call_is_repeated_once_only(grant: Grant, client: Clients) -> None:
    async def never_content(request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/rest/"):
            return web.json_response({"error": "EXPIRED_TOKEN"}, status=401)
        return await grant.handle(request)

    grant.stub.reply(never_content)
    with pytest.raises(TokenExpired, match="refuses the renewed token too"):
        await client(stale()).call("app.info")
    assert [call.path for call in grant.stub.calls].count("/rest/app.info.json") == 2
    assert grant.refreshes == 1


async def test_a_cancelled_call_does_not_lose_the_tokens(
    grant: Grant, client: Clients, token_file: Path
) -> None:
    grant.gate.clear()
    rest = client(token_file)
    task = asyncio.create_task(rest.call("app.info"))
    await grant.refreshing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    asyncio.get_running_loop().call_later(0.02, grant.gate.set)
    await rest.close()
    assert read(token_file)["refresh_token"] == "refresh-2"
    assert await rest.call("app.info") == "access-2"
    assert grant.refreshes == 1


async def test_a_refusal_says_what_to_do_and_can_be_mended(
    grant: Grant, client: Clients, token_file: Path
) -> None:
    write(token_file, stale(refresh_token="spent"))
    rest = client(token_file)
    with pytest.raises(GrantRefused, match="Authorise the application on the portal again") as caught:
        await rest.call("app.info")
    assert caught.value.code == "invalid_grant"
    write(token_file, grant.tokens())
    assert await rest.call("app.info") == "access-1"


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (answer("<html>", 503), PortalUnavailable),
        (answer({"access_token": "a"}), NotAPortal),
        (hang_up, Unreachable),
    ],
)
async def test_a_failing_oauth_server_is_asked_once_a_call(
    grant: Grant, client: Clients, reply: Any, kind: type[Exception]
) -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        is_refresh = request.path == "/oauth/token/"
        grant.refreshes += is_refresh
        response: web.StreamResponse = await (reply if is_refresh else grant.handle)(request)
        return response

    grant.stub.reply(broken)
    rest = client(stale())
    with pytest.raises(kind):
        await rest.call("app.info")
    assert grant.refreshes == 1
    grant.grant_again()
    assert await rest.call("app.info") == "access-2"


async def test_the_deadline_of_a_call_covers_the_refresh(grant: Grant, client: Clients) -> None:
    grant.gate.clear()
    rest = client(stale(), rest_timeout_s=0.2)
    with pytest.raises(Unreachable, match=r"within 0\.2 s"):
        await rest.call("app.info")
    grant.gate.set()


# -- what the OAuth server refuses -------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "kind", "advice"),
    [
        ("invalid_grant", 400, GrantRefused, "Authorise the application on the portal again"),
        ("expired_token", 401, GrantRefused, "Authorise the application on the portal again"),
        ("invalid_request", 400, GrantRefused, "Authorise the application on the portal again"),
        ("invalid_client", 400, GrantRefused, "Check client_id and client_secret"),
        ("wrong_client", 200, GrantRefused, "Check client_id and client_secret"),
        ("NOT_INSTALLED", 401, GrantRefused, "Install the application on the portal again"),
        ("PAYMENT_REQUIRED", 402, PaymentRequired, "renew or extend the plan"),
        ("insufficient_scope", 403, InsufficientScope, "Grant the scope"),
        ("invalid_scope", 400, InsufficientScope, "Grant the scope"),
    ],
)
async def test_a_refusal_says_what_helps_and_is_not_asked_for_again(
    grant: Grant, client: Clients, code: str, status: int, kind: type[AuthError], advice: str
) -> None:
    grant.refusal = refusal(code, status)
    rest = client(stale())
    for _ in range(3):
        with pytest.raises(kind, match=advice):
            await rest.call("app.info")
    assert grant.refreshes == 1


async def test_what_the_owner_has_mended_is_asked_for_again_after_a_while(
    grant: Grant, client: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitrix_pull.portal.oauth._REFUSED_FOR_S", 0.0)
    grant.refusal = refusal("PAYMENT_REQUIRED", 402)
    rest = client(stale())
    with pytest.raises(PaymentRequired):
        await rest.call("app.info")
    grant.refusal = None
    assert await rest.call("app.info") == "access-2"


@pytest.mark.parametrize("pause_s", [0.0, 0.3])
async def test_a_token_spent_by_another_program_is_no_refusal(
    grant: Grant, client: Clients, token_file: Path, pause_s: float
) -> None:
    """It knows nothing of the lock, and stores what it has got some time after the answer."""
    grant.number = 2

    async def refuse(request: web.Request) -> web.StreamResponse:
        asyncio.get_running_loop().call_later(pause_s, write, token_file, grant.tokens())
        return web.json_response({"error": "invalid_grant"}, status=400)

    grant.refusal = refuse
    assert await client(token_file).call("app.info") == "access-2"
    assert grant.refreshes == 1


async def test_tokens_of_a_new_authorisation_go_before_those_that_could_not_be_stored(
    grant: Grant, client: Clients, token_file: Path
) -> None:
    folder = token_file.parent
    grant.gate.clear()
    rest = client(token_file)
    task = asyncio.create_task(rest.call("app.info"))
    await grant.refreshing.wait()
    folder.rename(folder.with_name("away"))
    grant.gate.set()
    with pytest.raises(InvalidArgument, match="cannot be written"):
        await task
    folder.with_name("away").rename(folder)
    grant.number = 7
    write(token_file, grant.tokens())
    assert await rest.call("app.info") == "access-7"
    assert read(token_file)["refresh_token"] == "refresh-7"


# -- on_token ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["function", "coroutine function"])
async def test_on_token_gets_tokens_that_are_stored(
    grant: Grant, client: Clients, token_file: Path, kind: str
) -> None:
    told: list[tuple[Tokens, Any]] = []

    def on_token(tokens: Tokens) -> None:
        told.append((tokens, read(token_file)["refresh_token"]))

    async def on_token_later(tokens: Tokens) -> None:
        await asyncio.sleep(0)
        on_token(tokens)

    rest = client(token_file, on_token if kind == "function" else on_token_later)
    await rest.call("app.info")
    await rest.call("app.info")
    await rest.close()
    [(tokens, stored)] = told
    assert (tokens.access_token, stored) == ("access-2", "refresh-2")
    assert tokens.fields["member_id"] == "m1"
    assert "access-2" not in repr(tokens)
    assert "refresh-2" not in repr(tokens)


async def test_what_on_token_raises_is_logged_without_its_text(
    grant: Grant, client: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    def on_token(tokens: Tokens) -> None:
        raise RuntimeError(tokens.access_token)

    rest = client(stale(), on_token)
    assert await rest.call("app.info") == "access-2"
    await rest.close()
    [record] = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert "on_token raised RuntimeError (test_oauth.py:" in record.getMessage()
    assert "access-2" not in caplog.text


async def test_nobody_waits_for_on_token_and_close_not_for_ever(
    grant: Grant, client: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitrix_pull.portal.oauth._ON_TOKEN_S", 0.05)
    ended: list[str] = []

    async def on_token(tokens: Tokens) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    rest = client(stale(), on_token)
    assert await rest.call("app.info") == "access-2"
    await rest.close()
    await asyncio.sleep(0)
    assert ended == ["cancelled"]


def test_a_callback_of_an_event_loop_that_is_gone_is_not_waited_for() -> None:
    oauth = OAuth(
        "acme.bitrix24.com",
        client_id="app.1",
        client_secret="client-secret",
        tokens=stale(),
        on_token=lambda tokens: asyncio.sleep(60),
    )

    class Server(HttpSession):
        async def request(self, *args: Any, **more: Any) -> HttpAnswer:
            return HttpAnswer(200, {}, b'{"access_token":"access-2","refresh_token":"refresh-2"}')

    loop = asyncio.new_event_loop()
    options = PullOptions()
    assert loop.run_until_complete(oauth.renew("access-0", Server(options), options)) == "access-2"
    [told] = asyncio.all_tasks(loop)
    loop.close()

    async def close() -> None:
        async with asyncio.timeout(2):
            await oauth.close()

    asyncio.run(close())
    assert not told.done()
    told._log_destroy_pending = False  # type: ignore[attr-defined]


def test_on_token_must_be_callable() -> None:
    with pytest.raises(InvalidArgument, match="on_token must be a function"):
        OAuth("a.b", client_id="1", client_secret="2", tokens=stale(), on_token="print")  # type: ignore[arg-type]
