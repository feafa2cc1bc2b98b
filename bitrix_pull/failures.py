"""What task groups raise, to callers who expect no groups."""

from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def one_failure() -> Generator[None]:
    """Raise the first failure of a task group in the place of the group: one is enough.

    What the group's own body raises comes as a group too.
    """
    try:
        yield
    except ExceptionGroup as group:
        error: Exception = group
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        raise error from error.__cause__
