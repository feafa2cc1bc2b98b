"""Runs one command from its start to an exit code, through errors and signals."""

import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from bitrix_pull.cli import streams
from bitrix_pull.cli.streams import LogFormat
from bitrix_pull.errors import PullError
from bitrix_pull.exits import Exit, exit_code
from bitrix_pull.program import collect_less_often, stop_signals
from bitrix_pull.telemetry import JsonFormatter


def run(
    work: Coroutine[Any, Any, Exit | None],
    *,
    verbose: bool,
    log_format: LogFormat = LogFormat.TEXT,
    serves: bool = False,
) -> int:
    """Run a command and return its exit code.

    SIGINT and SIGTERM cancel it, so that it closes what it opened.

    Args:
        work: The command; where it returns an exit code, that is the one.
        verbose: Show all of the library's log.
        log_format: As what stderr shows it, and all else that is said; JSON shows INFO in any case.
        serves: Being stopped is how it normally ends.
    """
    if log_format is LogFormat.JSON:
        streams.speak_json()
        _show_log(JsonFormatter(), logging.DEBUG if verbose else logging.INFO)
    elif verbose:
        text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        _show_log(text, logging.DEBUG)
    else:
        # The command says itself what goes wrong; Python would show warnings and errors beside that.
        logging.getLogger("bitrix_pull").addHandler(logging.NullHandler())
    collect_less_often()
    stopped_by: list[int] = []
    try:
        code = asyncio.run(_stoppable(work, stopped_by))
    except (asyncio.CancelledError, KeyboardInterrupt):
        signal_number = stopped_by[0] if stopped_by else signal.SIGINT
        return Exit.DONE if serves else 128 + signal_number
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        streams.abandon_stdout()
    except PullError as error:
        streams.complain(str(error))
        return exit_code(error)
    except OSError as error:
        # Network errors have come as PullError; this is the output's, or this machine's.
        streams.complain(f"{error.strerror or type(error).__name__}.")
        return Exit.FAILED
    else:
        return Exit.DONE if code is None else code
    return Exit.DONE


async def _stoppable(work: Coroutine[Any, Any, Exit | None], stopped_by: list[int]) -> Exit | None:
    task = asyncio.current_task()
    assert task is not None

    def stop(signal_number: int) -> None:
        stopped_by.append(signal_number)
        task.cancel()

    with stop_signals(stop):
        return await work


def _show_log(formatter: logging.Formatter, level: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logger = logging.getLogger("bitrix_pull")
    logger.addHandler(handler)
    logger.setLevel(level)
