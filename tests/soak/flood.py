"""An emulator in a process of its own that publishes what it is told, by lines on stdin.

What it keeps is its own business there: in this process, memory is the client's.
"""

import asyncio
import os
import sys
from typing import Self

from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.faults import ConnectionFaults
from bitrix_pull.emulator.subscribers import PollSubscriber, Subscriber

TICK_S = 0.01


def resident_bytes() -> int:
    """Return how much memory this process has."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class FloodServer:
    """That process, as the one that has started it sees it."""

    def __init__(self, process: asyncio.subprocess.Process, portal_url: str, token: str) -> None:
        self._process = process
        self.portal_url = portal_url
        self.token = token

    @classmethod
    async def start(cls, *, version: int = 4) -> Self:
        """Start it, with a push server of this version."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.soak.flood", str(version), stdin=pipe, stdout=pipe
        )
        assert process.stdout is not None
        portal_url, token = (await process.stdout.readline()).decode().split()
        return cls(process, portal_url, token)

    async def flood(self, rate: float, total: int, text_bytes: int, at_once: int = 1) -> None:
        """Publish so many messages of a size, at a rate of this many times ``at_once`` a second."""
        await self._order("flood", rate, total, text_bytes, at_once)

    async def link(self, bytes_per_s: int) -> None:
        """Let connections be no faster than this from now on."""
        await self._order("link", bytes_per_s)

    async def replayed(self) -> int:
        """Wait until somebody connects, and return how many bytes are then replayed."""
        return int(await self._order("weigh"))

    async def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    async def _order(self, *words: object) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, words)).encode() + b"\n")
        await self._process.stdin.drain()
        return (await self._process.stdout.readline()).decode()


async def main(version: int) -> None:
    """Serve until stdin ends; each line is an order of ``FloodServer``."""
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    sent = 0
    async with Emulator(version=version) as emu:
        _tell(emu.portal_url, emu.token)
        while line := await commands.readline():
            answer = "done"
            match line.decode().split():
                case ["flood", rate, total, text_bytes, at_once]:
                    await _flood(emu, sent, float(rate), int(total), int(text_bytes), int(at_once))
                    sent += int(total)
                case ["link", bytes_per_s]:
                    faults = emu.push.faults
                    faults.script = faults.poll_script = lambda number, limit=int(bytes_per_s): (
                        ConnectionFaults(bytes_per_s=limit)
                    )
                case ["weigh"]:
                    answer = str(await _weigh(emu))
            _tell(answer)


async def _flood(emu: Emulator, first: int, rate: float, total: int, text_bytes: int, at_once: int) -> None:
    loop, text, sent = asyncio.get_running_loop(), "x" * text_bytes, 0
    began = loop.time()
    while sent < total:
        due = min(total, int((loop.time() - began) * rate + 1) * at_once)
        for n in range(sent, due):
            emu.portal.send("flood", {"n": first + n, "text": text})
        sent = due
        await asyncio.sleep(TICK_S)


async def _weigh(emu: Emulator) -> int:
    weight: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def weigh(subscriber: Subscriber) -> None:
        emu.push.faults.replay_race = None
        if not isinstance(subscriber, PollSubscriber):
            weight.set_result(subscriber.line.get_write_buffer_size())
        else:
            weight.set_result(len(subscriber.answered.result()[1]) if subscriber.answered.done() else 0)

    emu.push.faults.replay_race = weigh
    return await weight


def _tell(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
