"""The process that is killed: ``python -m tests.soak.victim PORTAL TOKEN STORE LOG``.

Every event that its handler is called with is a line in the log: number and unix time.
"""

import asyncio
import os
import sys
import time
from typing import Any

from bitrix_pull import AccessToken, PullClient, PullEvent, ResumeStore, SqliteStore


async def main(portal: str, token: str, store: str, log: str) -> None:
    """Listen until killed."""
    resume: str | ResumeStore = SqliteStore(store) if store.endswith(".db") else store
    pull = PullClient(AccessToken(portal, token), resume=resume)
    # Written with one system call each, so that a kill leaves whole lines behind.
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    @pull.on("x")
    async def handle(event: PullEvent[Any]) -> None:
        os.write(file, f"{os.getpid()} {event.params['n']} {time.time()}\n".encode())
        await asyncio.sleep(0.001)

    @pull.on("stuck")
    async def never_finish(event: PullEvent[Any]) -> None:
        await asyncio.Event().wait()

    await pull.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
