"""A worker with nothing else to do: a resume store, and a clean end on SIGTERM.

Run it:  python examples/worker.py
"""

import asyncio
import os

import bitrix_pull
from account import account
from bitrix_pull import PullClient, PullEvent

# With a store, a restart goes on where all was handled.
pull = PullClient(account(), resume=os.environ.get("RESUME", "worker.resume"))


@pull.on("order_update", retries=3)
async def order_updated(event: PullEvent) -> None:
    print(f"order {event.params['id']} has changed", flush=True)
    await asyncio.sleep(0.5)  # What takes its time.
    print(f"order {event.params['id']} is {event.params['status']}", flush=True)


if __name__ == "__main__":
    bitrix_pull.run(pull)
