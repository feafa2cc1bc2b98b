"""Standard output for data, standard error for what is said about it."""

import contextlib
import os
import re
import sys
from io import TextIOWrapper

_WEBHOOK_CODE = re.compile(r"(/rest/\d+/)[^/\s'\"]+")

_IN_OPTIONS = {
    "PullOptions(allow_http_hosts=...)": "--allow-http HOST",
    "users=[…]": "--user ID",
    'route="rest"': "--route rest",
    'route="endpoint"': "--route endpoint",
}
"""How the library names things, and how the command line does."""


def prepare() -> None:
    """Make both streams take any text, whatever their encoding is."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Write a line to standard error. A webhook's secret code in it is not shown."""
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(_WEBHOOK_CODE.sub(r"\1***", text) + "\n")
        sys.stderr.flush()


def complain(text: str) -> None:
    """Say what went wrong, in one line and in the words of the command line."""
    for name, option in _IN_OPTIONS.items():
        text = text.replace(name, option)
    say(f"bitrix-pull: {' '.join(text.split())}")


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
