"""From what a portal answers to a result or the right error."""

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitrix_pull import errors
from bitrix_pull.errors import (
    AccessDenied,
    GrantRefused,
    HttpsRequired,
    InsufficientScope,
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
from bitrix_pull.portal.answers import BY_CODE, RestAnswer, read_rest_answer, read_token_answer
from bitrix_pull.portal.http import HttpAnswer

SAMPLES = orjson.loads((Path(__file__).parents[1] / "reference" / "errors.json").read_bytes())
METHOD = "pull.application.config.get"


def read(body: Any, status: int = 200, secrets: tuple[str, ...] = (), **headers: str) -> RestAnswer:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return read_rest_answer(HttpAnswer(status, headers, content), METHOD, secrets)


def refused(body: Any, status: int = 200, secrets: tuple[str, ...] = (), **headers: str) -> PortalError:
    with pytest.raises(PortalError) as caught:
        read(body, status, secrets, **headers)
    return caught.value


CLASS_OF_SAMPLE = {
    "WRONG_AUTH_TYPE": errors.WrongAuthType,
    "SERVER_ERROR": NotConfigured,
    "expired_token": errors.TokenExpired,
    "QUERY_LIMIT_EXCEEDED": RateLimited,
    "USER_ID_ACCESS_ERROR": errors.UserAccessError,
    "COMMAND_ERROR": errors.CommandError,
    None: PortalUnavailable,
}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: f"{sample['status']}")
def test_every_recorded_error_has_its_class_and_advice(sample: Any) -> None:
    body, status = sample["body"], sample["status"]
    error = refused(body.encode() if isinstance(body, str) else body, status)
    code = None if isinstance(body, str) else body["error"]
    assert type(error) is CLASS_OF_SAMPLE[code]
    assert (error.code, error.status, error.method) == (code or "", status, METHOD)
    assert error.advice
    assert str(error).endswith(error.advice)
    if code:
        assert f"{body['error_description'].rstrip('.')} ({code}, HTTP {status}). " in str(error)


CODES_OF_THE_PROTOCOL = [
    "expired_token",
    "invalid_token",
    "QUERY_LIMIT_EXCEEDED",
    "OPERATION_TIME_LIMIT",
    "INTERNAL_SERVER_ERROR",
    "ERROR_UNEXPECTED_ANSWER",
    "NO_AUTH_FOUND",
    "insufficient_scope",
    "INVALID_CREDENTIALS",
    "ACCESS_DENIED",
    "user_access_error",
    "WRONG_AUTH_TYPE",
    "OVERLOAD_LIMIT",
    "PAYMENT_REQUIRED",
    "PORTAL_DELETED",
    "INVALID_REQUEST",
    "SERVER_ERROR",
    "invalid_grant",
    "invalid_client",
    "invalid_scope",
    "wrong_client",
    "NOT_INSTALLED",
    "COMMAND_ERROR",
    "MODULE_ID_ERROR",
    "PARAMS_ERROR",
    "USER_ID_ACCESS_ERROR",
    "ACCESS_ERROR",
    "TEXT_ERROR",
    "EMPTY_APP_NAME",
    "INVALID_FORMAT",
]


@pytest.mark.parametrize("code", CODES_OF_THE_PROTOCOL)
def test_every_code_of_the_protocol_has_a_class_with_advice(code: str) -> None:
    for spelling in (code, code.upper(), code.lower()):
        error = refused({"error": spelling}, 400)
        assert type(error) is not PortalError
        assert error.code == spelling
        assert error.advice


def test_no_class_with_codes_is_missing_and_no_code_is_taken_twice() -> None:
    classes = [
        item
        for item in vars(errors).values()
        if isinstance(item, type) and issubclass(item, PortalError) and vars(item).get("codes")
    ]
    codes = [code for item in classes for code in item.codes]
    assert sorted(BY_CODE) == sorted(codes)
    assert {BY_CODE[code] for code in codes} == set(classes)
    assert all(code == code.lower() for code in codes)


def test_the_body_counts_before_the_status() -> None:
    assert read({"result": {"a": 1}}, 500).result == {"a": 1}
    assert type(refused({"error": "NO_AUTH_FOUND"}, 200)) is NoAuth
    assert type(refused({"error": "QUERY_LIMIT_EXCEEDED"}, 401)) is RateLimited
    assert type(refused({"result": [], "error": "ACCESS_DENIED"})) is AccessDenied


