"""Where a resume point outlives a run, or the process."""

import os
from typing import Protocol, runtime_checkable

from bitrix_pull.connection.file_store import FileStore
from bitrix_pull.connection.resume_point import ResumePoint
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.portal.models import PullConfig


@runtime_checkable
class ResumeStore(Protocol):
    """Keeps resume points. They hold message ids only: no token, no channel.

    A client opens its store when it starts and closes it when it stops; a store that
    serves several clients counts. ``key`` tells portal, application and user; it is text
    that a person can read.

    A store of your own needs these four; ``ResumePoint.write`` and ``read`` make JSON of a
    point. While one event is not settled, a point grows with all that is settled after it, so
    a store that can add to what it holds should have a method ``advance`` too: see
    ``GrowingStore``.
    """

    async def open(self) -> None:
        """Make ready.

        Raises:
            InvalidArgument: It cannot be used; another process may be using it.
        """
        ...

    async def load(self, key: str) -> ResumePoint | None:
        """Return what was kept last, or None where there is nothing under this key.

        Whatever it raises but ``InvalidArgument`` is taken to pass: it is asked again.
        """
        ...

    async def save(self, key: str, point: ResumePoint) -> None:
        """Keep this in place of what was kept before; once it returns, a crash cannot undo it.

        Whatever it raises is logged, shown in ``health().store``, and it is called again.
        """
        ...

    async def close(self) -> None:
        """Let go of it; it may be opened again."""
        ...


class GrowingStore(ResumeStore, Protocol):
    """A store that takes what is new by itself, so that a save costs what is new.

    ``save`` is called first, but where ``load`` has returned a large point; then ``advance`` with
    what has happened since, and ``save`` again now and then, so that what was added has an end,
    and after any of them has failed.
    """

    async def advance(self, key: str, news: ResumePoint) -> None:
        """Keep, durably, what is new since the last ``load``, ``save`` or ``advance``.

        ``load`` then returns what ``ResumePoint.joined`` makes of the point that was saved and
        all news since.

        Args:
            key: As for ``save``.
            news: A new ``mid`` and ``kept``, and in ``settled`` and ``stamps`` what has been
                settled since. The other fields say nothing: they are as they were saved.
        """
        ...


class ConfigStore(Protocol):
    """Where a client leaves its configuration for whoever follows the same stream after it.

    It holds secrets. A resume store that has one tells it as its attribute ``configs``.
    """

    async def load(self, whose: str) -> tuple[PullConfig, float] | None:
        """Return what was left last, and for how many seconds it is still good; None if there is nothing.

        Args:
            whose: As it was saved: what was left for another stream is not returned.

        Returns:
            The configuration; its ``server_time`` is the portal's present one.

        Raises:
            PullError: It could not be asked.
        """
        ...

    async def save(self, whose: str, config: PullConfig, good_for_s: float) -> None:
        """Keep this in place of what was left before.

        Args:
            whose: Names the stream.
            config: The configuration, with the portal's present time in ``server_time``.
            good_for_s: When to forget it.

        Raises:
            PullError: It does not take it.
        """
        ...


class MemoryStore:
    """Keeps resume points for as long as the process lives."""

    def __init__(self) -> None:
        """Create an empty store."""
        self._points: dict[str, ResumePoint] = {}

    async def open(self) -> None:
        """Do nothing."""

    async def load(self, key: str) -> ResumePoint | None:
        """Return what was saved last, or None."""
        return self._points.get(key)

    async def save(self, key: str, point: ResumePoint) -> None:
        """Save for this process."""
        self._points[key] = point

    async def close(self) -> None:
        """Do nothing."""


def as_store(resume: "str | os.PathLike[str] | ResumeStore") -> ResumeStore:
    """Return the store that a user means: a path stands for a file.

    Raises:
        InvalidArgument: It is none.
    """
    if isinstance(resume, str | os.PathLike):
        return FileStore(resume)
    if isinstance(resume, ResumeStore):
        return resume
    raise InvalidArgument(f"resume must be a path or a ResumeStore, not {type(resume).__name__}")
