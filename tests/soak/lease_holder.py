"""Holds leases and serves nothing: ``python -m tests.soak.lease_holder URL NAME WORKER LEASES``."""

import asyncio
import logging
import sys

from bitrix_pull.hub.cluster import Recalled
from bitrix_pull.hub.valkey import ValkeyCluster


async def main(url: str, name: str, worker: str, leases: int) -> None:
    """Take part until killed."""
    async with ValkeyCluster(url, name=name).join(worker) as membership:
        membership.want([f"portal-{number}" for number in range(leases)])
        async for change in membership.changes():
            if isinstance(change, Recalled):
                await membership.release(change.lease)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    _, url, name, worker, leases = sys.argv
    asyncio.run(main(url, name, worker, int(leases)))
