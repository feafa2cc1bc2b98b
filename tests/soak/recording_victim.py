"""The process that is killed: ``python -m tests.soak.recording_victim PORTAL TOKEN RECORDING ARRIVALS``."""

import asyncio
import sys
import time

from bitrix_pull import AccessToken, PullClient, PullEvent
from bitrix_pull.testing import Recorder
from tests.soak.recording import SLOT, mapped


async def main(portal: str, token: str, recording: str, arrivals: str) -> None:
    """Record until killed."""
    pull = PullClient(AccessToken(portal, token))
    memory = mapped(arrivals)

    @pull.on("x")
    def handle(event: PullEvent) -> None:
        SLOT.pack_into(memory, SLOT.size * event.params["n"], time.time())

    with Recorder(recording, keep_params=True).follow(pull):
        await pull.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
