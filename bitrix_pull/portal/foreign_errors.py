"""What code of the user's own raises: a REST client, a token store, a callback."""

import asyncio
from pathlib import Path


def described(error: BaseException) -> str:
    """Name a foreign error and where it came from; its text may hold a secret."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None:
        return type(error).__name__
    return f"{type(error).__name__} ({Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno})"


def is_failure(error: BaseException) -> bool:
    """True if an error says that the code failed, and not that its task or the process shall end.

    Code that cancels something of its own lets out the same ``CancelledError`` as a task
    that is cancelled: taken for that, it would end a client without a word.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, Exception)
