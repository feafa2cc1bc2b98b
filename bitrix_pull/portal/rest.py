"""Calls to REST methods of a portal."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp

from bitrix_pull.errors import (
    AuthError,
    CallerFailed,
    InvalidArgument,
    PullError,
    RateLimited,
    TokenExpired,
    Unreachable,
)
from bitrix_pull.options import PullOptions, RateLimit, check_number
from bitrix_pull.portal.addresses import portal_origin
from bitrix_pull.portal.answers import RestAnswer, read_rest_answer
from bitrix_pull.portal.auth import Caller, Credentials, Mode, Owner, Webhook, check_credentials
from bitrix_pull.portal.destinations import Destinations
from bitrix_pull.portal.foreign_errors import is_failure
from bitrix_pull.portal.http import HttpAnswer, HttpSession
from bitrix_pull.portal.http_pool import HttpPool
from bitrix_pull.portal.portal_clock import date_of
from bitrix_pull.portal.rate_limits import LeakyBucket, bucket_for
from bitrix_pull.redaction import get_logger
from bitrix_pull.telemetry import Around, log_fields
from bitrix_pull.wire.json_text import encode_json

_log = get_logger("portal")
_METHOD = re.compile(r"[A-Za-z0-9_.]+")

FIRST_BACKOFF_S = 0.5
"""How long to wait where the portal says "too often" but not until when; then twice as long."""


class _Deadline:
    """When a call must be done; tells what it is called when it is not."""

    def __init__(self, method: str, timeout_s: float) -> None:
        self._method = method
        self.timeout_s = timeout_s
        self.at = asyncio.get_running_loop().time() + timeout_s

    @property
    def left_s(self) -> float:
        return self.at - asyncio.get_running_loop().time()

    @asynccontextmanager
    async def keep(self, *, unsent: bool) -> AsyncGenerator[None]:
        """Keep it while something is done.

        Args:
            unsent: True while the call itself has not left: whoever gets the error may want
                to know.
        """
        try:
            async with asyncio.timeout_at(self.at):
                yield
        except TimeoutError:
            what = "no access token, from its store or the OAuth server," if unsent else "no answer"
            text = f"{self._method}: {what} within {self.timeout_s:g} s"
            raise Unreachable(text, unsent=unsent) from None
        except Unreachable as error:
            error.unsent |= unsent
            raise


class RestClient:
    """Calls REST methods with the given credentials, or through the user's own client.

    Can be created outside a running loop, and used again after ``close()``.

    Args:
        auth: ``OAuth``, ``AccessToken``, ``Webhook``, or any ``Caller``.
        options: Deadlines and limits.
        http: A session, or a pool of many clients, to use instead of one of its own; it is not closed.

    Attributes:
        http: The session, to be shared with whoever talks to the push server over HTTP.

    Raises:
        InvalidArgument: The credentials are none, or would travel unencrypted.
    """

    def __init__(
        self,
        auth: Credentials | Caller,
        *,
        options: PullOptions | None = None,
        http: aiohttp.ClientSession | HttpPool | None = None,
    ) -> None:
        self._options = options or PullOptions()
        self._bucket = LeakyBucket(None)  # The user's own client keeps limits itself.
        if isinstance(auth, Credentials):
            check_credentials(auth, self._options)
            self._bucket = bucket_for(auth.endpoint, self._options.rest_limit)
        elif not callable(getattr(auth, "call", None)):
            raise InvalidArgument(
                f"{type(auth).__name__} is no way to call a portal",
                advice="Pass OAuth, AccessToken, Webhook or an object with async call(method, params).",
            )
        self._auth = auth
        self._given_http = http
        self.around: Around | None = None
        """What is around each call."""
        self.http: HttpSession = HttpSession(self._options, http, _destinations(auth, self._options))

    @property
    def default_mode(self) -> Mode:
        """Whose channels the credentials reach: a webhook is a user, all else an application."""
        return self._auth.mode if isinstance(self._auth, Credentials) else "application"

    @property
    def kind(self) -> str:
        """What the calls are made with: "OAuth", "Webhook", or the class of a user's own client."""
        return type(self._auth).__name__

    @property
    def origin(self) -> str | None:
        """Where the portal is, ``https://acme.bitrix24.com``; None where a user's own client knows that."""
        if not isinstance(self._auth, Credentials):
            return None
        parts = urlsplit(self._auth.endpoint)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def portal(self) -> str:
        """The portal's host, as far as it is known: a user's own client may not tell."""
        if isinstance(self._auth, Credentials):
            return urlsplit(self._auth.endpoint).netloc
        portal = getattr(self._auth, "portal", None)
        if isinstance(portal, str):
            return urlsplit(portal_origin(portal)).netloc
        return type(self._auth).__name__

    @property
    def limit(self) -> RateLimit | None:
        """How many calls the portal takes; None where no limit is known."""
        return self._bucket.limit

    @property
    def next_call_in_s(self) -> float:
        """Seconds that a call would have to wait for the portal's limits."""
        return self._bucket.wait_s()

    @property
    def refused_calls(self) -> Mapping[str, int]:
        """How often the portal has refused a call over its limits, by what it said; of other clients too."""
        return self._bucket.refused

    @property
    def waited_s(self) -> float:
        """Seconds that calls to the portal have waited for its limits, those of other clients too."""
        return self._bucket.waited_s

    @property
    def token_refreshes(self) -> int:
        """How often the access token was refreshed with these credentials."""
        return self._auth.refreshes if isinstance(self._auth, Credentials) else 0

    @property
    def failed_token_refreshes(self) -> Mapping[str, int]:
        """How often it could not be, by the class of the error."""
        return self._auth.failed_refreshes if isinstance(self._auth, Credentials) else {}

    @property
    def calls_per_s(self) -> float | None:
        """How many calls a second the portal takes for long; None where no limit is known."""
        return self._bucket.limit.per_s if self._bucket.limit is not None else None

    @property
    def sees_whole_answers(self) -> bool:
        """True if an answer tells what stands beside the result; a user's own client may not."""
        return isinstance(self._auth, Credentials)

    @property
    def secrets(self) -> Iterable[str]:
        """Texts that no error may show, should the portal echo them."""
        return self._auth.secrets if isinstance(self._auth, Credentials) else ()

    @property
    def identity(self) -> str:
        """Names portal and application for a person to read; holds no secret."""
        return self._auth.identity if isinstance(self._auth, Credentials) else type(self._auth).__name__

    async def owner(self) -> Owner:
        """Return whose stream the credentials bring, as far as they tell.

        Raises:
            PullError: They cannot be read.
        """
        if isinstance(self._auth, Credentials):
            return await self._auth.owner()
        portal = getattr(self._auth, "portal", None)
        return Owner(urlsplit(portal_origin(portal)).netloc if isinstance(portal, str) else self.identity)

    async def token_expires_unix(self) -> float | None:
        """Return when the access token expires, by the portal's clock; None where that is not known.

        Raises:
            PullError: The tokens cannot be read.
        """
        return await self._auth.expires_unix() if isinstance(self._auth, Credentials) else None

    def sibling(self) -> "RestClient":
        """Return another one with the same credentials and options, and a session of its own to close."""
        return RestClient(self._auth, options=self._options, http=self._given_http)

    async def knock(self) -> HttpAnswer:
        """Ask the portal who is there, without credentials, and return the refusal that it answers.

        Raises:
            PortalError: What answers is no portal, or one that is out of service.
            Unreachable: Nothing answered.
        """
        method, endpoint = "server.time", f"{self.origin}/rest/"
        answer = await self.http.request(
            "POST",
            f"{endpoint}{method}.json",
            timeout_s=self._options.rest_timeout_s,
            max_bytes=self._options.max_rest_bytes,
        )
        with contextlib.suppress(AuthError):
            read_rest_answer(answer, method, (), endpoint)
        return answer

    async def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> Any:
        """Call a method and return what stands under ``result``.

        An expired token is refreshed and the call repeated, once, where the credentials can.
        Limits of the portal are waited out. Nothing else is repeated: whether a call that
        found no answer was carried out is for the caller to find out.

        Args:
            method: As in "pull.application.event.add".
            params: JSON values.
            timeout_s: Deadline over everything; None: ``options.rest_timeout_s``.

        Raises:
            InvalidArgument: The method or the params cannot be sent; nothing was.
            PortalError: The portal refused the call, or is none; RateLimited, at once, if
                its limits would have to be waited out for longer than the deadline.
            Unreachable: Nothing answered in time; its ``unsent`` says whether the call left.
            AnswerTooLarge: The answer is over ``options.max_rest_bytes``.
        """
        return (await self.ask(method, params, timeout_s=timeout_s)).result

    async def ask(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        first: bool = False,
    ) -> RestAnswer:
        """Do as ``call`` does, and return the portal's clock beside the result.

        Args:
            method: See ``call``.
            params: See ``call``.
            timeout_s: See ``call``.
            first: True to go before all calls that wait for the portal's limits.
        """
        if self.around is not None:
            with self.around(method):
                return await self._ask(method, params, timeout_s, first=first)
        return await self._ask(method, params, timeout_s, first=first)

    async def _ask(
        self, method: str, params: Mapping[str, Any] | None, timeout_s: float | None, *, first: bool
    ) -> RestAnswer:
        check_method(method)
        params = dict(check_params(params))
        if isinstance(self._auth, Credentials) and not isinstance(self._auth, Webhook):
            params.pop("auth", None)  # The token takes its place.
        content = encode_json(params)  # Refuses what cannot be sent before anything is.
        timeout_s = self._options.rest_timeout_s if timeout_s is None else timeout_s
        check_number("timeout_s", timeout_s)
        if isinstance(self._auth, Credentials):
            deadline = _Deadline(method, timeout_s)
            return await self._ask_portal(self._auth, method, content, deadline, first=first)
        async with _Deadline(method, timeout_s).keep(unsent=False):
            return await _ask_caller(self._auth, method, params)

    async def _ask_portal(
        self, auth: Credentials, method: str, content: bytes, deadline: _Deadline, *, first: bool
    ) -> RestAnswer:
        async with deadline.keep(unsent=True):
            token = await auth.token(self.http, self._options)
        try:
            return await self._post(auth, method, content, token, deadline, first=first)
        except TokenExpired:
            async with deadline.keep(unsent=True):
                renewed = token and await auth.renew(token, self.http, self._options)
            if not renewed:
                raise
        try:
            return await self._post(auth, method, content, renewed, deadline, first=first)
        except TokenExpired as error:
            raise TokenExpired(
                f"{method}: the portal refuses the renewed token too ({error.code}, HTTP {error.status})",
                code=error.code,
                status=error.status,
                method=method,
                advice="Check that the tokens are this portal's: client_endpoint beside them names theirs.",
            ) from None

    async def _post(
        self,
        auth: Credentials,
        method: str,
        content: bytes,
        token: str | None,
        deadline: _Deadline,
        *,
        first: bool,
    ) -> RestAnswer:
        """Post a call when the portal's limits let it, and again if they did not after all.

        A call over the limits was not carried out, so any may be repeated.
        """
        backoff_s = FIRST_BACKOFF_S
        while True:
            await self._bucket.admit(method, deadline.at, first=first)
            try:
                async with deadline.keep(unsent=False):
                    return await self._post_once(auth, method, content, token, deadline.timeout_s)
            except RateLimited as error:
                pause_s = max(backoff_s, error.retry_after_s or 0.0)
                self._bucket.pause(error, pause_s)
                if pause_s > deadline.left_s:
                    raise
                _log.info(
                    "%s: over the portal's limit, again in %.1f s",
                    method,
                    pause_s,
                    extra=log_fields(method=method, retry_in_s=pause_s),
                )
            backoff_s *= 2

    async def _post_once(
        self, auth: Credentials, method: str, content: bytes, token: str | None, timeout_s: float
    ) -> RestAnswer:
        started = time.monotonic()
        answer = await self.http.request(
            "POST",
            f"{auth.endpoint}{method}.json",
            body=_with_token(content, token) if token else content,
            headers={"Content-Type": "application/json"},
            timeout_s=timeout_s,
            max_bytes=self._options.max_rest_bytes,
        )
        duration_s = time.monotonic() - started
        _log.debug(
            "%s: HTTP %d in %.3f s",
            method,
            answer.status,
            duration_s,
            extra=log_fields(method=method, status=answer.status, duration_s=duration_s),
        )
        # Refusals tell the time too.
        if (unix := date_of(answer.headers)) is not None:
            self.http.clock.learn(unix)
        told = read_rest_answer(answer, method, auth.secrets, auth.endpoint)
        if told.server_time is not None:
            self.http.clock.learn(told.server_time.timestamp())
        return told

    async def close(self) -> None:
        """Wait for a token refresh under way, and close the session if it was made here."""
        if isinstance(self._auth, Credentials):
            await self._auth.close()
        await self.http.close()


