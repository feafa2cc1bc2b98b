"""From what a portal answers to a result or the right error."""

import time
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
    AuthError,
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
    WrongLicense,
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
    "AUTHORIZE_ERROR",
    "METHOD_CONFIRM_DENIED",
    "METHOD_CONFIRM_WAITING",
    "allowed_only_intranet_user",
    "ERROR_OAUTH",
    "authorization_error",
    "WRONG_LICENSE",
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


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("code", ["", "SOMETHING_NEW", "METHOD_CONFIRM_WAITING", "WRONG_LICENSE", 17])
def test_any_401_and_403_is_about_rights_and_says_what_to_do(status: int, code: str | int) -> None:
    for body in ({"error": code, "error_description": "No."}, {"error": {"code": code, "message": "No."}}):
        error = refused(body, status)
        assert isinstance(error, AuthError)
        assert error.advice
        assert (error.code, error.status) == (str(code), status)
        assert ": No (" in str(error)
    assert isinstance(refused(b"<html>", status), AuthError)


@pytest.mark.parametrize(
    "words",
    [
        "REST API is available only on commercial plans",
        "REST is available only on commercial plans.",
        "REST is available only by subscription",
    ],
)
@pytest.mark.parametrize("status", [401, 403])
def test_a_plan_without_rest_is_told_from_missing_rights(words: str, status: int) -> None:
    error = refused({"error": "ACCESS_DENIED", "error_description": words}, status)
    assert type(error) is WrongLicense
    assert "commercial plan, or a subscription" in error.advice
    assert "administrator" not in str(error)
    assert type(refused({"error": "ACCESS_DENIED", "error_description": "No"}, status)) is AccessDenied


@pytest.mark.parametrize(
    ("body", "status", "kind", "told"),
    [
        ({"error": 100, "error_description": "Bad field."}, 400, PortalError, "Bad field (100, HTTP 400)"),
        ({"error": 0, "error_description": "Bad field."}, 200, PortalError, "Bad field (0, HTTP 200)"),
        ({"error": 401}, 401, AuthError, "401 (HTTP 401)"),
        ({"error": "", "error_description": "Not found"}, 400, PortalError, "Not found (HTTP 400)"),
        ({"error": "", "error_description": "No"}, 500, PortalUnavailable, "No (HTTP 500)"),
        ({"error": "NEW", "error_description": "No"}, 500, PortalUnavailable, "No (NEW, HTTP 500)"),
        ({"error": "NEW", "error_description": "No"}, 429, RateLimited, "No (NEW, HTTP 429)"),
        ({"error": {"code": "ACCESS_DENIED", "message": "No"}}, 403, AccessDenied, "No (ACCESS_DENIED, HTTP"),
        ({"error": {"code": 7, "message": [1]}}, 400, PortalError, "7 (HTTP 400)"),
    ],
)
def test_a_code_may_be_a_number_or_missing_or_in_a_map(
    body: Any, status: int, kind: type[PortalError], told: str
) -> None:
    error = refused(body, status)
    assert type(error) is kind
    assert f"{METHOD}: {told}" in str(error)


def test_falsy_results_are_results() -> None:
    results: list[Any] = [None, False, 0, [], ""]
    for result in results:
        assert read({"result": result}).result == result
    nothing: list[Any] = ["", 0, "0", None, False, [], {}]
    for error in nothing:
        assert read({"result": True, "error": error, "error_description": "x"}).result is True


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
        ("https://acme.bitrix24.com/rest/", "https://acme.bitrix24.com"),
    ],
)
def test_a_redirect_names_the_new_address_and_nothing_else(location: str, target: str) -> None:
    with pytest.raises(PortalError) as caught:
        read_rest_answer(
            HttpAnswer(302, {"Location": location}, b'{"result":1}'),
            METHOD,
            (),
            "http://acme.bitrix24.com/rest/",
        )
    error = caught.value
    assert isinstance(error, PortalMoved)
    assert error.target == target
    assert f"redirects to {target}. " in str(error)
    assert "hushhush" not in str(error)


