"""Fresh processes in milliseconds: each is forked from one that has imported everything."""

import asyncio
import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Literal

context = multiprocessing.get_context("forkserver")
# multiprocessing imports the main module too.
context.set_forkserver_preload(
    [
        "pytest",
        "tests.hostile.victim",
        "tests.forked",
        *(f"bitrix_pull.cli.{name}" for name in ("app", "config", "doctor", "emulator", "listen", "publish")),
    ]
)


class Command:
    """``bitrix-pull`` in a process of its own; offers what a process of asyncio does."""

    def __init__(
        self,
        process: BaseProcess,
        stdin: asyncio.StreamWriter,
        stdout: asyncio.StreamReader,
        stderr: asyncio.StreamReader,
    ) -> None:
        self._process = process
        self._returncode: int | None = None
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr

    @classmethod
    async def start(cls, arguments: Sequence[str], environment: Mapping[str, str], limit: int) -> "Command":
        """Start it with nothing but these in its environment.

        Args:
            arguments: What follows the command's name.
            environment: Its environment variables.
            limit: The longest line that can be read from it.
        """
        (stdin, our_in), (our_out, stdout), (our_err, stderr) = (context.Pipe(duplex=False) for _ in range(3))
        ends = (stdin, stdout, stderr)
        process = context.Process(target=_be, args=(tuple(arguments), dict(environment), ends), daemon=True)
        process.start()
        for end in ends:
            end.close()
        return cls(
            process, await _writer(our_in), await _reader(our_out, limit), await _reader(our_err, limit)
        )

    @property
    def returncode(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        if self._returncode is None and (code := self._process.exitcode) is not None:
            self._returncode = code
        return self._returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()

    async def communicate(self) -> tuple[bytes, bytes]:
        """Read all that it still writes, and wait for its end."""
        out, err = await asyncio.gather(self.stdout.read(), self.stderr.read())
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._process.sentinel, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._process.sentinel)
        self._process.join()
        self.stdin.close()
        return out, err


def _be(arguments: Sequence[str], environment: Mapping[str, str], ends: Sequence[Connection]) -> None:
    for descriptor, end in enumerate(ends):
        os.dup2(end.fileno(), descriptor)
        end.close()
    os.environ.clear()
    os.environ.update(environment)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.argv = ["bitrix-pull", *arguments]
    from bitrix_pull.cli import main

    main()


async def _writer(end: Connection) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.streams.FlowControlMixin(loop=loop), _file(end, "wb")
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)


async def _reader(end: Connection, limit: int) -> asyncio.StreamReader:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), _file(end, "rb"))
    return reader


def _file(end: Connection, mode: Literal["rb", "wb"]) -> io.FileIO:
    descriptor = os.dup(end.fileno())
    end.close()
    return io.FileIO(descriptor, mode)
