"""No secret shows in a log record, an error with its whole chain, or a repr."""

import asyncio
import logging
import traceback
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from bitrix_pull.errors import PullError
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.auth import AccessToken, Credentials, Webhook
from bitrix_pull.portal.config import ConfigFetcher
from bitrix_pull.portal.oauth import OAuth
from bitrix_pull.portal.rest import RestClient

from .conftest import Reply, StubPortal, answer, hang_up

CANARY = "canary0" * 3
LIVE: Any = orjson.loads((Path(__file__).parents[1] / "reference" / "config_v4_live.json").read_bytes())
SPOILT: Any = orjson.loads(orjson.dumps(LIVE))
SPOILT["result"]["channels"]["private"] |= {"id": CANARY, "end": CANARY}
SPOILT["result"]["publicChannels"]["577"] = CANARY
GOOD: Any = orjson.loads(orjson.dumps(LIVE))
GOOD["result"] |= {"jwt": CANARY, "clientId": CANARY}
GOOD["result"]["channels"]["private"] |= {"id": CANARY, "public_id": CANARY}
GOOD["result"]["publicChannels"]["577"] |= {"public_id": CANARY, "signature": CANARY}


async def echo(request: web.Request) -> web.StreamResponse:
    """Repeat all that was sent, as a thoughtless error page would."""
    text = f"{request.url} {request.raw_path} {await request.text()}"
    return web.json_response({"error": text, "error_description": text}, status=400)


async def expire(request: web.Request) -> web.StreamResponse:
    text = f"expired: {await request.text()}"
    return web.json_response({"error": "expired_token", "error_description": text}, status=401)


async def echo_as_html(request: web.Request) -> web.StreamResponse:
    return web.Response(text=f"{request.url} {await request.text()}", status=404)


async def move(request: web.Request) -> web.StreamResponse:
    return web.Response(
        status=302, headers={"Location": f"https://new.example{request.rel_url}?auth={CANARY}"}
    )


async def break_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "99"})
    await response.prepare(request)
    await response.write(CANARY.encode())
    return await hang_up(request)


async def stall(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(5)
    return web.Response()


REPLIES: dict[str, Reply] = {
    "good": answer(GOOD),
    "spoilt": answer(SPOILT),
    "echo": echo,
    "html": echo_as_html,
    "moved": move,
    "broken off": break_off,
    "hung up": hang_up,
    "stalled": stall,
    "too large": answer({"result": CANARY * 1000}),
    "expired": expire,
    "cookie": answer(GOOD, Set_Cookie=f"{CANARY}={CANARY}; expires={CANARY}"),
}


def credentials(kind: str, portal: StubPortal, folder: Path) -> Credentials:
    tokens = {"access_token": f"access-{CANARY}", "refresh_token": f"refresh-{CANARY}"}
    file = folder / "tokens.json"
    file.write_text(orjson.dumps(tokens).decode())
    secret: dict[str, Any] = {"client_id": "app.1", "client_secret": f"secret-{CANARY}"}
    oauth_url = f"{portal.url}/oauth/token/"
    match kind:
        case "webhook":
            return Webhook(f"{portal.url}/rest/1/{CANARY}/")
        case "token":
            return AccessToken(portal.url, f"access-{CANARY}")
        case "oauth":
            return OAuth(portal.url, tokens=file, oauth_url=oauth_url, **secret)
        case _:
            return OAuth(portal.url, tokens=tokens | {"expires": 1}, oauth_url=oauth_url, **secret)


@pytest.mark.parametrize("kind", ["webhook", "token", "oauth", "expired oauth"])
@pytest.mark.parametrize("reply", REPLIES)
async def test_no_secret_shows_whatever_the_portal_answers(
    portal: StubPortal, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, reply: str
) -> None:
    caplog.set_level(logging.DEBUG)
    portal.reply(REPLIES[reply])
    auth = credentials(kind, portal, tmp_path)
    rest = RestClient(
        auth, options=PullOptions(rest_timeout_s=0.5 if reply == "stalled" else 5.0, max_rest_bytes=10_000)
    )
    shown: list[str] = [repr(auth), repr(rest)]
    try:
        config = await ConfigFetcher(rest).fetch()
        shown += [repr(config), str(config)]
    except PullError as error:
        shown += [repr(error), *traceback.format_exception(error)]
    await rest.close()
    await asyncio.sleep(0)
    for record in caplog.records:
        if record.name != "aiohttp.access":  # The stub's own.
            shown += [record.getMessage(), repr(vars(record))]
    assert portal.calls
    assert not [text for text in shown if CANARY in text]
