"""Calls to REST methods, against a portal on loopback."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bitrix_pull import OAuth
from bitrix_pull.errors import (
    AnswerTooLarge,
    CallerFailed,
    InvalidArgument,
    NotAPortal,
    NotConfigured,
    PortalError,
    PortalMoved,
    PortalUnavailable,
    TokenExpired,
    Unreachable,
)
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.auth import AccessToken, Caller, Credentials, Webhook
from bitrix_pull.portal.rest import RestClient

from .conftest import OK, StubPortal, answer, hang_up, refusal


@asynccontextmanager
async def client(auth: Credentials | Caller, **options: Any) -> AsyncIterator[RestClient]:
    rest = RestClient(auth, options=PullOptions(**options))
    try:
        yield rest
    finally:
        await rest.close()


class Own:
    """A REST client of the user's own."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self.calls: list[tuple[str, Mapping[str, Any]]] = []
        self._act = act

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        self.calls.append((method, params))
        result = self._act()
        return await result if asyncio.iscoroutine(result) else result


async def test_an_access_token_travels_in_the_body(portal: StubPortal) -> None:
    portal.reply(answer({"result": {"a": [1]}}))
    async with client(AccessToken(portal.url, "my-token")) as rest:
        assert await rest.call("app.info", {"B": "ж"}) == {"a": [1]}
        assert await rest.call("app.info") == {"a": [1]}
    first, second = portal.calls
    assert (first.verb, first.path, first.query) == ("POST", "/rest/app.info.json", {})
    assert first.body == {"B": "ж", "auth": "my-token"}
    assert first.headers["Content-Type"] == "application/json"
    assert second.body == {"auth": "my-token"}


async def test_a_parameter_of_that_name_gives_way_to_the_token(portal: StubPortal) -> None:
    params = {"auth": "theirs", "x": 1}
    for auth in (AccessToken(portal.url, 'my-"token"'), Webhook(portal.webhook)):
        async with client(auth) as rest:
            await rest.call("profile", params)
    assert [call.body for call in portal.calls] == [{"x": 1, "auth": 'my-"token"'}, params]
    assert params == {"auth": "theirs", "x": 1}


async def test_a_webhook_is_the_address_alone(portal: StubPortal) -> None:
    async with client(Webhook(portal.webhook)) as rest:
        assert await rest.call("profile", {"x": 1}) is True
    [call] = portal.calls
    assert (call.path, call.body) == ("/rest/1/abcdefgh12345678/profile.json", {"x": 1})


async def test_the_answer_holds_the_portals_clock(portal: StubPortal) -> None:
    portal.reply(answer({"result": 1, "time": {"finish": 1774965918}}))
    async with client(Webhook(portal.webhook)) as rest:
        got = await rest.ask("profile")
        assert (got.result, got.server_time) == (1, datetime.fromtimestamp(1774965918, UTC))
        portal.reply(OK)
        server_time = (await rest.ask("profile")).server_time
        assert server_time is not None
        assert abs((datetime.now(UTC) - server_time).total_seconds()) < 60


async def test_a_token_that_nobody_can_renew_is_reported(portal: StubPortal) -> None:
    portal.reply(refusal("expired_token", 401))
    for auth in (AccessToken(portal.url, "my-token"), Webhook(portal.webhook)):
        async with client(auth) as rest:
            with pytest.raises(TokenExpired, match=r"use OAuth\(\.\.\.\)"):
                await rest.call("app.info")
    assert len(portal.calls) == 2


async def test_errors_are_typed_and_name_the_method(portal: StubPortal) -> None:
    portal.reply(refusal("SERVER_ERROR", 500, "Push & Pull server is not configured"))
    async with client(Webhook(portal.webhook)) as rest:
        with pytest.raises(NotConfigured, match=r"^pull\.config\.get: Push & Pull server") as caught:
            await rest.call("pull.config.get")
    assert (caught.value.method, caught.value.status) == ("pull.config.get", 500)


