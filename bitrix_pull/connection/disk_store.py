"""What holds for every resume store on disk: one process at a time, and work in a thread."""

import asyncio
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, TypeVar

from bitrix_pull.connection.resume_point import ResumePoint
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.files import NO_LOCKS_HERE, LocksUnavailable, in_thread, try_lock, unlock

T = TypeVar("T")

START_ANEW = "Delete it to start anew, or name another file."


class DiskStore(ABC):
    """A resume store on disk.

    Work on the disk is done in a thread, one thing at a time. It is waited for even when the
    caller is cancelled.
    """

    one_at_a_time: ClassVar[str]
    """What to do where somebody else uses it."""

    unreadable: ClassVar[tuple[type[Exception], ...]] = ()
    """What is raised where it cannot be read, beside what all stores raise."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path).absolute()
        if "\0" in str(self._path):
            raise InvalidArgument("the path of the resume store is none")
        self._busy = threading.Lock()
        self._lock: int | None = None
        self._users = 0

    async def open(self) -> None:
        """Lock it, so that no other process uses it, and see that it can be read.

        Raises:
            InvalidArgument: It cannot be used, or somebody else uses it.
        """
        opened: list[bool] = []

        def work() -> None:
            self._open()
            opened.append(True)

        try:
            await self._do(work)
        except asyncio.CancelledError:
            if opened:
                await self.close()
            raise

    async def load(self, key: str) -> ResumePoint | None:
        """Return what was saved last, or None.

        Raises:
            InvalidArgument: It is damaged.
        """
        return await self._do(lambda: self._load(key))

    async def save(self, key: str, point: ResumePoint) -> None:
        """Keep this in place of what was kept before, durably."""
        await self._do(lambda: self._save(key, point))

    async def advance(self, key: str, news: ResumePoint) -> None:
        """Keep, durably, what is new since what was kept last."""
        await self._do(lambda: self._advance(key, news))

    async def close(self) -> None:
        """Let go of it when its last client does."""
        await self._do(self._close)

    async def _do(self, work: Callable[[], T]) -> T:
        def alone() -> T:
            with self._busy:
                return work()

        return await in_thread(alone)

    @property
    def _target(self) -> Path:
        """What is meant, if the path is a symbolic link."""
        return self._path.resolve()

    @property
    def _name(self) -> str:
        return f"the resume store {self._path}"

    def _open(self) -> None:
        if self._users == 0:
            self._lock = self._locked()
            try:
                with self._problems():
                    self._begin()
            except BaseException:
                self._let_go()
                raise
        self._users += 1

    def _close(self) -> None:
        self._users -= 1
        if self._users == 0:
            try:
                self._end()
            finally:
                self._let_go()

    def _locked(self) -> int:
        with self._problems():
            target = self._target
            lock = os.open(target.with_name(f"{target.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
            taken = False
            try:
                taken = try_lock(lock)
            finally:
                if not taken:
                    os.close(lock)
        if not taken:
            raise InvalidArgument(f"{self._name} is in use by another client", advice=self.one_at_a_time)
        return lock

    def _let_go(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            try:
                unlock(lock)
            finally:
                os.close(lock)

    @contextmanager
    def _problems(self) -> Generator[None]:
        """Say in one error what is wrong with the store.

        Raises:
            InvalidArgument: It cannot be used.
        """
        try:
            yield
        except LocksUnavailable as error:
            raise InvalidArgument(
                f"{self._name} cannot be used: {error.strerror}", advice=NO_LOCKS_HERE
            ) from None
        except InvalidArgument:
            raise
        except OSError as error:
            raise InvalidArgument(f"{self._name} cannot be used: {error.strerror}") from None
        except self.unreadable as error:
            raise InvalidArgument(f"{self._name} cannot be read: {error}", advice=START_ANEW) from None
        except ValueError as error:
            raise InvalidArgument(f"{self._name} is damaged: {error}", advice=START_ANEW) from None

    @abstractmethod
    def _begin(self) -> None:
        """Make ready; what it raises is told as the reason why the store cannot be used."""

    @abstractmethod
    def _end(self) -> None: ...

    @abstractmethod
    def _load(self, key: str) -> ResumePoint | None: ...

    @abstractmethod
    def _save(self, key: str, point: ResumePoint) -> None: ...

    @abstractmethod
    def _advance(self, key: str, news: ResumePoint) -> None: ...
