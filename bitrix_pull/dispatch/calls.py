"""Calls the user's functions. What they raise comes back as a value, and ends nobody's task."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import Any, Final

from bitrix_pull.dispatch.registry import Handler
from bitrix_pull.events import Event, HandlerFailed
from bitrix_pull.redaction import get_logger
from bitrix_pull.telemetry import log_fields

logger: Final = get_logger("dispatch")


async def call(callback: Callable[..., Awaitable[object] | object], *arguments: Any) -> Exception | None:
    """Call a function, await what it returns if that can be awaited, and return what it raised.

    Raises:
        asyncio.CancelledError: The task that runs this was cancelled.
    """
    try:
        result = callback(*arguments)
        if isinstance(result, CoroutineType) or inspect.isawaitable(result):
            await result
    except BaseException as error:
        return as_failure(error)
    return None


def as_failure(error: BaseException) -> Exception:
    """Return what users' code raised as the failure that it is.

    Raises:
        BaseException: The same, where it is meant to end the task or the process.
    """
    if isinstance(error, Exception):
        return error
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
        raise error
    if isinstance(error, asyncio.CancelledError):
        if cancelled():
            raise error
        # The handler cancelled something of its own and let that out.
        return _caused_by(error, "the handler was cancelled from within")
    return _caused_by(error, "the handler raised what is no Exception")


def cancellation() -> Callable[[], int]:
    """Return what tells whether the running task is to end, also if its code takes no notice."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling


def cancelled() -> bool:
    """Tell whether the running task is to end."""
    return cancellation()() > 0


def failure(handler: Handler, event: Event, error: Exception, attempts: int) -> HandlerFailed:
    """Log that a handler has failed for good, and return the notice about it."""
    logger.error(
        "handler %s failed on %s, attempts: %d",
        handler.name,
        event.label,
        attempts,
        exc_info=error,
        extra=event.log_fields | log_fields(error, handler=handler.name, attempts=attempts),
    )
    return HandlerFailed(event, handler.name, error, attempts)


def _caused_by(cause: BaseException, what: str) -> Exception:
    error = RuntimeError(f"{what}: {cause!r}")
    error.__cause__ = cause
    return error
