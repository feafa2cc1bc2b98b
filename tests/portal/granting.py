"""An OAuth server that takes each refresh token once, and clients that refresh there."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from bitrix_pull.options import PullOptions
from bitrix_pull.portal.oauth import OAuth, OnToken
from bitrix_pull.portal.rest import RestClient

from .conftest import Reply, StubPortal, answer, refusal


@dataclass
class Grant:
    """A portal and OAuth server that takes each refresh token once."""

    stub: StubPortal
    number: int = 1
    refreshes: int = 0
    extra: dict[str, Any] = field(default_factory=lambda: {"expires_in": 3600})
    refused: int = 0
    refusal: Reply | None = None
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
            if self.refusal is not None:
                assert callable(self.refusal)
                return await self.refusal(request)
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


def stale(**changes: Any) -> dict[str, Any]:
    """Tokens whose access token the portal refuses."""
    return {"access_token": "access-0", "refresh_token": "refresh-1", **changes}


class Clients:
    """Makes clients and closes them."""

    def __init__(self, portal: StubPortal) -> None:
        self._portal = portal
        self._made: list[RestClient] = []

    def __call__(self, tokens: Any, on_token: OnToken | None = None, **options: Any) -> RestClient:
        return self.of(self.auth(tokens, on_token), **options)

    def auth(self, tokens: Any, on_token: OnToken | None = None) -> OAuth:
        return OAuth(
            self._portal.url,
            client_id="app.1",
            client_secret="client-secret",
            tokens=tokens,
            oauth_url=f"{self._portal.url}/oauth/token/",
            on_token=on_token,
        )

    def of(self, auth: OAuth, **options: Any) -> RestClient:
        self._made.append(RestClient(auth, options=PullOptions(**options)))
        return self._made[-1]

    async def close(self) -> None:
        for rest in self._made:
            await rest.close()


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = orjson.loads(path.read_bytes())
    return content


def write(path: Path, content: dict[str, Any]) -> None:
    path.write_bytes(orjson.dumps(content))


@pytest.fixture
def grant(portal: StubPortal) -> Grant:
    grant = Grant(portal)
    grant.gate.set()
    portal.reply(grant.handle)
    return grant


@pytest.fixture
async def client(portal: StubPortal) -> AsyncIterator[Clients]:
    clients = Clients(portal)
    yield clients
    await clients.close()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "acme.json"
    write(path, stale(domain="acme.bitrix24.com"))
    path.chmod(0o600)
    return path
