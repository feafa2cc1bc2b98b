"""From an HTTP answer to a result or a typed error (protocol §2).

The body decides first and the status second, since the portal sends errors with 200 and
results with any status.
"""

import codecs
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import orjson

from bitrix_pull.errors import (
    AccessDenied,
    GrantRefused,
    NoAuth,
    NotAPortal,
    NotConfigured,
    OperationTimeLimit,
    PaymentRequired,
    PortalError,
    PortalMoved,
    PortalUnavailable,
    RateLimited,
)
from bitrix_pull.portal.http import HttpAnswer
from bitrix_pull.redaction import quoted
from bitrix_pull.wire.json_guard import is_dense
from bitrix_pull.wire.messages import is_object


def _with_subclasses(error: type[PortalError]) -> Iterator[type[PortalError]]:
    yield error
    for subclass in error.__subclasses__():
        yield from _with_subclasses(subclass)


BY_CODE = {code: error for error in _with_subclasses(PortalError) for code in vars(error).get("codes", ())}
"""The portal's error codes, in lower case, and their classes."""

BY_STATUS: dict[int, type[PortalError]] = {
    401: NoAuth,
    402: PaymentRequired,
    403: AccessDenied,
}
"""What a status means where the body names no code; 429, 3xx and 5xx are dealt with apart."""

OAUTH_CODES: dict[str, type[PortalError]] = {
    **BY_CODE,
    **dict.fromkeys(("invalid_request", "expired_token", "invalid_token"), GrantRefused),
}
"""The same for the OAuth server: its ``invalid_request`` has nothing to do with https, and what
has expired there is the refresh token."""

_WRONG_APPLICATION = "Check client_id and client_secret: they must be those of this application."
_OAUTH_ADVICE = {
    "invalid_client": _WRONG_APPLICATION,
    "wrong_client": _WRONG_APPLICATION,
    "not_installed": "Install the application on the portal again and store the new tokens.",
}

_SECONDS = re.compile(r"[0-9]{1,9}")


_GROWTH = 6
"""How much larger than its text an answer may be in memory; that of a genuine one is below 5."""


@dataclass(slots=True, frozen=True)
class RestAnswer:
    """What a REST call gave.

    Attributes:
        result: What stands under ``result``, as JSON values.
        server_time: The portal's clock when it answered (UTC), or None where unknown.
        next: Where the next page of a list begins; None if there is none.
    """

    result: Any = field(repr=False)
    server_time: datetime | None = None
    next: int | None = None


def read_rest_answer(answer: HttpAnswer, method: str, secrets: Iterable[str]) -> RestAnswer:
    """Return what a portal answered to a REST call.

    Args:
        answer: The HTTP answer.
        method: The REST method, for error texts.
        secrets: Texts that the portal may echo and no error text may hold.

    Raises:
        PortalError: The portal refused the call, or the answer is none of a portal.
    """
    content = _parse(answer.body)
    _raise_for_code(content, answer, method, secrets, BY_CODE)
    if 300 <= answer.status < 400 or not is_object(content) or "result" not in content:
        raise _error_by_status(answer, method)
    return RestAnswer(
        content["result"], _server_time(content.get("time"), answer), _next_page(content.get("next"))
    )


def refusal(content: object, method: str, secrets: Iterable[str]) -> PortalError:
    """Return the error that a portal answered to one call of a batch.

    Args:
        content: ``error`` and ``error_description``; the error is the portal's own word.
        method: The REST method, for the error's text.
        secrets: Texts that the portal may echo and no error text may hold.
    """
    try:
        _raise_for_code(content, HttpAnswer(200, {}, b""), method, secrets, BY_CODE)
    except PortalError as error:
        return error
    return PortalError(f"{method}: the portal refused it, and did not say why", method=method)


