"""The portal over HTTP: REST calls and the OAuth token endpoint (protocol §2)."""

import hmac
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import orjson
from aiohttp import web

from bitrix_pull.emulator import json_values, rest_errors
from bitrix_pull.emulator.answers import CORS, answer
from bitrix_pull.emulator.faults import RestFailure
from bitrix_pull.emulator.methods import METHODS
from bitrix_pull.emulator.paging import Page
from bitrix_pull.emulator.php import read_form
from bitrix_pull.emulator.portal import Portal, TokenRequest
from bitrix_pull.emulator.rest_batch import BATCH, run_batch
from bitrix_pull.emulator.rest_caller import Caller
from bitrix_pull.emulator.rest_errors import RestError
from bitrix_pull.emulator.tokens import TokenKind

PORTAL_PATHS = ("/rest/", "/oauth/")
"""How the paths begin that are the portal's, not the push server's."""

_ALLOWED = {
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "origin, content-type, accept, authorization",
}

_GRANTS: Mapping[str, tuple[TokenKind, str]] = {
    "refresh_token": ("refresh", "refresh_token"),
    "authorization_code": ("code", "code"),
}
"""By grant type: what is traded, and the field that it comes in."""


Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RestApi:
    """Serves one portal."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    def add_routes(self, app: web.Application) -> None:
        """Serve the portal's paths in an application."""
        add_portal_routes(app, self.rest, self.oauth_token)

    async def rest(self, request: web.Request) -> web.StreamResponse:
        """Answer a REST call."""
        await self._portal.faults.meet_call()
        failure = self._portal.faults.next_rest_failure()
        if failure is not None and not failure.applied:
            self._portal.calls[_name(request)] += 1
            self._portal.journal.note("rest", method=_name(request), status=failure.status)
            return _answer_failure(failure)
        answered = await self._answer(request)
        return answered if failure is None else _answer_failure(failure)

    async def _answer(self, request: web.Request) -> web.Response:
        note: dict[str, Any] = {"method": _name(request)}
        start = self._portal.now()
        started = time.perf_counter()
        try:
            if self._portal.faults.maintenance is not None:
                self._portal.calls[_name(request)] += 1
                raise RestError(*rest_errors.MAINTENANCE[self._portal.faults.maintenance])
            self._portal.limits.take(request.remote or "", _name(request))
            params = await _read_params(request)
            caller = self._authenticate(request, params)
            note |= {"params": params, "user": caller.user_id, "credentials": caller.credentials}
            self._portal.calls[_name(request)] += 1
            with self._portal.acting(caller.user_id, caller.own_connector):
                result = self._call(_name(request), caller, params)
        except RestError as error:
            self._portal.journal.note("rest", **note, status=error.status, error=error.code)
            return _answer_error(error)
        self._portal.journal.note("rest", **note, status=200)
        duration = time.perf_counter() - started
        times = {
            "start": int(start),
            "finish": start + duration,
            "duration": duration,
            "processing": 0,
            "date_start": self._portal.atom(start),
            "date_finish": self._portal.atom(start + duration),
            "operating_reset_at": int(start) + 600,
            "operating": 0,
        }
        beside: Mapping[str, int] = result.beside if isinstance(result, Page) else {}
        result = result.items if isinstance(result, Page) else result
        return _answer_json({"result": result, **beside, "time": times})

    def _authenticate(self, request: web.Request, params: dict[str, Any]) -> Caller:
        portal = self._portal
        if code := request.match_info.get("code"):
            user_id = int(request.match_info["user_id"])
            if not hmac.compare_digest(code, portal.webhook_code(user_id)):
                raise RestError(*rest_errors.INVALID_CREDENTIALS)
            return Caller(user_id, "webhook")
        token = params.pop("auth", None)
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        if token is None and scheme.lower() == "bearer":
            token = value.strip()
        grant = portal.tokens.open("access", token) if isinstance(token, str) else None
        if grant is None:
            raise RestError(*rest_errors.NO_AUTH_FOUND)
        if grant.expired:
            raise RestError(*rest_errors.EXPIRED_TOKEN)
        connector = str(params.pop("auth_connector", None) or "")
        if connector and portal.features.get("rest_auth_connector") == "N":
            raise RestError(*rest_errors.NO_CONNECTORS)
        return Caller(grant.user_id, "application", connector)

    def _call(self, name: str, caller: Caller, params: Mapping[str, Any]) -> Any:
        if name == BATCH:
            return run_batch(params, lambda method, given: self._call(method, caller, given))
        method = METHODS.get(name)
        if method is None and name in self._portal.static:
            return self._portal.static[name]
        if method is None:
            raise RestError(*rest_errors.METHOD_NOT_FOUND)
        method.check(self._portal, caller)
        return method.call(self._portal, caller, params)

    async def oauth_token(self, request: web.Request) -> web.StreamResponse:
        """Answer a request for tokens."""
        await self._portal.faults.meet_call()
        try:
            fields = read_form([*request.query.items(), *await _post_fields(request)])
            tokens = self._trade(fields)
        except RestError as error:
            self._portal.token_requests.append(TokenRequest(self._portal.now(), granted=False))
            self._portal.journal.note("oauth", status=error.status, error=error.code)
            return _answer_error(error)
        self._portal.token_requests.append(TokenRequest(self._portal.now(), granted=True))
        self._portal.journal.note("oauth", status=200)
        return _answer_json(tokens)

    def _trade(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Trade a refresh token, or the code of an authorisation, for tokens; either works once."""
        portal = self._portal
        kind, name = _GRANTS.get(fields.get("grant_type", ""), ("refresh", ""))
        given = fields.get(name)
        if not isinstance(given, str):
            raise RestError(*rest_errors.INVALID_OAUTH_REQUEST)
        if fields.get("client_id") != portal.client_id:
            raise RestError(*rest_errors.WRONG_CLIENT)
        if fields.get("client_secret") != portal.client_secret:
            raise RestError(*rest_errors.INVALID_CLIENT)
        grant = portal.tokens.open(kind, given)
        if grant is None or grant.expired:
            raise RestError(*rest_errors.INVALID_GRANT)
        portal.expire_token(given)
        return {
            "access_token": portal.issue_token(grant.user_id, portal.token_life_s),
            "refresh_token": portal.issue_refresh_token(grant.user_id),
            "expires": int(portal.now() + portal.token_life_s),
            "expires_in": int(portal.token_life_s),
            "client_endpoint": f"{portal.url}/rest/",
            "server_endpoint": f"{portal.url}/rest/",
            "domain": portal.address,
            "member_id": portal.member_id,
            "scope": ",".join(sorted(portal.application_scope)),
            "status": "L",
            "user_id": grant.user_id,
        }


def add_portal_routes(app: web.Application, rest: Serve, oauth_token: Serve) -> None:
    """Serve the paths of a portal, or of whichever one is asked for."""
    # nginx makes one of two slashes, and the official JavaScript client writes two before a method.
    paths = ("/rest/{method}", "/rest//{method}", r"/rest/{user_id:[0-9]{1,18}}/{code}/{method}")
    for verb, serve in (("GET", rest), ("POST", rest), ("OPTIONS", _preflight)):
        for path in paths:
            app.router.add_route(verb, path, serve)
    for verb in ("GET", "POST"):
        app.router.add_route(verb, "/oauth/token/", oauth_token)


async def _preflight(request: web.Request) -> web.StreamResponse:
    """Let a browser's page of another origin call."""
    return answer(headers=_ALLOWED)


def _name(request: web.Request) -> str:
    """Return the name of the method that is called, which goes in any case."""
    return request.match_info["method"].lower().removesuffix(".json")


async def _read_params(request: web.Request) -> dict[str, Any]:
    """Return the parameters of a call, from its query and its body alike."""
    params = read_form(request.query.items())
    if request.content_type != "application/json":
        return params | read_form(await _post_fields(request))
    try:
        body = json_values.loads(await request.read())
    except orjson.JSONDecodeError:
        # PHP drops JSON that it cannot read, a lone surrogate included, and `auth` with it.
        raise RestError(*rest_errors.NO_AUTH_FOUND) from None
    return params | cast("dict[str, Any]", body) if isinstance(body, dict) else params


async def _post_fields(request: web.Request) -> list[tuple[str, str]]:
    return [(name, value) for name, value in (await request.post()).items() if isinstance(value, str)]


def _answer_failure(failure: RestFailure) -> web.Response:
    return web.Response(
        status=failure.status,
        text=failure.body,
        content_type=failure.content_type,
        headers={**CORS, **failure.headers},
    )


def _answer_json(value: Any) -> web.Response:
    body = orjson.dumps(value)
    return web.Response(body=body, content_type="application/json", charset="utf-8", headers=CORS)


def _answer_error(error: RestError) -> web.Response:
    content: dict[str, Any] = {"error": error.code, "error_description": error.description}
    if error.operating_reset_at is not None:
        content["time"] = {"operating_reset_at": error.operating_reset_at}
    response = _answer_json(content)
    response.set_status(error.status)
    if error.retry_after is not None:
        response.headers["Retry-After"] = error.retry_after
    return response
