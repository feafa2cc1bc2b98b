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
    AuthError,
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
    WrongLicense,
)
from bitrix_pull.portal.http import HttpAnswer
from bitrix_pull.portal.pages import describe, describe_own_redirect
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
_WRONG_OAUTH_URL = "Check oauth_url: a token endpoint must answer there."
_OAUTH_ADVICE = {
    "invalid_client": _WRONG_APPLICATION,
    "wrong_client": _WRONG_APPLICATION,
    "not_installed": "Install the application on the portal again and store the new tokens.",
}

_PLAN = re.compile(r"commercial (?:plan|tariff)|by subscription", re.IGNORECASE)
"""What the portal says, as ACCESS_DENIED, where its plan does not include REST at all."""

_NO_REST_ADVICE = "The portal's owner must take a commercial plan, or a subscription, that includes REST."

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


def read_rest_answer(
    answer: HttpAnswer, method: str, secrets: Iterable[str], endpoint: str = ""
) -> RestAnswer:
    """Return what a portal answered to a REST call.

    Args:
        answer: The HTTP answer.
        method: The REST method, for error texts.
        secrets: Texts that the portal may echo and no error text may hold.
        endpoint: The address that was asked, to tell a portal that moved from one that
            redirects to another page of its own.

    Raises:
        PortalError: The portal refused the call, or the answer is none of a portal.
    """
    secrets = tuple(secrets)
    content = _parse(answer.body)
    _raise_for_code(content, answer, method, secrets, BY_CODE)
    if 300 <= answer.status < 400 or not is_object(content) or "result" not in content:
        raise _error_by_status(answer, method, secrets, endpoint=endpoint)
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
    secrets = tuple(secrets)
    content = _parse(answer.body)
    _raise_for_code(content, answer, "OAuth refresh", secrets, OAUTH_CODES, _OAUTH_ADVICE)
    if is_object(content):
        tokens = (content.get("access_token"), content.get("refresh_token"))
        if all(isinstance(token, str) and token for token in tokens):
            return content
    raise _error_by_status(answer, "OAuth refresh", secrets, advice=_WRONG_OAUTH_URL)


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
    secrets = tuple(secrets)
    code, description = (quoted(words, secrets) for words in _refusal_of(content))
    if not code and not description:
        return
    kind = _kind(code, description, answer.status, classes)
    where = f"{code}, HTTP {answer.status}" if code and description else f"HTTP {answer.status}"
    text = f"{description or code} ({where})"
    if issubclass(kind, RateLimited):
        raise _rate_limited(kind, text, answer, method, content, code)
    told = advice.get(code.lower())
    if kind is WrongLicense and code.lower() not in WrongLicense.codes:
        told = _NO_REST_ADVICE
    raise kind(f"{method}: {text}", code=code, status=answer.status, method=method, advice=told)


def _refusal_of(content: Mapping[str, Any]) -> tuple[str, object]:
    """Return the code and the words of a refusal; nothing of either where there is none.

    The code may be a number, or missing where crm.* says that there is no such record. Newer
    methods put both into a map.
    """
    error: object = content.get("error")
    if is_object(error):
        return str(error.get("code") or ""), error.get("message")
    if isinstance(error, str | int) and not isinstance(error, bool):
        code = str(error)
        if "result" not in content or code not in ("", "0"):
            return code, content.get("error_description")
    return "", None


def _kind(
    code: str, description: str, status: int, classes: Mapping[str, type[PortalError]]
) -> type[PortalError]:
    """Return the class of a refusal, by its code, or by the status where nobody knows the code."""
    known = classes.get(code.lower())
    if known is NotConfigured and description and "not configured" not in description.lower():
        # SERVER_ERROR is also what any failed PHP call may be called.
        known = None
    if known is AccessDenied and _PLAN.search(description):
        return WrongLicense
    if known is not None:
        return known
    if status == 429:
        return RateLimited
    if status >= 500:
        return PortalUnavailable
    if code and status in (401, 403):
        return AuthError
    return BY_STATUS.get(status, PortalError)


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


def _error_by_status(
    answer: HttpAnswer,
    method: str,
    secrets: Iterable[str],
    *,
    endpoint: str = "",
    advice: str | None = None,
) -> PortalError:
    """Return the error for an answer whose body names none."""
    status = answer.status
    if 300 <= status < 400 and "Location" in answer.headers:
        return _redirected(answer, method, endpoint, advice)
    page = describe(answer, secrets)
    text = f"HTTP {status} with {page.told}"
    if status == 429 or (status == 503 and "Retry-After" in answer.headers):
        return _rate_limited(RateLimited, text, answer, method)
    kind = PortalUnavailable if status >= 500 else BY_STATUS.get(status, NotAPortal)
    return kind(f"{method}: {text}", status=status, method=method, advice=advice or page.advice)


def _redirected(answer: HttpAnswer, method: str, endpoint: str, advice: str | None) -> PortalError:
    location = answer.headers["Location"]
    target = _redirect_target(location)
    where = f"{method}: HTTP {answer.status} redirects to"
    asked = urlsplit(endpoint)
    if not target or target == f"{asked.scheme}://{asked.netloc}":
        page = describe_own_redirect(location)
        told = advice or page.advice
        return NotAPortal(f"{where} {page.told}", status=answer.status, method=method, advice=told)
    moved = PortalMoved(f"{where} {target}", status=answer.status, method=method, advice=advice)
    moved.target = target
    return moved


def _redirect_target(location: str) -> str:
    """Return scheme and host of a redirect; "" if it names none. The rest may hold a secret."""
    try:
        parts = urlsplit(location)
        scheme, host, port = parts.scheme or "https", parts.hostname or "", parts.port
    except ValueError:
        scheme, host, port = "", "", None
    if not host:
        return ""
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
