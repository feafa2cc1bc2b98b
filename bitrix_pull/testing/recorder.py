"""``Recorder``: writes down what comes to a client, off its event loop."""

import contextlib
import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Generator, Sequence
from os import PathLike
from pathlib import Path
from typing import IO, Final, cast

from bitrix_pull.client import PullClient, runs_of
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import Event, Notice
from bitrix_pull.options import check_number
from bitrix_pull.redaction import PORTAL, get_logger
from bitrix_pull.telemetry import log_fields
from bitrix_pull.testing.recording import (
    VERSION,
    Header,
    Recorded,
    event_line,
    notice_line,
    older_parts,
    part_of,
)

WRITE_EVERY_S: Final = 0.02
"""How often what came is written. It has to wait for the event loop's thread besides."""

_AT_ONCE = 200
"""Lines that are written together at most: after a burst, the first do not wait for the last."""

WAITING_MAX_BYTES: Final = 64 * 1024 * 1024
"""What may wait for a slow disk. What comes beyond it is not recorded."""

_NOTICE_BYTES: Final = 1_000
"""What a notice takes of it, about."""

_logger: Final = get_logger("recorder")


class Recorder:
    """Writes down what comes to a client: events, those of the portal too, and notices.

    The file holds JSON lines, compressed where its name ends in ``.gz``. A process that is
    killed leaves a file that can be read, without the last 100 ms. What lies there already
    is rotated away, as are files that grow large: ``events.1.jsonl.gz`` is newer than
    ``events.2.jsonl.gz``, and ``Recording`` and ``Replay`` read all of them.

    It hides what events carry, unless told otherwise: the form of params stays, with names
    of fields, and texts and numbers are gone. Channel ids and signatures are never written.

    Example:
        with Recorder("events.jsonl.gz").follow(pull):
            await pull.run()

    Args:
        path: The file to write.
        keep_params: True to write what events carry: your customers' data.
        rotate_bytes: Size from which on another file is begun.
        keep_files: How many older files are kept.

    Attributes:
        recorded: Events and notices that were written.
        dropped: Those that were not, as the disk was full or too slow.

    Raises:
        InvalidArgument: An argument cannot work.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        keep_params: bool = False,
        rotate_bytes: int = 64 * 1024 * 1024,
        keep_files: int = 9,
    ) -> None:
        check_number("rotate_bytes", rotate_bytes, whole=True)
        check_number("keep_files", keep_files, whole=True)
        self._path = Path(path)
        self._keep_params = keep_params
        self._rotate_bytes = rotate_bytes
        self._keep_files = keep_files
        self._waiting: deque[tuple[float, Sequence[Event] | Notice, int]] = deque()
        # The event loop's thread counts what it takes, the writer's what it has written.
        self._taken_bytes = 0
        self._written_bytes = 0
        self._stop = threading.Event()
        self._is_following = False
        self._is_in_trouble = False
        self.recorded: int = 0
        self.dropped: int = 0

    @contextlib.contextmanager
    def follow(self, pull: PullClient) -> Generator["Recorder"]:
        """Record what comes to a client, started or not, until the end of the block.

        Raises:
            InvalidArgument: The file cannot be written.
            RuntimeError: It records another client.
        """
        if self._is_following:
            raise RuntimeError(
                "this Recorder records a client already: each takes one, and a file of its own"
            )
        header = Header(VERSION, pull.portal, pull.mode, time.time(), self._keep_params)
        file = _File(self._path, header, self._rotate_bytes, self._keep_files)
        self._stop.clear()
        writer = threading.Thread(target=self._write, args=(file, pull.portal), name="bitrix_pull recorder")
        writer.start()
        self._is_following = True
        reception = runs_of(pull).reception
        reception.stream.tap(self._take)
        reception.portal_feed.dispatcher.tap(self._take)
        reception.notices.taps.append(self._take_notice)
        try:
            yield self
        finally:
            reception.stream.untap(self._take)
            reception.portal_feed.dispatcher.untap(self._take)
            reception.notices.taps.remove(self._take_notice)
            self._stop.set()
            writer.join()
            self._is_following = False

    # -- on the event loop ----------------------------------------------------------

    def _take(self, events: Sequence[Event]) -> None:
        self._keep(events, sum(event.size for event in events), len(events))

    def _take_notice(self, notice: Notice) -> None:
        self._keep(notice, _NOTICE_BYTES, 1)

    def _keep(self, came: Sequence[Event] | Notice, size: int, count: int) -> None:
        if self._taken_bytes - self._written_bytes + size > WAITING_MAX_BYTES:
            self.dropped += count
            return
        self._taken_bytes += size
        self._waiting.append((time.time(), came, size))

    # -- in the writer's thread -------------------------------------------------------

    def _write(self, file: "_File", portal: str) -> None:
        PORTAL.set(portal)
        with contextlib.closing(file):
            while not self._stop.wait(WRITE_EVERY_S):
                self._write_waiting(file)
            self._write_waiting(file)

    def _write_waiting(self, file: "_File") -> None:
        lines: list[bytes] = []
        for _ in range(len(self._waiting)):
            if len(lines) >= _AT_ONCE:
                self._put(file, lines)
                lines = []
            at_unix, came, size = self._waiting.popleft()
            self._written_bytes += size
            if not isinstance(came, Sequence):
                lines.append(notice_line(came, at_unix))
                continue
            for event in came:
                self._add(lines, cast("Recorded", event), at_unix)
        if lines:
            self._put(file, lines)

    def _put(self, file: "_File", lines: Sequence[bytes]) -> None:
        try:
            file.write(lines)
        except OSError as error:
            self.dropped += len(lines)
            if not self._is_in_trouble:
                told = error.strerror or type(error).__name__
                _logger.error("events cannot be recorded for now: %s", told, extra=log_fields(error))
            self._is_in_trouble = True
        else:
            self.recorded += len(lines)
            self._is_in_trouble = False

    def _add(self, lines: list[bytes], event: Recorded, at_unix: float) -> None:
        try:
            lines.append(event_line(event, at_unix, keep_params=self._keep_params))
        except RecursionError:
            # Nested deeper than any encoder goes: anybody may send such.
            self.dropped += 1


class _File:
    """The file that is written, and those that it becomes."""

    def __init__(self, path: Path, header: Header, rotate_bytes: int, keep_files: int) -> None:
        self._path = path
        self._header = header
        self._rotate_bytes = rotate_bytes
        self._keep_files = keep_files
        if path.exists() and not path.is_file():
            raise InvalidArgument(f"{path} is no file that could be written to")
        try:
            self._begin()
        except OSError as error:
            raise InvalidArgument(f"{path} cannot be written: {error.strerror}") from None

    def write(self, lines: Sequence[bytes]) -> None:
        """Hand lines to the operating system: from then on they survive this process.

        Raises:
            OSError: It does not take them. Nothing of them is in the file.
        """
        if self._size >= self._rotate_bytes:
            self.close()
            self._begin()
        self._put(lines)

    def close(self) -> None:
        """Finish the file."""
        if not self._file.closed:
            with contextlib.suppress(OSError), self._file:
                if self._packer is not None:
                    self._file.write(self._packer.flush())

    def _begin(self) -> None:
        older = older_parts(self._path)
        if self._path.exists():
            for number in range(len(older), 0, -1):
                part = part_of(self._path, number)
                if number >= self._keep_files:
                    part.unlink()
                else:
                    part.replace(part_of(self._path, number + 1))
            self._path.replace(part_of(self._path, 1))
        # Not for others to read: it may hold customers' data.
        self._file: IO[bytes] = open(self._path, "xb", buffering=0, opener=_private)  # noqa: SIM115
        is_packed = self._path.suffix == ".gz"
        self._packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16) if is_packed else None
        self._size = 0
        self._put([])

    def _put(self, lines: Sequence[bytes]) -> None:
        # A disk that was full when the file was begun took no header either.
        head = () if self._size else (self._header.line(),)
        data = b"".join(line + b"\n" for line in (*head, *lines))
        packer = None if self._packer is None else self._packer.copy()
        if packer is not None:
            # What is written so far can be unpacked without the rest.
            data = packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            # Half a line would spoil the next one, and half of what is packed all that follow.
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
                self._file.seek(self._size)
            raise
        self._packer = packer
        self._size += len(data)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