async def test_html_from_a_proxy_is_a_passing_failure(portal: StubPortal) -> None:
    portal.reply(answer("<html>502 Bad Gateway</html>", 502), OK)
    async with client(Webhook(portal.webhook)) as rest:
        with pytest.raises(PortalUnavailable, match="HTTP 502"):
            await rest.call("profile")
        assert await rest.call("profile") is True


async def test_a_renamed_portal_is_named_and_gets_no_token(portal: StubPortal) -> None:
    portal.reply(answer("", 302, Location="https://new.bitrix24.com/rest/app.info.json?auth=my-token"))
    async with client(AccessToken(portal.url, "my-token")) as rest:
        with pytest.raises(PortalMoved) as caught:
            await rest.call("app.info")
    assert caught.value.target == "https://new.bitrix24.com"
    assert len(portal.calls) == 1


async def test_a_portal_that_asks_for_a_login_has_not_moved(portal: StubPortal) -> None:
    portal.reply(answer("", 302, Location=f"{portal.url}/auth/?backurl=%2Frest%2F"))
    async with client(AccessToken(portal.url, "my-token")) as rest:
        with pytest.raises(NotAPortal, match="its own login page"):
            await rest.call("app.info")


@pytest.mark.parametrize("method", ["", "../profile", "profile.json?auth=1", "a b", "profile/"])
async def test_a_method_is_a_name(portal: StubPortal, method: str) -> None:
    async with client(Webhook(portal.webhook)) as rest:
        with pytest.raises(InvalidArgument, match="REST method"):
            await rest.call(method)
    assert not portal.calls


@pytest.mark.parametrize("value", ["\ud800", float("nan"), object(), b"x"])
async def test_params_that_are_no_json_are_not_sent(portal: StubPortal, value: Any) -> None:
    own = Own(lambda: True)
    for auth in (Webhook(portal.webhook), own):
        async with client(auth) as rest:
            with pytest.raises(InvalidArgument, match="the params"):
                await rest.call("profile", {"deep": [{"value": value}]})
    assert not portal.calls
    assert not own.calls


async def test_integers_of_any_size_are_sent(portal: StubPortal) -> None:
    async with client(Webhook(portal.webhook)) as rest:
        assert await rest.call("profile", {"big": 2**63}) is True
    assert portal.calls[0].body == {"big": 2**63}


async def test_the_deadline_and_the_size_limit_are_options(portal: StubPortal) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.Response()

    portal.reply(slow)
    async with client(Webhook(portal.webhook), rest_timeout_s=0.1) as rest:
        with pytest.raises(Unreachable, match=r"within 0\.1 s"):
            await rest.call("profile")
    portal.reply(answer({"result": "x" * 500}))
    async with client(Webhook(portal.webhook), max_rest_bytes=500) as rest:
        with pytest.raises(AnswerTooLarge, match="larger than 500 bytes"):
            await rest.call("profile")


async def test_a_call_may_have_a_deadline_of_its_own(portal: StubPortal) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.3)
        return web.json_response({"result": True})

    portal.reply(slow)
    async with client(Webhook(portal.webhook), rest_timeout_s=0.1) as rest:
        assert await rest.call("profile", timeout_s=5.0) is True
        with pytest.raises(Unreachable, match=r"within 0\.05 s"):
            await rest.call("profile", timeout_s=0.05)
        with pytest.raises(InvalidArgument, match="timeout_s"):
            await rest.call("profile", timeout_s=0)


async def test_what_surely_was_not_sent_is_told_from_what_may_have_been(portal: StubPortal) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.Response()

    async with client(Webhook(portal.webhook), rest_timeout_s=0.2) as rest:
        for reply in (hang_up, silent):
            portal.reply(reply)
            with pytest.raises(Unreachable) as caught:
                await rest.call("profile")
            assert not caught.value.unsent
    async with client(Webhook("http://127.0.0.1:1/rest/1/abcdefgh12345678/")) as rest:
        with pytest.raises(Unreachable) as caught:
            await rest.call("profile")
        assert caught.value.unsent