@pytest.mark.parametrize(
    ("location", "told", "advice"),
    [
        ("/auth/?backurl=%2Frest%2Fhushhush", "its own login page", "needs no login"),
        ("https://acme.bitrix24.com/login/hushhush", "its own login page", "needs no login"),
        ("/?login=yes&x=hushhush", "its own login page", "needs no login"),
        ("/hushhush/", "another page of its own", "portal's address"),
        ("https://acme.bitrix24.com/author/hushhush", "another page of its own", "portal's address"),
        ("https://[hushhush", "nowhere", "portal's address"),
    ],
)
def test_a_portal_that_redirects_to_a_page_of_its_own_has_not_moved(
    location: str, told: str, advice: str
) -> None:
    answer = HttpAnswer(302, {"Location": location}, b"")
    with pytest.raises(NotAPortal, match=f"HTTP 302 redirects to {told}") as caught:
        read_rest_answer(answer, METHOD, (), "https://acme.bitrix24.com/rest/")
    assert advice in caught.value.advice
    assert "hushhush" not in str(caught.value)


PHP = (
    "<br />\n<b>Warning</b>:  Undefined array key &quot;x&quot; in <b>/home/bitrix/www/rest/index.php</b>"
    ' on line <b>7</b><br />\n{"result":{}}'
)
LOGIN = '<!DOCTYPE html><html><title>Acme</title><form name="form_auth"><input name="USER_LOGIN"></form>'
CLOUDFLARE = "<html><head><title>Attention Required! | Cloudflare</title></head>hushhush</html>"


@pytest.mark.parametrize(
    ("body", "status", "headers", "told", "advice"),
    [
        (PHP, 200, {}, 'words of PHP: "Warning: Undefined array key "x" in /home/bitrix/', "display_errors"),
        (
            "PHP Fatal error:  Out of memory\nhushhush",
            500,
            {},
            '"Fatal error: Out of memory"',
            "display_errors",
        ),
        (LOGIN, 200, {}, 'a login form, a page titled "Acme"', "needs no login"),
        (CLOUDFLARE, 403, {}, '"Attention Required! | Cloudflare" of a firewall', "Let the calls"),
        ("<title>Blocked</title>", 406, {"Server": "ddos-guard"}, '"Blocked" of a firewall', "Let the calls"),
        (
            "<html><title>502 Bad Gateway</title>",
            502,
            {},
            'a page titled "502 Bad Gateway"',
            "passes as a rule",
        ),
        ("<html>hushhush", 404, {}, "a page without title", "portal's address"),
        (f"<title>{'x ' * 200}</title>", 404, {}, f'a page titled "{"x " * 40}…"', "portal's address"),
        ("", 200, {}, "nothing in it", "portal's address"),
        ("OK hushhush", 200, {}, "text that is no JSON", "portal's address"),
        ('{"hushhush":1}', 200, {}, "JSON of another kind", "portal's address"),
    ],
)
def test_what_is_no_answer_is_told_for_what_it_is(
    body: str, status: int, headers: dict[str, str], told: str, advice: str
) -> None:
    error = refused(body.encode(), status, (), **headers)
    assert f"{METHOD}: HTTP {status} with " in str(error)
    assert told in str(error)
    assert advice in error.advice
    assert "hushhush" not in str(error)


def test_secrets_that_a_page_repeats_are_blanked_out() -> None:
    error = refused(b"<title>No access for hush+hush/hush</title>", 403, ("hush+hush/hush",))
    assert '"No access for ***"' in str(error)


@pytest.mark.parametrize(
    "unit", [b"<title", b"<b>Warning</b>: ", b"Warning:        ", b"<", b"name='", b"<title>"]
)
def test_a_page_is_looked_at_in_no_time(unit: bytes) -> None:
    started = time.process_time()
    for _ in range(10):
        refused(unit * (1_000_000 // len(unit)))
    assert time.process_time() - started < 5


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
