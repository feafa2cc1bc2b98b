"""What task groups raise, to callers who expect no groups."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import cast


@contextmanager
def one_failure() -> Generator[None]:
    """Raise the first failure of a task group in the place of the group: one is enough.

    What the group's own body raises comes as a group too.
    """
    try:
        yield
    except ExceptionGroup as group:
        error = _first(group)
        raise error from error.__cause__


def _first(error: Exception) -> Exception:
    if isinstance(error, ExceptionGroup):
        return _first(cast("ExceptionGroup[Exception]", error).exceptions[0])
    return error
