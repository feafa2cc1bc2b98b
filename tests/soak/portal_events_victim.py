"""The process that is killed: ``python -m tests.soak.portal_events_victim PORTAL TOKEN LOG``.

Each deal that its handler has finished with is a line in the log: its number, and the state
that was fetched.
"""

import asyncio
import os
import random
import sys
from typing import Any

from bitrix_pull import AccessToken, PortalEvent, PullClient


async def main(portal: str, token: str, log: str) -> None:
    """Handle changes of deals until killed."""
    pull = PullClient(AccessToken(portal, token))
    # Written with one system call each, so that a kill leaves whole lines behind.
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    @pull.on_portal_event("ONCRMDEALUPDATE", concurrency=4)
    async def changed(event: PortalEvent[Any]) -> None:
        fetched = await pull.call("crm.deal.get", {"id": event.id})
        await asyncio.sleep(random.uniform(0, 0.1))
        os.write(file, f"{event.id} {fetched['OPPORTUNITY']}\n".encode())

    await pull.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
