"""Frames written beforehand, from a push server in another process."""

import asyncio
import pickle
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bitrix_pull.wire.formats import WireFormat


@dataclass(slots=True, frozen=True)
class Load:
    """What a client gets to read.

    Attributes:
        messages: How many messages, at least.
        per_frame: How many of them are in one WebSocket frame.
        body_bytes: The size of a message's JSON body.
        kinds: How many commands there are, each as often as the others.
    """

    wire_format: WireFormat
    messages: int
    per_frame: int = 1
    body_bytes: int = 450
    kinds: int = 1


def command(kind: int) -> str:
    """Return the command of a kind of messages."""
    return f"tick_{kind:02}"


@asynccontextmanager
async def flooding(load: Load) -> AsyncIterator[str]:
    """Run a server in another process; give its WebSocket address."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.frame_server", stdin=pipe, stdout=pipe
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(pickle.dumps(load))
    process.stdin.write_eof()
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.terminate()
        await process.wait()
