"""What every store on disk needs: locks between processes, durable writes, work in a thread.

The locks are advisory, and the kernel takes them away from a process that has died.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    _HELD_BY_ANOTHER: tuple[type[OSError], ...] = (BlockingIOError, PermissionError)

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def unlock(descriptor: int) -> None:
        """Give the lock back. Closing the file does not, while a forked process has it open too."""
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    _HELD_BY_ANOTHER: tuple[type[OSError], ...] = (BlockingIOError,)

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def unlock(descriptor: int) -> None:
        """Give the lock back. Closing the file does not, while a forked process has it open too."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)


NO_LOCKS_HERE = "Some network mounts have no locks: put it on a disk of this machine, or mount it with locks."
"""What helps where ``LocksUnavailable`` is raised."""


class LocksUnavailable(OSError):  # noqa: N818 - reads as what it says
    """Files in this place cannot be locked."""


def try_lock(descriptor: int) -> bool:
    """Lock an open file, or return False if somebody else has locked it.

    Raises:
        LocksUnavailable: It is on a mount without locks, or the system has no more of them.
    """
    try:
        _lock(descriptor)
    except _HELD_BY_ANOTHER:
        return False
    except OSError as error:
        raise LocksUnavailable(error.errno, f"files there cannot be locked ({error.strerror})") from None
    return True


def sync(path: Path, flags: int) -> None:
    """Make what was written to a file, or renamed in a folder, survive a power failure."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make what was renamed in a folder survive a power failure, where folders can be synced."""
    if os.name == "posix":
        sync(folder, os.O_RDONLY)


async def in_thread(work: Callable[[], T]) -> T:
    """Do something that blocks. It is waited for even if the caller is cancelled."""
    doing = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait({doing})
        raise
