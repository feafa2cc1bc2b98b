"""Resume points in a file to which is appended what is new."""

import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, Final

import orjson

from bitrix_pull.connection.disk_store import START_ANEW, DiskStore
from bitrix_pull.connection.resume_point import ResumePoint
from bitrix_pull.errors import InvalidArgument, ResumeStoreFailed
from bitrix_pull.files import sync_folder
from bitrix_pull.redaction import get_logger
from bitrix_pull.wire.messages import is_object

logger: Final = get_logger("connection")

_MAX_BYTES = 64 * 1024 * 1024
_FORMAT = "bitrix_pull resume points"
_VERSION = 2
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)  # A pipe is not waited for.
_APPEND = os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
_CREATE = _APPEND | os.O_CREAT | os.O_EXCL

Lines = dict[str, list[bytes]]
"""By key: a whole record, and those that advance it, each a line."""


class FileStore(DiskStore):
    """Keeps the resume point of one client in a file of JSON lines, mode 0600.

    What is new is appended. Now and then, and at each start, a new file takes the place of the
    old one, so a kill leaves at most the last line unfinished, which then counts for nothing.
    Beside it lies an empty ``.lock`` file.
    """

    one_at_a_time = (
        "Give each client a file of its own, or let the clients of one process share an SqliteStore."
    )

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Use this file; its directory must exist."""
        super().__init__(path)
        self._lines: Lines = {}
        self._file: int | None = None

    def _begin(self) -> None:
        self._remove_leftovers()
        self._lines, is_whole = self._read()
        if is_whole:
            self._file = os.open(self._target, _APPEND)

    def _end(self) -> None:
        self._let_go_of_file()
        self._lines = {}

    def _load(self, key: str) -> ResumePoint | None:
        lines = self._lines.get(key)
        return None if lines is None else _point_of(lines)

    def _save(self, key: str, point: ResumePoint) -> None:
        self._lines[key] = [_line({"key": key, **point.write()})]
        self._replace()

    def _advance(self, key: str, news: ResumePoint) -> None:
        if key not in self._lines:
            raise ResumeStoreFailed(f"{self._name} has lost the resume point that was saved in it")
        line = _line({"of": list(self._lines).index(key), **news.write()})
        self._lines[key].append(line)
        if self._file is None or not self._is_in_place(self._file):
            self._replace()
            return
        try:
            _write(self._file, line)
        except BaseException:
            # Half of the line may be there, and nothing must follow it.
            self._let_go_of_file()
            raise

    # -- writing ----------------------------------------------------------------

    def _replace(self) -> None:
        """Put a new file in the place of the old one, and go on appending to it."""
        self._let_go_of_file()
        target = self._target
        new = target.with_name(f".{target.name}.new")
        with suppress(FileNotFoundError):
            os.unlink(new)
        file = os.open(new, _CREATE, 0o600)
        try:
            _write(
                file,
                b"".join((_line({"format": _FORMAT, "version": _VERSION}), *chain(*self._lines.values()))),
            )
            os.replace(new, target)
            sync_folder(target.parent)
        except BaseException:
            os.close(file)
            with suppress(OSError):
                os.unlink(new)
            raise
        self._file = file

    def _is_in_place(self, file: int) -> bool:
        """Tell whether an open file is the one that a start would read: somebody may have removed it."""
        try:
            return os.path.samestat(os.fstat(file), os.stat(self._target))
        except FileNotFoundError:
            return False

    def _let_go_of_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _remove_leftovers(self) -> None:
        """Remove what a process left that was killed while it wrote."""
        # Earlier versions chose a name each time.
        target = self._target
        leftover = re.compile(rf"\.{re.escape(target.name)}\.(new|[a-z0-9_]{{8}})")
        for name in os.listdir(target.parent):
            if leftover.fullmatch(name):
                with suppress(OSError):
                    os.unlink(target.parent / name)

    # -- reading ----------------------------------------------------------------

    def _read(self) -> tuple[Lines, bool]:
        """Return the lines by key, and whether more can be appended to them.

        Raises:
            ValueError: The file is no resume store, or is damaged.
        """
        try:
            with open(self._target, "rb", opener=lambda path, _: os.open(path, _READ)) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise InvalidArgument(f"{self._name} is no regular file", advice="Name another file.")
                text = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            return {}, False
        if len(text) > _MAX_BYTES:
            raise ValueError("it is too large to be one")
        header, *lines = text.split(b"\n")
        content = _json(header)
        if not is_object(content) or content.get("format") != _FORMAT:
            return _read_first_format(text), False
        if content.get("version") != _VERSION:
            raise InvalidArgument(
                f"{self._name} was written by another version of this library", advice=START_ANEW
            )
        if unfinished := lines.pop() if lines else b"":
            # A new line is whole; only one that was being appended can be cut short.
            if unfinished.startswith(b'{"key"'):
                raise ValueError("it was cut short")
            logger.warning(
                "%s ends in half a record, as after a kill: what it said is handled again", self._name
            )
        return _by_key(lines), not unfinished


def _by_key(lines: Sequence[bytes]) -> Lines:
    keyed: Lines = {}
    keys: list[str] = []
    for number, line in enumerate(lines, 2):
        record = _json(line)
        match record:
            case {"key": str(key)} if key not in keyed:
                keys.append(key)
                keyed[key] = [line + b"\n"]
            case {"of": int(index)} if 0 <= index < len(keys):
                keyed[keys[index]].append(line + b"\n")
            case _:
                raise ValueError(f"line {number} is no record of it")
    if not keyed:
        raise ValueError("it was cut short")
    for of_one in keyed.values():
        _point_of(of_one)
    return keyed


def _point_of(lines: Sequence[bytes]) -> ResumePoint:
    whole, *advances = map(ResumePoint.read, map(_json, lines))
    return whole.joined(advances)


def _read_first_format(text: bytes) -> Lines:
    """Read what the first release wrote: one JSON object with all."""
    content = _json(text)
    points = content.get("points") if is_object(content) else None
    if not is_object(points):
        raise ValueError("it holds no resume points")
    return {key: [_line({"key": key, **ResumePoint.read(point).write()})] for key, point in points.items()}


def _json(text: bytes) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _line(record: dict[str, Any]) -> bytes:
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _write(file: int, text: bytes) -> None:
    left = memoryview(text)
    while left:
        left = left[os.write(file, left) :]
    os.fsync(file)
