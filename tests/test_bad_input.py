"""Bad input gets a clear error, and nothing is sent; bad messages spoil only themselves."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bitrix_pull import AccessToken, MessageDropped, PullClient, PullOptions, State, Webhook
from bitrix_pull.emulator import Emulator
from bitrix_pull.errors import (
    InvalidArgument,
    InvalidConfig,
    NotAPortal,
    PortalUnavailable,
    StartTimeout,
    TokenExpired,
)
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running

CYCLE: dict[str, Any] = {}
CYCLE["self"] = CYCLE

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "command with a space": ({"command": "order update"}, "COMMAND_ERROR"),
    "command that is empty": ({"command": ""}, "COMMAND_ERROR"),
    "command not in ASCII": ({"command": "заказ"}, "COMMAND_ERROR"),
    "command with a newline": ({"command": "order\n"}, "COMMAND_ERROR"),
    "command that is no text": ({"command": 7}, "COMMAND_ERROR"),
    "module in capitals": ({"module": "CRM"}, "MODULE_ID_ERROR"),
    "params with a set": ({"params": {"a": {1, 2}}}, "no JSON"),
    "params with NaN": ({"params": {"a": float("nan")}}, "no JSON"),
    "params with a cycle": ({"params": CYCLE}, "no JSON"),
    "params that are a list": ({"params": [1]}, "PARAMS_ERROR"),
    "params with a lone surrogate": ({"params": {"a": "\ud83d"}}, "surrogate"),
    "key with a lone surrogate": ({"params": {"\udc00": 1}}, "surrogate"),
    "user 0": ({"users": 0}, "no user id"),
    "user that is text": ({"users": "1"}, "users must be"),
    "no user at all": ({"users": []}, "users is empty"),
    "a route that there is not": ({"route": "pigeon"}, "route"),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_cannot_be_published_is_not_sent(what: str) -> None:
    arguments, words = REFUSED[what]
    async with Emulator() as emu:
        pull = PullClient(AccessToken(emu.portal_url, emu.token))
        with pytest.raises(InvalidArgument, match=words):
            await pull.publish(**{"command": "x", **arguments})
        assert emu.portal.calls == {}
        assert emu.push.counters.requests == 0
        await pull.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AccessToken("", "token"), "portal"),
        (lambda: AccessToken("acme .bitrix24.com", "token"), "spaces"),
        (lambda: AccessToken("ftp://acme.bitrix24.com", "token"), "https"),
        (lambda: AccessToken("acme.bitrix24.com", ""), "token"),
        (lambda: AccessToken("acme.bitrix24.com", "to ken"), "token"),
        (lambda: Webhook("https://acme.bitrix24.com/"), "/rest/USER/CODE/"),
        (lambda: PullClient(AccessToken("http://acme.bitrix24.com", "token")), "unencrypted"),
        (lambda: PullClient(Webhook("http://10.0.0.1/rest/1/code/")), "unencrypted"),
        (lambda: PullClient(AccessToken("acme.bitrix24.com", "token"), mode="both"), "mode"),  # type: ignore[arg-type]
        (lambda: PullClient(AccessToken("acme.bitrix24.com", "token"), start="soon"), "start"),  # type: ignore[arg-type]
        (lambda: PullClient(42), "no way to call a portal"),  # type: ignore[arg-type]
        (lambda: PullClient(AccessToken("acme.bitrix24.com", "token"), options={}), "options"),  # type: ignore[arg-type]
        (lambda: PullClient(AccessToken("acme.bitrix24.com", "token"), http="acme"), "http"),  # type: ignore[arg-type]
        (lambda: AccessToken("k3yt0th3p0rtal42", "token"), "the portal is no domain"),
        (lambda: AccessToken(7, "token"), "portal is missing"),  # type: ignore[arg-type]
        (lambda: AccessToken("acme.bitrix24.com", 7), "token is missing"),  # type: ignore[arg-type]
        (lambda: Webhook(b"https://acme.bitrix24.com/rest/1/code/"), "must be text"),  # type: ignore[arg-type]
        (lambda: PullOptions(ping_interval_s="10"), "ping_interval_s"),  # type: ignore[arg-type]
        (lambda: PullOptions(ping_interval_s=0), "ping_interval_s"),
        (lambda: PullOptions(allow_http_hosts="acme"), "allow_http_hosts"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_made(make: Callable[[], object], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        make()


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, "<html>a shop</html>", NotAPortal),
        (404, "<html>not found</html>", NotAPortal),
        (200, '{"hello": "world"}', NotAPortal),
    ],
)
async def test_a_portal_that_is_no_portal(status: int, body: str, error: type[Exception]) -> None:
    async with TestServer(_answering(status, body)) as server:
        pull = PullClient(AccessToken(str(server.make_url("")).rstrip("/"), "token"))
        with pytest.raises(error):
            async with pull:
                pass


async def test_an_html_502_page_is_an_error_that_says_so() -> None:
    app = _answering(502, "<html><head><title>502 Bad Gateway</title></head></html>")
    async with TestServer(app) as server:
        pull = PullClient(AccessToken(str(server.make_url("")).rstrip("/"), "token"))
        with pytest.raises(StartTimeout, match="HTTP 502") as raised:
            async with pull:
                pass
        assert isinstance(raised.value.__cause__, PortalUnavailable)


def _answering(status: int, body: str) -> web.Application:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text=body, content_type="text/html")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    return app


class Answers:
    """A REST client of the user's own that gives one answer."""

    def __init__(self, result: Any) -> None:
        self._result = result

    async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
        return self._result