async def test_without_a_token_nothing_was_sent(portal: StubPortal) -> None:
    oauth = OAuth(
        portal.url,
        client_id="id",
        client_secret="secret",
        tokens={"access_token": "a" * 20, "refresh_token": "r" * 20, "expires": 1},
        oauth_url="http://127.0.0.1:1/oauth/token/",
    )
    async with client(oauth) as rest:
        with pytest.raises(Unreachable) as caught:
            await rest.call("app.info")
    assert caught.value.unsent
    assert not portal.calls


async def test_a_client_can_be_used_again_after_close(portal: StubPortal) -> None:
    rest = RestClient(Webhook(portal.webhook))
    for _ in range(2):
        assert await rest.call("profile") is True
        await rest.close()
    await rest.close()


def test_a_client_needs_no_loop_and_works_in_one_after_another() -> None:
    rest = RestClient(Own(lambda: 7))

    async def call_and_close() -> Any:
        try:
            return await rest.call("profile")
        finally:
            await rest.close()

    assert [asyncio.run(call_and_close()) for _ in range(2)] == [7, 7]


async def test_a_given_session_stays_open(portal: StubPortal) -> None:
    async with aiohttp.ClientSession() as session:
        rest = RestClient(Webhook(portal.webhook), http=session)
        assert await rest.call("profile") is True
        await rest.close()
        assert not session.closed


async def test_calls_are_logged_without_their_content(
    portal: StubPortal, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "bitrix_pull")
    async with client(AccessToken(portal.url, "my-token")) as rest:
        await rest.call("app.info", {"private": "content"})
    [record] = [record for record in caplog.records if record.name == "bitrix_pull.portal"]
    assert record.getMessage().startswith("app.info: HTTP 200 in ")
    assert vars(record)["status"] == 200


# -- a REST client of the user's own ------------------------------------------------


async def test_an_own_client_is_called_and_its_result_returned() -> None:
    own = Own(lambda: {"a": 1})
    async with client(own) as rest:
        got = await rest.ask("app.info", {"B": 1})
    assert (got.result, got.server_time) == ({"a": 1}, None)
    assert own.calls == [("app.info", {"B": 1})]


async def test_errors_of_this_library_pass_through_an_own_client() -> None:
    error = TokenExpired("mine")

    def fail() -> Any:
        raise error

    async with client(Own(fail)) as rest:
        with pytest.raises(TokenExpired) as caught:
            await rest.call("app.info")
    assert caught.value is error


async def test_other_errors_of_an_own_client_are_wrapped() -> None:
    def fail() -> Any:
        raise LookupError("private text")

    async with client(Own(fail)) as rest:
        with pytest.raises(CallerFailed, match=r"app\.info: your REST client raised LookupError") as caught:
            await rest.call("app.info")
    assert isinstance(caught.value, PortalError)
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, LookupError)
    assert "private" not in str(caught.value)


async def test_an_own_client_that_cancels_something_of_its_own_cancels_nobody_else() -> None:
    def fail() -> Any:
        raise asyncio.CancelledError

    async with client(Own(fail)) as rest:
        with pytest.raises(CallerFailed, match="raised CancelledError"):
            await rest.call("app.info")


async def test_an_own_client_has_a_deadline_too() -> None:
    async with client(Own(lambda: asyncio.sleep(5)), rest_timeout_s=0.05) as rest:
        with pytest.raises(Unreachable, match=r"app\.info: no answer within 0\.05 s"):
            await rest.call("app.info")


async def test_a_timeout_of_its_own_is_an_error_of_its_own() -> None:
    def fail() -> Any:
        raise TimeoutError

    async with client(Own(fail)) as rest:
        with pytest.raises(CallerFailed, match="TimeoutError"):
            await rest.call("app.info")


async def test_cancelling_a_call_is_no_failure() -> None:
    async with client(Own(lambda: asyncio.sleep(5))) as rest:
        task = asyncio.create_task(rest.call("app.info"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
