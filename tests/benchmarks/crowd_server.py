"""An emulator in a process of its own that takes thousands of clients, told what to do over stdin.

    python -m tests.benchmarks.crowd_server COUNT

It writes a JSON line with the portal's address and a token for each client, and then answers
each command with one: ``events on``, ``events off``, ``restart``, ``attempts``.
"""

import asyncio
import json
import sys
from collections import deque
from contextlib import suppress
from typing import Any

from bitrix_pull.emulator import Emulator
from bitrix_pull.program import collect_less_often

WATCH_EVERY_S = 0.05


class Crowd:
    """Sends to every user now and then, and counts the connections that are opened."""

    def __init__(self, emulator: Emulator, count: int) -> None:
        self._emulator = emulator
        self._count = count
        self._sending: asyncio.Task[None] | None = None
        self._opened: deque[int] = deque(maxlen=round(1 / WATCH_EVERY_S) + 1)
        self._busiest_second = 0

    async def obey(self, command: str) -> dict[str, Any]:
        match command:
            case "events on":
                self._sending = asyncio.create_task(self._send())
            case "events off":
                if self._sending is not None:
                    self._sending.cancel()
            case "restart":
                await self._emulator.stop()
                self._busiest_second = 0
                await self._emulator.start()
            case "attempts":
                return {"opened": self._emulator.push.counters.websockets, "busiest": self._busiest_second}
            case _:
                raise ValueError(command)
        return {"done": command}

    async def _send(self) -> None:
        """Send one event a second to each user, evenly spread."""
        loop = asyncio.get_running_loop()
        due, user = loop.time(), 0
        while True:
            user = user % self._count + 1
            self._emulator.portal.send("tick", {"at": loop.time()}, users=[user])
            due += 1 / self._count
            if due > loop.time():
                await asyncio.sleep(due - loop.time())

    async def watch(self) -> None:
        """Find the second in which most connections were opened."""
        while True:
            self._opened.append(self._emulator.push.counters.websockets)
            self._busiest_second = max(self._busiest_second, self._opened[-1] - self._opened[0])
            await asyncio.sleep(WATCH_EVERY_S)


def say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def main(count: int) -> None:
    async with Emulator(security_key="benchmark") as emulator:
        crowd = Crowd(emulator, count)
        watching = asyncio.create_task(crowd.watch())
        tokens = [emulator.portal.issue_token(user) for user in range(1, count + 1)]
        say({"portal": emulator.portal_url, "tokens": tokens})
        while line := await asyncio.to_thread(sys.stdin.readline):
            say(await crowd.obey(line.strip()))
        watching.cancel()


if __name__ == "__main__":
    collect_less_often()
    with suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1])))