def test_falsy_results_are_results() -> None:
    results: list[Any] = [None, False, 0, [], ""]
    for result in results:
        assert read({"result": result}).result == result
    assert read({"result": True, "error": ""}).result is True


def test_a_byte_order_mark_is_skipped() -> None:
    assert read(b'\xef\xbb\xbf{"result":1}').result == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, NotAPortal),
        (302, NotAPortal),
        (400, NotAPortal),
        (401, NoAuth),
        (402, PaymentRequired),
        (403, AccessDenied),
        (404, NotAPortal),
        (429, RateLimited),
        (500, PortalUnavailable),
        (502, PortalUnavailable),
        (599, PortalUnavailable),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>hello</html>", b"{}", b"[1]", b"\xff", b'{"error":{"a":1}}'])
def test_without_a_code_the_status_decides(body: bytes, status: int, kind: type[PortalError]) -> None:
    error = refused(body, status)
    assert type(error) is kind
    assert f"HTTP {status}" in str(error)
    assert "hello" not in str(error)
    assert error.retryable == (status == 429 or status >= 500)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://new.bitrix24.com/rest/1/hushhush/profile.json?auth=hushhush", "https://new.bitrix24.com"),
        ("https://me:hushhush@new.bitrix24.com:444/", "https://new.bitrix24.com:444"),
        ("//new.bitrix24.com/hushhush", "https://new.bitrix24.com"),
        ("/hushhush/", "another page of its own"),
        ("https://[hushhush", "another page of its own"),
    ],
)
def test_a_redirect_names_the_new_address_and_nothing_else(location: str, target: str) -> None:
    error = refused({"result": True}, 302, Location=location)
    assert isinstance(error, PortalMoved)
    assert error.target == target
    assert f"redirects to {target}. " in str(error)
    assert "hushhush" not in str(error)


def test_server_error_is_not_configured_only_where_it_says_so() -> None:
    assert type(refused({"error": "SERVER_ERROR"}, 500)) is NotConfigured
    assert type(refused({"error": "SERVER_ERROR", "error_description": "Deadlock"}, 500)) is PortalUnavailable
    assert type(refused({"error": "SERVER_ERROR", "error_description": "Deadlock"}, 200)) is PortalError


def test_an_unknown_code_is_a_plain_error() -> None:
    error = refused({"error": "SOMETHING_NEW", "error_description": "No idea."}, 400)
    assert type(error) is PortalError
    assert not error.retryable
    assert str(error) == f"{METHOD}: No idea (SOMETHING_NEW, HTTP 400)"


def test_descriptions_become_one_short_clean_line() -> None:
    error = refused({"error": "ODD\x1b[31m", "error_description": "one\r\n\x00two\u202e" + " x" * 4000}, 400)
    text = str(error)
    assert rf"{METHOD}: one \x00two\u202e x x" in text
    assert text.isprintable()
    assert len(text) < 500
    assert error.code == r"ODD\x1b[31m"


def test_an_echoed_secret_is_blanked_out() -> None:
    secret = "hush+hush/hush"
    error = refused(
        {"error": "E", "error_description": f"bad auth={secret} and hush%2Bhush%2Fhush"},
        400,
        ("token", secret),
    )
    assert "bad auth=*** and ***" in str(error)


def test_a_short_secret_does_not_garble_words() -> None:
    error = refused({"error": "expired_token", "error_description": "The token has expired"}, 401, ("token",))
    assert "The token has expired" in str(error)


def test_the_time_limit_says_until_when() -> None:
    body = {"error": "OPERATION_TIME_LIMIT", "time": {"operating_reset_at": 1774966518}}
    error = refused(body, 429)
    assert isinstance(error, OperationTimeLimit)
    assert error.reset_at == 1774966518
    unknown = refused({"error": "OPERATION_TIME_LIMIT", "time": []}, 429)
    assert isinstance(unknown, OperationTimeLimit)
    assert unknown.reset_at is None


DATE = "Tue, 31 Mar 2026 14:00:00 GMT"


