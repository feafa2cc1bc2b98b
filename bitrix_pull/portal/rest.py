"""Calls to REST methods of a portal."""

import asyncio
import logging
import re
import time
from collections.abc import Mapping
from typing import Any

import aiohttp

from bitrix_pull.errors import CallerFailed, InvalidArgument, PullError, TokenExpired, Unreachable
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.answers import RestAnswer, read_rest_answer
from bitrix_pull.portal.auth import Caller, Credentials, Mode, check_credentials
from bitrix_pull.portal.http import HttpSession
from bitrix_pull.wire.json_text import encode_json

_log = logging.getLogger("bitrix_pull.portal")
_METHOD = re.compile(r"[A-Za-z0-9_.]+")


class RestClient:
    """Calls REST methods with the given credentials, or through the user's own client.

    Can be created outside a running loop, and used again after ``close()``.

    Args:
        auth: ``OAuth``, ``AccessToken``, ``Webhook``, or any ``Caller``.
        options: Deadlines and limits.
        http: A session to use instead of one of its own; it is not closed.

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
        http: aiohttp.ClientSession | None = None,
    ) -> None:
        self._options = options or PullOptions()
        if isinstance(auth, Credentials):
            check_credentials(auth, self._options)
        elif not callable(getattr(auth, "call", None)):
            raise InvalidArgument(
                f"{type(auth).__name__} is no way to call a portal",
                advice="Pass OAuth, AccessToken, Webhook or an object with async call(method, params).",
            )
        self._auth = auth
        self.http = HttpSession(self._options, http)

    @property
    def default_mode(self) -> Mode:
        """Whose channels the credentials reach: a webhook is a user, all else an application."""
        return self._auth.mode if isinstance(self._auth, Credentials) else "application"

    @property
    def identity(self) -> str:
        """Names portal and application for a person to read; holds no secret."""
        return self._auth.identity if isinstance(self._auth, Credentials) else type(self._auth).__name__

    async def call(self, method: str, params: Mapping[str, Any] | None = None) -> Any:
        """Call a method and return what stands under ``result``.

        An expired token is refreshed and the call repeated, once, where the credentials can.

        Args:
            method: As in "pull.application.event.add".
            params: JSON values.

        Raises:
            InvalidArgument: The method or the params cannot be sent; nothing was.
            PortalError: The portal refused the call, or is none.
            Unreachable: Nothing answered in time.
            AnswerTooLarge: The answer is over ``options.max_rest_bytes``.
        """
        return (await self.ask(method, params)).result

    async def ask(self, method: str, params: Mapping[str, Any] | None = None) -> RestAnswer:
        """Do as ``call`` does, and return the portal's clock beside the result."""
        if _METHOD.fullmatch(method) is None:
            raise InvalidArgument("a REST method is named by letters, digits, dots and underscores")
        params = dict(params or {})
        encode_json(params)  # Refuses what cannot be sent before anything is.
        timeout_s = self._options.rest_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                if isinstance(self._auth, Credentials):
                    return await self._ask_portal(self._auth, method, params)
                return await _ask_caller(self._auth, method, params)
        except TimeoutError:
            raise Unreachable(f"{method}: no answer within {timeout_s:g} s") from None

    async def _ask_portal(self, auth: Credentials, method: str, params: dict[str, Any]) -> RestAnswer:
        token = await auth.token(self.http, self._options)
        try:
            return await self._post(auth, method, params, token)
        except TokenExpired:
            renewed = token and await auth.renew(token, self.http, self._options)
            if not renewed:
                raise
        return await self._post(auth, method, params, renewed)

    async def _post(
        self, auth: Credentials, method: str, params: dict[str, Any], token: str | None
    ) -> RestAnswer:
        started = time.monotonic()
        answer = await self.http.request(
            "POST",
            f"{auth.endpoint}{method}.json",
            body=encode_json({**params, "auth": token} if token else params),
            headers={"Content-Type": "application/json"},
            timeout_s=self._options.rest_timeout_s,
            max_bytes=self._options.max_rest_bytes,
        )
        duration_s = time.monotonic() - started
        _log.debug(
            "%s: HTTP %d in %.3f s",
            method,
            answer.status,
            duration_s,
            extra={"method": method, "status": answer.status, "duration_s": duration_s},
        )
        return read_rest_answer(answer, method, auth.secrets)

    async def close(self) -> None:
        """Wait for a token refresh under way, and close the session if it was made here."""
        if isinstance(self._auth, Credentials):
            await self._auth.close()
        await self.http.close()


async def _ask_caller(caller: Caller, method: str, params: dict[str, Any]) -> RestAnswer:
    try:
        return RestAnswer(await caller.call(method, params))
    except PullError:
        raise
    except Exception as error:
        text = f"{method}: your REST client raised {type(error).__name__}"
        raise CallerFailed(text, method=method) from error
