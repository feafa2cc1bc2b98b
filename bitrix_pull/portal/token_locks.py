"""Locks under which tokens are refreshed, so that no refresh token is spent twice.

Both are asked for again and again, not waited for: a wait could block the event loop, and
be neither cancelled nor timed. So they also keep several event loops of a process apart.
"""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from bitrix_pull.errors import TokenStoreFailed

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        # Closing would do, but for a process that was forked meanwhile and has it open too.
        fcntl.flock(descriptor, fcntl.LOCK_UN)


T = TypeVar("T")

_ASK_EVERY_S = 0.02
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


class ProcessLock:
    """Keeps the tasks, threads and event loops of one process apart."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @asynccontextmanager
    async def held(self, timeout_s: float) -> AsyncGenerator[None]:
        """Hold the lock.

        Raises:
            TokenStoreFailed: It was not free within ``timeout_s``.
        """
        await _until(lambda: self._lock.acquire(blocking=False) or None, timeout_s)
        try:
            yield
        finally:
            self._lock.release()


class FileLock:
    """Keeps processes apart, by an advisory lock on an empty file.

    The kernel takes the lock away from who has died, so it is never stale. The file stays:
    whoever deleted it would let a second holder in.

    Args:
        path: The file; it is made if need be, for its owner only.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @asynccontextmanager
    async def held(self, timeout_s: float) -> AsyncGenerator[None]:
        """Hold the lock.

        Raises:
            TokenStoreFailed: It was not free within ``timeout_s``.
            OSError: The file cannot be used.
        """
        descriptor = await _until(self._take, timeout_s)
        try:
            yield
        finally:
            try:
                _unlock(descriptor)
            finally:
                os.close(descriptor)

    def _take(self) -> int | None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | _NO_LINKS, 0o600)
        try:
            _lock(descriptor)
        except (BlockingIOError, PermissionError):
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


async def _until(take: Callable[[], T | None], timeout_s: float) -> T:
    """Return what taking gave as soon as it gave something."""
    try:
        async with asyncio.timeout(timeout_s):
            while (taken := take()) is None:  # noqa: ASYNC110 - other processes set no event
                await asyncio.sleep(_ASK_EVERY_S)
            return taken
    except TimeoutError:
        raise TokenStoreFailed(
            f"the token store has been locked for {timeout_s:g} s: the tokens are being refreshed elsewhere"
        ) from None