@pytest.mark.parametrize(
    ("retry_after", "wait_s"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("Tue, 31 Mar 2026 14:01:30 GMT", 90.0),
        ("Tue, 31 Mar 2026 13:00:00 GMT", 0.0),
        ("-7", None),
        ("soon", None),
        ("", None),
        ("9" * 400, None),
        ("Tue, 31 Mar 99999 14:01:30 GMT", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_read_by_the_portals_clock(
    status: int, retry_after: str, wait_s: float | None
) -> None:
    error = refused(b"<html>", status, (), **{"Retry-After": retry_after, "Date": DATE})
    assert type(error) is RateLimited
    assert error.retry_after_s == wait_s
    assert ("takes the call again in" in str(error)) == (wait_s is not None)


def test_the_later_of_two_times_counts() -> None:
    body = {"error": "OPERATION_TIME_LIMIT", "time": {"finish": 1000.5, "operating_reset_at": 1060}}
    for retry_after, wait_s in (("10", 59.5), ("70", 70.0)):
        error = refused(body, 429, (), **{"Retry-After": retry_after})
        assert isinstance(error, OperationTimeLimit)
        assert error.retry_after_s == wait_s


def test_retry_after_makes_no_other_error_passing() -> None:
    error = refused({"error": "OVERLOAD_LIMIT"}, 503, (), **{"Retry-After": "5"})
    assert not error.retryable
    assert type(refused(b"", 500, (), **{"Retry-After": "5"})) is PortalUnavailable


def test_the_portals_clock() -> None:
    date = "Tue, 31 Mar 2026 15:05:18 GMT"
    moment = datetime(2026, 3, 31, 15, 5, 18, tzinfo=UTC)
    assert read(
        {"result": 1, "time": {"finish": moment.timestamp() + 0.5}}, Date="x"
    ).server_time == moment.replace(microsecond=500_000)
    assert read({"result": 1}, Date=date).server_time == moment
    odd_times: list[Any] = [{"finish": "later"}, {"finish": None}, [], None]
    for odd in odd_times:
        assert read({"result": 1, "time": odd}, Date=date).server_time == moment
    assert read({"result": 1, "time": {"finish": 1e300}}, Date=date).server_time is None
    assert read({"result": 1}, Date="yesterday").server_time is None
    assert read({"result": 1}).server_time is None


@given(st.binary(), st.integers(100, 599), st.text(max_size=20))
def test_whatever_comes_only_portal_errors_escape(body: bytes, status: int, location: str) -> None:
    with suppress(PortalError):
        assert isinstance(read(body, status, Location=location, Date=location), RestAnswer)


# -- the OAuth server ---------------------------------------------------------------


def refresh(body: Any, status: int = 200, **headers: str) -> Any:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return read_token_answer(HttpAnswer(status, headers, content), ())


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("invalid_grant", 400, GrantRefused),
        ("invalid_client", 401, GrantRefused),
        ("invalid_request", 400, GrantRefused),
        ("wrong_client", 200, GrantRefused),
        ("NOT_INSTALLED", 401, GrantRefused),
        ("invalid_scope", 400, InsufficientScope),
        ("insufficient_scope", 403, InsufficientScope),
        ("PAYMENT_REQUIRED", 402, PaymentRequired),
    ],
)
def test_refusals_of_a_refresh(code: str, status: int, kind: type[PortalError]) -> None:
    with pytest.raises(PortalError) as caught:
        refresh({"error": code, "error_description": "No"}, status)
    assert type(caught.value) is kind
    assert caught.value.advice


def test_invalid_request_means_something_else_to_a_portal() -> None:
    assert type(refused({"error": "INVALID_REQUEST"}, 400)) is HttpsRequired


@pytest.mark.parametrize(
    "body", [b"<html>", [], {}, {"access_token": "a"}, {"access_token": "", "refresh_token": 1}]
)
def test_an_answer_without_tokens_blames_the_oauth_address(body: Any) -> None:
    with pytest.raises(NotAPortal, match="Check oauth_url"):
        refresh(body)


def test_an_oauth_server_may_be_down_or_moved() -> None:
    with pytest.raises(PortalUnavailable):
        refresh(b"", 503)
    with pytest.raises(PortalMoved, match=r"https://oauth\.example"):
        refresh(b"", 301, Location="https://oauth.example/x?client_secret=1")
