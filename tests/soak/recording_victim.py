"""The process that is killed: ``python -m tests.soak.recording_victim PORTAL TOKEN RECORDING ARRIVALS RATE``.

With a rate other than 0 it listens to no portal, and makes up so many events a second.
"""

import asyncio
import sys
import time

from bitrix_pull import AccessToken, PullClient, PullEvent
from bitrix_pull.client import runs_of
from bitrix_pull.dispatch.dependencies import Supply
from bitrix_pull.testing import Recorder, make_event
from tests.soak.recording import EVERY_S, SLOT, TEXT, mapped


async def main(portal: str, token: str, recording: str, arrivals: str, rate: str) -> None:
    """Record until killed."""
    pull = PullClient(AccessToken(portal, token))
    memory = mapped(arrivals)

    @pull.on("x")
    def handle(event: PullEvent) -> None:
        SLOT.pack_into(memory, SLOT.size * event.params["n"], time.time())

    with Recorder(recording, keep_params=True).follow(pull):
        if int(rate):
            await _feed(pull, int(rate), len(memory) // SLOT.size)
        await pull.run()


async def _feed(pull: PullClient, rate: int, count: int) -> None:
    """Put events where a connection's reader would."""
    reception = runs_of(pull).reception
    reception.prepare(Supply())
    handling = asyncio.create_task(reception.run())
    await asyncio.sleep(0.01)
    began_at, put = time.monotonic(), 0
    while put < count:
        due = min(int((time.monotonic() - began_at) * rate) + 1, count)
        reception.stream.put([make_event("x", {"n": n, "text": TEXT}) for n in range(put, due)])
        put = due
        await asyncio.sleep(EVERY_S)
    await handling


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
