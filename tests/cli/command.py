"""Runs the real command, or another program, in a process of its own."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.forked import COMMAND, Pipe, Process

DEADLINE_S = 30.0
LINE_BYTES = 4 * 1024 * 1024

BITRIX_PULL = ("-m", "bitrix_pull")
"""The command as a shell starts it, for what an interpreter has a say in."""


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class Running:
    """A command that is under way."""

    def __init__(self, process: asyncio.subprocess.Process | Process) -> None:
        self._process = process

    async def line(self) -> str:
        """Wait for the next line on stdout."""
        assert self._process.stdout is not None
        return (await asyncio.wait_for(self._process.stdout.readline(), DEADLINE_S)).decode().rstrip("\n")

    async def json_line(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(await self.line())
        return line

    async def told(self, text: str) -> str:
        """Wait for a line on stderr that holds the text."""
        assert self._process.stderr is not None
        async with asyncio.timeout(DEADLINE_S):
            async for line in self._process.stderr:
                if text in line.decode():
                    return line.decode()
        raise AssertionError(f"stderr ended without {text!r}")

    async def write(self, text: str | bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode() if isinstance(text, str) else text)
        await self._process.stdin.drain()
        self._process.stdin.close()

    def send_signal(self, signal_number: signal.Signals) -> None:
        self._process.send_signal(signal_number)

    async def stop(self, with_signal: signal.Signals = signal.SIGINT) -> Outcome:
        """Send a signal and wait for the end."""
        self._process.send_signal(with_signal)
        return await self.end()

    async def end(self) -> Outcome:
        """Wait for the end; what was read before is not in the outcome."""
        out, err = await asyncio.wait_for(self._process.communicate(), DEADLINE_S)
        assert self._process.returncode is not None
        return Outcome(self._process.returncode, out.decode(), err.decode())

    def close_stdout(self) -> None:
        """Stop reading for good, as ``head`` does."""
        assert isinstance(self._process, asyncio.subprocess.Process)
        # The public way to the pipe's transport that asyncio offers.
        transport = self._process._transport  # type: ignore[attr-defined]
        transport.get_pipe_transport(1).close()

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()


async def start(
    *args: str, env: Mapping[str, str] | None = None, program: Sequence[str] = (COMMAND,), fresh: bool = False
) -> Running:
    """Start ``bitrix-pull ARGS``, or another program.

    Args:
        args: What follows the program.
        env: What its environment has beside this one's, of which it gets no credentials.
        program: A module, ``FILE.py``, or ``-c CODE``.
        fresh: True for an interpreter of its own, to which ``program`` is passed as it is.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BITRIX_PULL_")}
    environment = {**clean, **(env or {})}
    if not fresh:
        pipes: tuple[Pipe, ...] = ("stdin", "stdout", "stderr")
        return Running(await Process.start(*program, *args, env=environment, pipes=pipes, limit=LINE_BYTES))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *program, *args),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        limit=LINE_BYTES,
    )
    return Running(process)


async def run(*args: str, env: Mapping[str, str] | None = None) -> Outcome:
    """Run ``bitrix-pull ARGS`` to its end."""
    return await (await start(*args, env=env)).end()
