"""From an HTTP answer to a result or a typed error (protocol §2).

The body decides first and the status second, since the portal sends errors with 200 and
results with any status.
"""

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlsplit

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
    429: RateLimited,
}
"""What a status means where the body names no code; 3xx and 5xx are dealt with as a range."""

OAUTH_CODES: dict[str, type[PortalError]] = {**BY_CODE, "invalid_request": GrantRefused}
"""The same for the OAuth server: its ``invalid_request`` has nothing to do with https."""

_DESCRIPTION_LENGTH = 300
_SHORTEST_SECRET = 8  # Real ones are longer; shorter ones would blank out ordinary words.


@dataclass(slots=True, frozen=True)
class RestAnswer:
    """What a REST call gave.

    Attributes:
        result: What stands under ``result``, as JSON values.
        server_time: The portal's clock when it answered (UTC), or None where unknown.
    """

    result: Any
    server_time: datetime | None = None


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
    return RestAnswer(content["result"], _server_time(content.get("time"), answer))


def read_token_answer(answer: HttpAnswer, secrets: Iterable[str]) -> dict[str, Any]:
    """Return the fields with which the OAuth server answered a refresh.

    Raises:
        PortalError: It refused, or the answer holds no tokens.
    """
    content = _parse(answer.body)
    _raise_for_code(content, answer, "OAuth refresh", secrets, OAUTH_CODES)
    if is_object(content):
        tokens = (content.get("access_token"), content.get("refresh_token"))
        if all(isinstance(token, str) and token for token in tokens):
            return content
    raise _error_by_status(answer, "OAuth refresh", "Check oauth_url: a token endpoint must answer there.")


def _parse(body: bytes) -> object:
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
) -> None:
    """Raise the error that the body names, if it names one."""
    if not is_object(content):
        return
    code = content.get("error")
    if not isinstance(code, str) or not code:
        return
    secrets = [secret for secret in secrets if len(secret) >= _SHORTEST_SECRET]
    code = _presentable(code, secrets)
    description = _presentable(content.get("error_description"), secrets)
    kind = classes.get(code.lower(), PortalError)
    if kind is NotConfigured and description and "not configured" not in description.lower():
        # SERVER_ERROR is also what any failed PHP call may be called.
        kind = PortalUnavailable if answer.status >= 500 else PortalError
    text = (
        f"{description} ({code}, HTTP {answer.status})" if description else f"{code} (HTTP {answer.status})"
    )
    error = kind(f"{method}: {text}", code=code, status=answer.status, method=method)
    if isinstance(error, OperationTimeLimit):
        error.reset_at = _reset_at(content.get("time"))
    raise error


def _error_by_status(answer: HttpAnswer, method: str, advice: str | None = None) -> PortalError:
    """Return the error for an answer whose body says nothing."""
    status = answer.status
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
    return _presentable(f"{scheme}://{host}:{port}" if port else f"{scheme}://{host}", ())


def _presentable(text: object, secrets: Iterable[str]) -> str:
    """Return what a portal wrote as one short line without secrets."""
    if not isinstance(text, str):
        return ""
    for secret in secrets:
        for form in (secret, quote(secret, safe="")):
            text = text.replace(form, "***")
    line = "".join(character if character.isprintable() else " " for character in text)
    line = " ".join(line.split()).rstrip(".")
    return line if len(line) <= _DESCRIPTION_LENGTH else f"{line[:_DESCRIPTION_LENGTH]}…"


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
