"""Cancellation that other packages swallow."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def cancellable() -> Generator[None]:
    """Raise a cancellation that was asked for within, and that another package has swallowed.

    redis does so while it connects, on Python 3.11 at least, and so do older versions of psycopg: the task
    would live on.
    """
    task = asyncio.current_task()
    cancelling = 0 if task is None else task.cancelling()
    try:
        yield
    finally:
        if task is not None and task.cancelling() > cancelling:
            raise asyncio.CancelledError