def _next_page(value: object) -> int | None:
    """Return a page's beginning, which is a number or its text."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 19:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_token_answer(answer: HttpAnswer, secrets: Iterable[str]) -> dict[str, Any]:
    """Return the fields with which the OAuth server answered a refresh.

    Raises:
        PortalError: It refused, or the answer holds no tokens.
    """
    content = _parse(answer.body)
    _raise_for_code(content, answer, "OAuth refresh", secrets, OAUTH_CODES, _OAUTH_ADVICE)
    if is_object(content):
        tokens = (content.get("access_token"), content.get("refresh_token"))
        if all(isinstance(token, str) and token for token in tokens):
            return content
    raise _error_by_status(answer, "OAuth refresh", "Check oauth_url: a token endpoint must answer there.")


def _parse(body: bytes) -> object:
    if is_dense(body, _GROWTH):
        return None
    try:
        # A byte order mark in one of a portal's own PHP files ends up here.
        return orjson.loads(body.removeprefix(codecs.BOM_UTF8))
    except orjson.JSONDecodeError:
        return None


def _raise_for_code(
    content: object,
    answer: HttpAnswer,
    method: str,
    secrets: Iterable[str],
    classes: dict[str, type[PortalError]],
    advice: Mapping[str, str] = {},
) -> None:
    """Raise the error that the body names, if it names one."""
    if not is_object(content):
        return
    code = content.get("error")
    if isinstance(code, int) and not isinstance(code, bool):
        code = str(code)
    if not isinstance(code, str):
        return
    secrets = tuple(secrets)
    code = quoted(code, secrets)
    description = quoted(content.get("error_description"), secrets)
    kind = classes.get(code.lower(), PortalError)
    if not code:
        # So crm.* says that there is no such record; others say nothing at all.
        if not description or answer.status == 429 or answer.status >= 500:
            return
        kind = BY_STATUS.get(answer.status, PortalError)
    if kind is NotConfigured and description and "not configured" not in description.lower():
        # SERVER_ERROR is also what any failed PHP call may be called.
        kind = PortalUnavailable if answer.status >= 500 else PortalError
    where = f"{code}, HTTP {answer.status}" if code and description else f"HTTP {answer.status}"
    text = f"{description or code} ({where})"
    if not issubclass(kind, RateLimited):
        told = advice.get(code.lower())
        raise kind(f"{method}: {text}", code=code, status=answer.status, method=method, advice=told)
    raise _rate_limited(kind, text, answer, method, content, code)


def _rate_limited(
    kind: type[RateLimited],
    text: str,
    answer: HttpAnswer,
    method: str,
    content: Mapping[str, Any] = {},
    code: str = "",
) -> RateLimited:
    """Return the error that says for how long the portal wants to be left alone."""
    times = content.get("time")
    # Both by the portal's clock: what this machine's shows says nothing about the wait.
    now = _server_time(times, answer) or datetime.now(UTC)
    reset_at = _reset_at(times) if issubclass(kind, OperationTimeLimit) else None
    waits_s = [reset_at - now.timestamp()] if reset_at is not None else []
    waits_s += retry_after_s(answer, now)
    wait_s = max(0.0, *waits_s) if waits_s else None
    if wait_s is not None:
        text += f"; it takes the call again in {wait_s:.0f} s"
    error = kind(f"{method}: {text}", code=code, status=answer.status, method=method)
    error.retry_after_s = wait_s
    if isinstance(error, OperationTimeLimit):
        error.reset_at = reset_at
    return error


def retry_after_s(answer: HttpAnswer, now: datetime) -> list[float]:
    """Return what ``Retry-After`` says, in seconds or as a date, if it is there and makes sense."""
    value = answer.headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(value):
        return [float(value)]
    try:
        return [(parsedate_to_datetime(value).astimezone(UTC) - now).total_seconds()]
    except (ValueError, OverflowError):
        return []


def _error_by_status(answer: HttpAnswer, method: str, advice: str | None = None) -> PortalError:
    """Return the error for an answer whose body says nothing."""
    status = answer.status
    if status == 429 or (status == 503 and "Retry-After" in answer.headers):
        return _rate_limited(RateLimited, f"HTTP {status}", answer, method)
    if status >= 500:
        return PortalUnavailable(f"{method}: HTTP {status}", status=status, method=method)
    if 300 <= status < 400 and "Location" in answer.headers:
        target = _redirect_target(answer.headers["Location"])
        text = f"{method}: HTTP {status} redirects to {target}"
        moved = PortalMoved(text, status=status, method=method, advice=advice)
        moved.target = target
        return moved
    kind = BY_STATUS.get(status, NotAPortal)
    text = f"{method}: HTTP {status}, and the body is none of Bitrix24's"
    return kind(text, status=status, method=method, advice=advice)


def _redirect_target(location: str) -> str:
    """Return scheme and host of a redirect; the rest of it may hold a secret."""
    try:
        parts = urlsplit(location)
        scheme, host, port = parts.scheme or "https", parts.hostname or "", parts.port
    except ValueError:
        scheme, host, port = "", "", None
    if not host:
        return "another page of its own"
    return quoted(f"{scheme}://{host}:{port}" if port else f"{scheme}://{host}")


def _server_time(times: object, answer: HttpAnswer) -> datetime | None:
    """Return the portal's clock, from the body's ``time`` or the ``Date`` of HTTP."""
    finish = times.get("finish") if is_object(times) else None
    try:
        if isinstance(finish, int | float):
            return datetime.fromtimestamp(finish, UTC)
        return parsedate_to_datetime(answer.headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError, OverflowError, OSError):
        return None


def _reset_at(times: object) -> float | None:
    value = times.get("operating_reset_at") if is_object(times) else None
    return float(value) if isinstance(value, int | float) else None
