"""Texts leave the library as one printable line without secrets, by every gate."""

import logging
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bitrix_pull
from bitrix_pull.errors import InvalidArgument, PortalError
from bitrix_pull.redaction import get_logger, hide, one_line, printable, quiet_logger, quoted

CHANNEL = "0123456789abcdef" * 2
SIGNATURE = "89abcdef01" * 4
TOKEN = "a1" * 35
JWT = "eyJ0eXAiOiJKV1QifQ.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"

SECRETS = {
    f"{CHANNEL}:{CHANNEL}.{SIGNATURE}": "***:***.***",
    TOKEN: "***",
    JWT: "***",
    "https://a.b/rest/1/abc/": "https://a.b/rest/1/***/",
    "https://a.b/rest/1/abc/profile.json?x=1": "https://a.b/rest/1/***/profile.json?x=1",
    "https://a.b/sub/?CHANNEL_ID=abc%2Fdef&mid=7": "https://a.b/sub/?CHANNEL_ID=***&mid=7",
    "refresh_token=abc client_secret=def": "refresh_token=*** client_secret=***",
    """{"auth":"abc", 'access_token': 'def'}""": """{"auth":"***", 'access_token': '***'}""",
    "http://user:pass@proxy:3128": "http://***@proxy:3128",
    "Ab3" * 14: "***",
    "[type=x, input_value='Ann, 42', input_type=str]": "[type=x, input_value=***, input_type=str]",
}

HARMLESS = [
    "the token has expired (expired_token, HTTP 401)",
    "https://acme.bitrix24.com/rest/pull.application.config.get.json",
    "mid 17953248270000000000000005",
    "PullOptions(allow_http_hosts=...)",
    "the webhook's address lacks /rest/USER/CODE/",
    "a@b.c wrote: auth: no, token: none",
]


@pytest.mark.parametrize("text", SECRETS)
def test_what_looks_like_a_secret_is_hidden(text: str) -> None:
    assert hide(f"see {text} there") == f"see {SECRETS[text]} there"


@pytest.mark.parametrize("text", HARMLESS)
def test_the_rest_stays(text: str) -> None:
    assert hide(text) == text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("Привет, 😀", "Привет, 😀"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\u2028b\u202ec\u200bd\x7f\x9b", r"a\u2028b\u202ec\u200bd\x7f\x9b"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_could_steer_a_terminal_is_escaped(text: str, escaped: str) -> None:
    assert printable(text) == escaped


@given(st.text() | st.from_regex(r"(?s)x* /rest/1/.* [0-9a-f]{30,34}.*eyJ.*"))
def test_a_line_is_one_line_and_stays_as_it_is(text: str) -> None:
    line = one_line(text)

    assert line.isprintable()
    assert one_line(line) == line


@given(st.text(alphabet="ab \n%é/&=.", min_size=8, max_size=20), st.text(), st.text())
def test_what_a_server_was_sent_is_not_quoted(secret: str, before: str, after: str) -> None:
    assert secret not in quoted(before + secret + after, [secret])


def test_a_quote_is_short_and_has_no_end() -> None:
    assert quoted("Wrong  channel.\r\n") == "Wrong channel"
    assert quoted("x-" * 300) == "x-" * 150 + "…"
    assert quoted(None) == quoted(["x"]) == ""
    assert quoted("a short word", ["short"]) == "a short word"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece",
    ["eyJ-", "eyJa.", "a_", "token", "://", "/rest/1", "/rest/1/", "auth='  ", "0", "aA1", "a@", "\x1b\n"],
)
def test_a_hostile_text_takes_no_long_time(piece: str) -> None:
    text = piece * 200_000

    assert one_line(text).isprintable()


# -- the gates ----------------------------------------------------------------------


def test_an_error_is_one_line_without_secrets() -> None:
    error = PortalError(f"the portal says\n\x1b[2J {TOKEN}", advice=f"Ask\u202e {CHANNEL}")

    assert str(error) == r"the portal says \x1b[2J ***. Ask\u202e ***"


@pytest.fixture
def written(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


@pytest.mark.parametrize("logger", [get_logger("gate"), quiet_logger("gate")])
def test_a_log_record_is_one_line_without_secrets(
    logger: logging.Logger, written: pytest.LogCaptureFixture
) -> None:
    logger.warning("command %s of %r", f"a\nb\x1b[31m {TOKEN}", CHANNEL)

    [record] = [record for record in written.records if record.name == logger.name]
    assert record.getMessage() == r"command a b\x1b[31m *** of '***'"
    assert TOKEN not in repr(vars(record))


def test_a_record_without_them_stays_as_it_was_made(written: pytest.LogCaptureFixture) -> None:
    get_logger("gate").info("HTTP %d", 200)

    record = written.records[-1]
    assert (record.msg, record.args) == ("HTTP %d", (200,))


def test_tracebacks_hold_what_a_handler_raised_but_no_secret(written: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError(f"params were \x1b]0;owned\x07 and {TOKEN}")
    except ValueError:
        get_logger("gate").exception("handler failed")

    assert r"ValueError: params were \x1b]0;owned\x07 and ***" in written.text
    assert "Traceback (most recent call last):\n  File" in written.text
    assert "\x1b" not in written.text.replace("\x1b[", "")  # The colours of pytest's own.


def test_the_loggers_of_other_libraries_cannot_be_set_to_debug() -> None:
    quiet_logger("elsewhere")

    assert "bitrix_pull.elsewhere" not in logging.root.manager.loggerDict
    assert not quiet_logger("elsewhere").isEnabledFor(logging.DEBUG)


def test_every_logger_of_the_package_comes_from_the_gate() -> None:
    package = Path(bitrix_pull.__file__).parent
    makes_its_own = [
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        if re.search(r"""getLogger\((?!["']bitrix_pull["']\))""", file.read_text())
    ]
    assert makes_its_own == ["redaction.py"]


def test_errors_of_users_arguments_are_values_too() -> None:
    with pytest.raises(ValueError, match=r"^/rest/1/\*\*\*$"):
        raise InvalidArgument("/rest/1/abcdef")
