"""Holds the right to refresh until killed: ``python -m tests.hub.postgres_holder CONNINFO SCHEMA HOLD_S``."""

import asyncio
import sys

from bitrix_pull.hub.postgres import PostgresStore


async def main(conninfo: str, schema: str, hold_s: str) -> None:
    """Say so once it is held, and, when told to go on, whether it may still be made use of."""
    store = PostgresStore(conninfo, schema=schema, hold_s=float(hold_s)).tokens("acme")
    async with store.lock(10.0) as held:
        tokens = await held.load()
        print("held", flush=True)  # noqa: T201
        await asyncio.to_thread(sys.stdin.readline)
        try:
            await held.save(tokens)
        except Exception as error:
            print(f"{type(error).__name__}: {error}", flush=True)  # noqa: T201
        else:
            print("saved", flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
