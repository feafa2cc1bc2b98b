"""Tasks that end with their owner, or are left behind with a warning."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from bitrix_pull.redaction import get_logger

GRACE_S = 0.5
"""How long code that was cancelled may take to end. Nobody waits for it any longer."""

T = TypeVar("T")

logger: Final = get_logger("dispatch")


class TaskSet:
    """Like a task group whose end has a deadline: the tasks run users' code.

    A task that fails does not end the others; who spawns it looks at how it ends.
    """

    def __init__(self) -> None:
        """Create an empty set."""
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str) -> "asyncio.Task[T]":
        """Run a coroutine in a task of its own."""
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def __contains__(self, task: object) -> bool:
        """Tell whether a task was spawned here and still runs."""
        return task in self._tasks

    async def close(self) -> None:
        """Cancel all, and wait until they have ended, for ``GRACE_S`` at most."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=GRACE_S)
            for task in stuck:
                logger.warning("%s ignores its cancellation and is left behind", task.get_name())