def _with_token(content: bytes, token: str) -> bytes:
    """Return a call's JSON object with the access token as its last member."""
    comma = b"," if len(content) > len(b"{}") else b""
    return b'%s%s"auth":%s}' % (content[:-1], comma, encode_json(token))


def check_method(method: object) -> None:
    """Refuse what can name no REST method.

    Raises:
        InvalidArgument: It can be none.
    """
    if not isinstance(method, str) or _METHOD.fullmatch(method) is None:
        raise InvalidArgument("a REST method is named by letters, digits, dots and underscores")


def check_params(params: Any) -> Mapping[str, Any]:
    """Return a method's parameters, of which there may be none.

    Raises:
        InvalidArgument: They are no mapping.
    """
    if params is None:
        return {}
    if not isinstance(params, Mapping):
        raise InvalidArgument(f"params must be a mapping of names to values, not {type(params).__name__}")
    return cast("Mapping[str, Any]", params)


def _destinations(auth: Credentials | Caller, options: PullOptions) -> Destinations:
    if isinstance(auth, Credentials):
        return Destinations(options, portal=auth.endpoint, named=auth.addresses)
    portal = getattr(auth, "portal", None)
    return Destinations(options, portal=portal_origin(portal) if isinstance(portal, str) else None)


async def _ask_caller(caller: Caller, method: str, params: dict[str, Any]) -> RestAnswer:
    try:
        return RestAnswer(await caller.call(method, params))
    except PullError:
        raise
    except BaseException as error:
        if not is_failure(error):
            raise
        text = f"{method}: your REST client raised {type(error).__name__}"
        raise CallerFailed(text, method=method) from error