@pytest.mark.parametrize("result", [{}, [], {"server": {"version": 4}, "channels": []}])
async def test_a_config_without_channels(result: Any) -> None:
    with pytest.raises(StartTimeout, match="no channel") as caught:
        async with PullClient(Answers(result), options=PullOptions(start_timeout_s=0.5)):
            pass
    assert isinstance(caught.value.__cause__, InvalidConfig)


async def test_an_expired_token_without_refresh() -> None:
    async with Emulator() as emu:
        emu.portal.expire_token(emu.token)
        with pytest.raises(TokenExpired, match="fresh access token"):
            async with PullClient(AccessToken(emu.portal_url, emu.token)):
                pass
        assert emu.push.counters.websockets == 0


BODY = '{"module_id":"application","command":"x","params":{"n":%d,"text":"%s"}}'
TEXTS = {
    "delimiters": "a #!NGINXNME!# b #!NGINXNMS!# c",
    "not ASCII": "Привет, мир — ✓ 😀",
    "1 MiB": "x" * 1_048_576,
}


@pytest.mark.parametrize("protobuf", [True, False])
@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("name", TEXTS)
def test_odd_bodies_arrive_whole(name: str, version: int, protobuf: bool) -> None:
    async def main() -> None:
        emu = emulator(version=version)
        async with emu, running(Listener(emu, protobuf=protobuf)) as listener:
            await listener.reached(State.LIVE)
            channel = emu.portal.config("application", 1)["channels"]["shared"]["id"]
            for n in range(3):
                emu.push.publish([channel], BODY % (n, TEXTS[name]), 60)
            await listener.received(3)
            assert listener.numbers == [0, 1, 2]
            assert {event.params["text"] for event in listener.events} == {TEXTS[name]}

    virtual_time.run(main)


@pytest.mark.parametrize("protobuf", [True, False])
@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("spoilt", ["nonsense", '"a string"', '{"command":"x"}', "{", "[1,2"])
def test_a_spoilt_body_amid_good_ones_is_counted_and_reported(
    spoilt: str, version: int, protobuf: bool
) -> None:
    async def main() -> None:
        emu = emulator(version=version)
        async with emu, running(Listener(emu, protobuf=protobuf)) as listener:
            await listener.reached(State.LIVE)
            channel = emu.portal.config("application", 1)["channels"]["shared"]["id"]
            for n in range(6):
                emu.push.publish([channel], spoilt if n == 3 else BODY % (n, "good"), 60)
            await listener.received(5)
            await asyncio.sleep(30)
            assert listener.numbers == [0, 1, 2, 4, 5]
            assert listener.health().malformed == 1
            dropped = [notice for notice in listener.heard if isinstance(notice, MessageDropped)]
            assert [notice.total for notice in dropped] == [1]
            assert "nonsense" not in dropped[0].reason

    virtual_time.run(main)


def test_an_empty_map_arrives_as_one() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            emu.portal.send("x", {})
            await listener.received(1)
            assert listener.events[0].params == {}

    virtual_time.run(main)
