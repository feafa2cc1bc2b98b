"""Refreshing tokens: once, never lost, stored before they are used."""

import asyncio
import json
import stat
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from bitrix_pull.errors import (
    GrantRefused,
    InvalidArgument,
    NotAPortal,
    PortalUnavailable,
    TokenExpired,
    Unreachable,
)
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.auth import OAuth
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.portal.tokens import TokenFile, Tokens

from .conftest import StubPortal, answer, hang_up, refusal


@dataclass
class Grant:
    """A portal and OAuth server that takes each refresh token once."""

    stub: StubPortal
    number: int = 1
    refreshes: int = 0
    extra: dict[str, Any] = field(default_factory=lambda: {"expires_in": 3600})
    refused: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    refreshing: asyncio.Event = field(default_factory=asyncio.Event)
    refused_once: asyncio.Event = field(default_factory=asyncio.Event)
    refused_twenty: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path != "/oauth/token/":
            body = orjson.loads(await request.read())
            valid = body["auth"] == f"access-{self.number}"
            self.refused += not valid
            if self.refused >= 1:
                self.refused_once.set()
            if self.refused >= 20:
                self.refused_twenty.set()
            reply = answer({"result": body["auth"]}) if valid else refusal("expired_token", 401)
        else:
            self.refreshes += 1
            self.refreshing.set()
            valid = dict(request.query) == {
                "grant_type": "refresh_token",
                "client_id": "app.1",
                "client_secret": "client-secret",
                "refresh_token": f"refresh-{self.number}",
            }
            if valid:
                self.number += 1
                await self.gate.wait()
            reply = answer(self.tokens()) if valid else refusal("invalid_grant")
        assert callable(reply)
        return await reply(request)

    def tokens(self) -> dict[str, Any]:
        return {
            "access_token": f"access-{self.number}",
            "refresh_token": f"refresh-{self.number}",
            "member_id": "m1",
            **self.extra,
        }

    def grant_again(self) -> None:
        self.stub.reply(self.handle)


@pytest.fixture
def grant(portal: StubPortal) -> Grant:
    grant = Grant(portal)
    grant.gate.set()
    portal.reply(grant.handle)
    return grant


def stale(**changes: Any) -> dict[str, Any]:
    """Tokens whose access token the portal refuses."""
    return {"access_token": "access-0", "refresh_token": "refresh-1", **changes}


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "acme.json"
    path.write_text(json.dumps(stale(domain="acme.bitrix24.com")))
    return path


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content))


class Clients:
    """Makes clients and closes them."""

    def __init__(self, portal: StubPortal) -> None:
        self._portal = portal
        self._made: list[RestClient] = []

    def __call__(self, tokens: Any, **options: Any) -> RestClient:
        auth = OAuth(
            self._portal.url,
            client_id="app.1",
            client_secret="client-secret",
            tokens=tokens,
            oauth_url=f"{self._portal.url}/oauth/token/",
        )
        self._made.append(RestClient(auth, options=PullOptions(**options)))
        return self._made[-1]

    async def close(self) -> None:
        for rest in self._made:
            await rest.close()


@pytest.fixture
async def client(portal: StubPortal) -> AsyncIterator[Clients]:
    clients = Clients(portal)
    yield clients
    await clients.close()


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
    "extra", [{}, {"expires": "odd", "expires_in": None}, {"expires_in": "NaN"}, {"expires": []}]
)
async def test_tokens_are_kept_whatever_is_said_about_their_end(
    grant: Grant, client: Clients, extra: dict[str, Any], token_file: Path
) -> None:
    grant.extra = extra
    assert await client(token_file).call("app.info") == "access-2"
    assert read(token_file)["refresh_token"] == "refresh-2"
    assert await client(token_file).call("app.info") == "access-2"


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
    with pytest.raises(TokenExpired):
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


# -- the token file -----------------------------------------------------------------


