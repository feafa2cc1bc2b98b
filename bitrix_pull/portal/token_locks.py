"""Locks under which tokens are refreshed, so that no refresh token is spent twice.

Both are asked for again and again, not waited for: a wait could block the event loop, and
be neither cancelled nor timed. So they also keep several event loops of a process apart.
"""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from bitrix_pull.errors import TokenStoreFailed
from bitrix_pull.files import try_lock, unlock

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
            OSError: The file cannot be used; LocksUnavailable if it cannot be locked.
        """
        descriptor = await _until(self._take, timeout_s)
        try:
            yield
        finally:
            try:
                unlock(descriptor)
            finally:
                os.close(descriptor)

    def _take(self) -> int | None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | _NO_LINKS, 0o600)
        taken = False
        try:
            taken = try_lock(descriptor)
        finally:
            if not taken:
                os.close(descriptor)
        return descriptor if taken else None


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
