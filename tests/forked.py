"""Fresh processes in milliseconds: each is forked from one that has imported everything."""

import asyncio
import gc
import io
import multiprocessing
import os
import runpy
import signal
import sys
import warnings
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

_COMMANDS = ("app", "config", "demo", "doctor", "emulator", "events", "hub", "inspect", "listen", "publish")

context = multiprocessing.get_context("forkserver")
# multiprocessing imports the main module too.
context.set_forkserver_preload(
    [
        "pytest",
        "tests.hostile.victim",
        "tests.forked",
        "bitrix_pull.emulator",
        "bitrix_pull.hub.valkey",
        "tests.warm",
        *(f"bitrix_pull.cli.{name}" for name in _COMMANDS),
    ]
)

Pipe = Literal["stdin", "stdout", "stderr"]

COMMAND = "bitrix_pull"
"""The module that is ``bitrix-pull``."""

CODE = "-c"
"""Stands in a module's place where a program's text follows."""

DEVELOPMENT = {"PYTHONASYNCIODEBUG": "1", "PYTHONWARNINGS": "default"}
"""What the option ``-X dev`` of an interpreter asks for, as far as a program can be told afterwards."""


class Output(asyncio.StreamReader):
    """What a process writes.

    Attributes:
        command: What an interpreter would have been started with.
        descriptor: 1 or 2.
    """

    def __init__(self, command: Sequence[str], descriptor: int, limit: int) -> None:
        super().__init__(limit=limit)
        self.command = command
        self.descriptor = descriptor

    def feed_data(self, data: Any) -> None:
        """Take what it has written: this is where it can be looked at."""
        super().feed_data(data)


class Process:
    """What ``python`` runs in a process of its own; offers what a process of asyncio does."""

    def __init__(
        self,
        process: BaseProcess,
        stdin: asyncio.StreamWriter | None,
        stdout: asyncio.StreamReader | None,
        stderr: asyncio.StreamReader | None,
    ) -> None:
        assert process.pid is not None
        self.pid = process.pid
        self._process = process
        self._returncode: int | None = None
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr

    @classmethod
    async def start(
        cls,
        module: str,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        pipes: Sequence[Pipe] = (),
        limit: int = 65_536,
    ) -> "Process":
        """Start it.

        Args:
            module: What is run: a module's name, the path of a ``.py`` file, or ``CODE``.
            arguments: What follows it.
            env: All that is in its environment; None for what is in this one's.
            pipes: Which of the three lead here; the others are those of this process.
            limit: The longest line that can be read from it.
        """
        pipe, duplicate = context.Pipe, _duplicate
        stdin, our_in = pipe(duplex=False) if "stdin" in pipes else (duplicate(0), None)
        our_out, stdout = pipe(duplex=False) if "stdout" in pipes else (None, duplicate(1))
        our_err, stderr = pipe(duplex=False) if "stderr" in pipes else (None, duplicate(2))
        ends = (stdin, stdout, stderr)
        process = context.Process(
            target=_be, args=(module, arguments, dict(os.environ if env is None else env), ends), daemon=True
        )
        process.start()
        for end in ends:
            end.close()
        is_module = module != CODE and not module.endswith(".py")
        command = (sys.executable, *(("-m",) if is_module else ()), module, *arguments)
        return cls(
            process,
            None if our_in is None else await _writer(our_in),
            None if our_out is None else await _reader(our_out, Output(command, 1, limit)),
            None if our_err is None else await _reader(our_err, Output(command, 2, limit)),
        )

    @property
    def returncode(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        if self._returncode is None and (code := self._process.exitcode) is not None:
            self._returncode = code
        return self._returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()

    async def wait(self) -> int:
        """Wait for its end."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._process.sentinel, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._process.sentinel)
        self._process.join()
        if self.stdin is not None:
            self.stdin.close()
        assert self.returncode is not None
        return self.returncode

    async def communicate(self) -> tuple[bytes, bytes]:
        """Read all that it still writes, and wait for its end."""
        out, err = await asyncio.gather(_rest(self.stdout), _rest(self.stderr))
        await self.wait()
        return out, err


async def _rest(reader: asyncio.StreamReader | None) -> bytes:
    return b"" if reader is None else await reader.read()


def _duplicate(descriptor: int) -> Connection:
    """Return something that carries a descriptor to another process."""
    return Connection(os.dup(descriptor))


def _be(module: str, arguments: Sequence[str], env: Mapping[str, str], ends: Sequence[Connection]) -> None:
    for descriptor, end in enumerate(ends):
        os.dup2(end.fileno(), descriptor)
        end.close()
    os.environ.clear()
    os.environ.update(env)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    if (asked := env.get("PYTHONWARNINGS")) is not None:
        warnings.simplefilter(asked)  # type: ignore[arg-type]
    sys.argv = ["bitrix-pull" if module == COMMAND else module, *arguments]
    if module == COMMAND:
        from bitrix_pull.cli import main

        main()
    elif module == CODE:
        exec(compile(arguments[0], "<string>", "exec"), {"__name__": "__main__"})
    elif module.endswith(".py"):
        sys.path.insert(0, str(Path(module).parent))
        runpy.run_path(module, run_name="__main__")
    else:
        runpy.run_module(module, run_name="__main__")
    # What a program has left open is told as an interpreter tells it at its end.
    gc.collect()


async def _writer(end: Connection) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.streams.FlowControlMixin(loop=loop), _file(end, "wb")
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)


async def _reader(end: Connection, reader: Output) -> asyncio.StreamReader:
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), _file(end, "rb"))
    return reader


def _file(end: Connection, mode: Literal["rb", "wb"]) -> io.FileIO:
    descriptor = os.dup(end.fileno())
    end.close()
    return io.FileIO(descriptor, mode)
