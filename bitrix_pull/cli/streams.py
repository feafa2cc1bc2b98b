"""Standard output for data, standard error for what is said about it."""

import contextlib
import logging
import os
import sys
from enum import StrEnum
from io import TextIOWrapper

from bitrix_pull.redaction import one_line
from bitrix_pull.telemetry import JsonFormatter

_IN_OPTIONS = {
    "PullOptions(allow_http_hosts=...)": "--allow-http HOST",
    "allow_http_hosts": "--allow-http",
    "start_timeout_s": "--timeout",
    "transport=": "--transport ",
    "users=[…]": "--user ID",
    'route="rest"': "--route rest",
    'route="endpoint"': "--route endpoint",
}
"""How the library names things, and how the command line does."""


def prepare() -> None:
    """Make both streams take any text, whatever their encoding is, and begin with plain lines."""
    _spoken[0] = LogFormat.TEXT
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class LogFormat(StrEnum):
    """As what standard error speaks: the values of ``--log-format``."""

    TEXT = "text"
    JSON = "json"


_spoken = [LogFormat.TEXT]


def speak_json() -> None:
    """Let all that is said from now on be JSON lines, as the log is."""
    _spoken[0] = LogFormat.JSON


def say(text: str, level: int = logging.INFO) -> None:
    """Write a line to standard error, without secrets and what could steer a terminal."""
    line = one_line(text)
    if _spoken[0] is LogFormat.JSON:
        line = JsonFormatter().format(logging.LogRecord("bitrix_pull.cli", level, "", 0, line, None, None))
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def complain(text: str) -> None:
    """Say what went wrong, in the words of the command line."""
    for name, option in _IN_OPTIONS.items():
        text = text.replace(name, option)
    say(f"bitrix-pull: {text}", logging.ERROR)


def write_line(line: bytes) -> None:
    """Write a line of UTF-8 data to standard output at once.

    Raises:
        BrokenPipeError: Nobody reads it any more.
    """
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def abandon_stdout() -> None:
    """Send to nowhere what is still buffered, after the reader has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
