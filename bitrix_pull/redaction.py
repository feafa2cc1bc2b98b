"""What may be shown: the one place where secrets, and what could forge a line, leave a text.

Three gates lead out of the library, and each text passes one of them: error texts
(``PullError``), log records (``get_logger``), and what the command line says (``cli/streams.py``).
They know a secret by its shape. Where a server's words are taken in, ``quoted`` also takes
out the secrets that it was sent.
"""

import contextlib
import logging
import re
import traceback
from collections.abc import Generator, Iterable
from contextvars import ContextVar
from urllib.parse import quote

HIDDEN = "***"

_SECRETS = re.compile(
    r"""
      (?P<path>/rest/\d+/) [^/\s'"<>]+                  # a webhook's code
    | (?P<user>://) [^/\s@'"]+ (?=@)                    # user and password
    | (?P<name>\b(?i:auth|(?:\w+_)?token|client_secret|password|CHANNEL_ID|clientId|signature|jwt)
        (?: = | ["']\s*[:=]\s*["'] )) [^&\s'"<>]+       # a parameter or field with one
    | (?P<input>\binput_value=) .{0,300}? (?=,\ input_type=)  # customers' data, as pydantic shows it
    | (?<![\w-])eyJ[\w-]+\.[\w-]+\.[\w-]*              # a JWT
    | \b(?:[0-9a-f]{32,}|[0-9A-F]{32,}|[0-9A-Za-z]{40,})\b  # a token, channel or signature
    """,
    re.VERBOSE,
)

_SHORTEST = 8
"""Real secrets are longer; shorter ones would blank out ordinary words."""

_LONGEST_QUOTE = 300
_LONGEST_LINE = 2_000


def hide(text: str) -> str:
    """Return a text without what looks like a secret."""
    return _SECRETS.sub(
        lambda found: f"{found['path'] or found['user'] or found['name'] or found['input'] or ''}{HIDDEN}",
        text,
    )


def printable(text: str) -> str:
    """Escape what could steer a terminal, turn the writing direction or begin a new line."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def one_line(text: str) -> str:
    """Return a text as one line that can go to a log or a terminal, without secrets."""
    return hide(printable(" ".join(text.split())))


def quoted(text: object, secrets: Iterable[str] = (), limit: int = _LONGEST_QUOTE) -> str:
    """Return what a server wrote as one short line without secrets; "" if it is no text.

    The final full stop is left out: there is more to follow.

    Args:
        text: The server's words.
        secrets: What it was sent, and may have written into them.
        limit: Characters after which it is cut.
    """
    if not isinstance(text, str):
        return ""
    for secret in secrets:
        if len(secret) >= _SHORTEST:
            for form in (secret, quote(secret, safe="")):
                text = text.replace(form, HIDDEN)
    line = one_line(text[:_LONGEST_LINE]).rstrip(".")
    return line if len(line) <= limit else f"{line[:limit]}…"


PORTAL: ContextVar[str] = ContextVar("bitrix_pull.portal", default="")
"""What the portal is called on whose behalf the present task runs; "" outside of any client."""


@contextlib.contextmanager
def naming(portal: str) -> Generator[None]:
    """Name the portal in the log records of a block."""
    token = PORTAL.set(portal)
    try:
        yield
    finally:
        PORTAL.reset(token)


def get_logger(room: str) -> logging.Logger:
    """Return the logger ``bitrix_pull.ROOM``. What its records say is fit to be shown.

    Each record of a client's opens with the portal's name, and has it as ``record.portal``. What
    else it may have beside its text stands in ``telemetry.LogFields``.
    """
    made = logging.getLogger(f"bitrix_pull.{room}")
    made.addFilter(_named)
    made.addFilter(_clean)
    return made


def quiet_logger(room: str) -> logging.Logger:
    """Return a logger for a library that writes whole requests at DEBUG: this one never does.

    It is not registered, so a program that sets all loggers to DEBUG does not reach it.
    """
    made = logging.Logger(f"bitrix_pull.{room}", logging.INFO)
    made.parent = logging.getLogger("bitrix_pull")
    made.addFilter(_named)
    made.addFilter(_clean)
    return made


def _named(record: logging.LogRecord) -> bool:
    """Put the portal's name before a record, once."""
    if not hasattr(record, "portal"):
        record.portal = portal = PORTAL.get()
        if portal:
            # A portal's member_id looks like a secret, and is none: some of it tells enough.
            shown = portal if hide(portal) == portal else f"{portal[:8]}…"
            record.msg, record.args = f"{shown}: {record.getMessage()}", None
    return True


def _clean(record: logging.LogRecord) -> bool:
    """Make a record fit to be shown. It is left as it is where it is so already."""
    text = record.getMessage()
    if (line := one_line(text)) != text:
        record.msg, record.args = line, None
    if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
        # What users' code raises may repeat what a server sent. Formatters take this as it is.
        told = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
        cleaned = "\n".join(hide(printable(part[:_LONGEST_LINE])) for part in told.split("\n"))
        if cleaned != told:
            record.exc_text = cleaned
    return True