async def test_the_file_keeps_what_else_it_held(grant: Grant, client: Clients, token_file: Path) -> None:
    assert await client(str(token_file)).call("app.info") == "access-2"
    stored = read(token_file)
    assert stored.pop("expires") == pytest.approx(time.time() + 3600, abs=60)
    assert stored == {
        "access_token": "access-2",
        "refresh_token": "refresh-2",
        "domain": "acme.bitrix24.com",
        "member_id": "m1",
        "expires_in": 3600,
    }


def test_the_file_is_replaced_as_a_whole_for_its_owner_only(token_file: Path) -> None:
    token_file.chmod(0o644)
    with token_file.open() as reader:
        asyncio.run(TokenFile(token_file).save(Tokens(access_token="access-2", refresh_token="refresh-2")))
        assert json.loads(reader.read())["access_token"] == "access-0"
    assert read(token_file)["access_token"] == "access-2"
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    assert list(token_file.parent.iterdir()) == [token_file]


async def test_the_file_is_read_when_first_needed(grant: Grant, client: Clients, tmp_path: Path) -> None:
    path = tmp_path / "later.json"
    rest = client(path)
    write(path, grant.tokens())
    assert await rest.call("app.info") == "access-1"


async def test_a_link_to_the_file_stays_a_link(
    grant: Grant, client: Clients, token_file: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(token_file)
    assert await client(link).call("app.info") == "access-2"
    assert link.is_symlink()
    assert read(token_file)["refresh_token"] == "refresh-2"


async def test_tokens_that_somebody_else_has_renewed_are_taken_from_the_file(
    grant: Grant, client: Clients, token_file: Path
) -> None:
    first, second = client(token_file), client(token_file)
    grant.extra = {}
    assert await first.call("app.info") == "access-2"
    await second.call("app.info")
    assert grant.refreshes == 1
    write(token_file, {"access_token": "access-3", "refresh_token": "refresh-3"})
    grant.number = 3
    assert [await first.call("app.info"), await second.call("app.info")] == ["access-3"] * 2
    assert grant.refreshes == 1


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read: No such file"),
        ("{hush", "is no JSON"),
        ('["hush"]', "holds no JSON object"),
        ('{"access_token": "hush"}', "refresh_token is missing"),
        ('{"access_token": "hush", "refresh_token": 5}', "refresh_token is missing"),
        ('{"access_token": "hush", "refresh_token": "b", "expires": "hush"}', "expires is no unix time"),
    ],
)
async def test_a_file_that_holds_no_tokens_is_named(
    client: Clients, portal: StubPortal, tmp_path: Path, content: str | None, complaint: str
) -> None:
    path = tmp_path / "acme.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidArgument, match=complaint) as caught:
        await client(path).call("app.info")
    assert f"the token file {path}" in str(caught.value)
    assert "hush" not in str(caught.value)
    assert not portal.calls


async def test_no_refresh_token_is_spent_if_its_successor_cannot_be_stored(
    grant: Grant, client: Clients, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(source: object, target: object) -> None:
        raise OSError(30, "Read-only file system")

    rest = client(token_file)
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", read_only)
        with pytest.raises(InvalidArgument, match="cannot be written: Read-only file system"):
            await rest.call("app.info")
    assert grant.refreshes == 0
    assert list(token_file.parent.iterdir()) == [token_file]
    assert await rest.call("app.info") == "access-2"


async def test_new_tokens_that_could_not_be_stored_are_stored_before_the_next_call(
    grant: Grant, client: Clients, token_file: Path
) -> None:
    folder = token_file.parent
    grant.gate.clear()
    rest = client(token_file)
    task = asyncio.create_task(rest.call("app.info"))
    await grant.refreshing.wait()
    folder.rename(folder.with_name("away"))
    grant.gate.set()
    with pytest.raises(InvalidArgument, match="cannot be written: No such file"):
        await task
    folder.with_name("away").rename(folder)
    assert await rest.call("app.info") == "access-2"
    assert grant.refreshes == 1
    assert read(token_file)["refresh_token"] == "refresh-2"
