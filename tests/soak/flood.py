"""An emulator in a process of its own that publishes as fast as it is told, by lines on stdin."""

import asyncio
import sys

from bitrix_pull.emulator import Emulator

TICK_S = 0.01


async def main() -> None:
    """Serve until stdin ends; each line is a rate, a number of messages and their size."""
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    async with Emulator() as emu:
        _tell(emu.portal_url, emu.token)
        while line := await commands.readline():
            rate, total, text_bytes = map(int, line.split())
            text = "x" * text_bytes
            began = loop.time()
            sent = 0
            while sent < total:
                due = min(total, int((loop.time() - began) * rate))
                for n in range(sent, due):
                    emu.portal.send("flood", {"n": n, "text": text})
                sent = due
                await asyncio.sleep(TICK_S)
            _tell("done")


def _tell(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
