"""The same with PostgreSQL and an asynchronous connection: one effect an event, also over a crash.

Run it:  DATABASE="host=… dbname=… user=…" python examples/once_postgres.py
"""

import asyncio
import os

import psycopg

from bitrix_pull import Once, PullClient, PullEvent
from portal_or_emulator import Portal, portal_or_emulator


def client(portal: Portal, database: psycopg.AsyncConnection) -> PullClient:
    """Return a client that adds up payments."""
    # With resume= in a real program; without it, and from the earliest event on, all comes again.
    pull = PullClient(portal.auth, start="earliest")
    pull.middleware(provides=["db"])(Once(database))

    @pull.on("payment", retries=3)
    async def add_up(event: PullEvent, db: psycopg.AsyncConnection) -> None:
        print(f"payment of {event.params['amount']}")
        await db.execute("UPDATE account SET balance = balance + %s", (event.params["amount"],))

    return pull


async def main() -> None:
    if "DATABASE" not in os.environ:
        raise SystemExit('Set DATABASE to a database of PostgreSQL, as in "host=localhost dbname=test".')
    async with (
        portal_or_emulator() as portal,
        await psycopg.AsyncConnection.connect(os.environ["DATABASE"]) as database,
    ):
        await database.execute("CREATE TABLE IF NOT EXISTS account AS SELECT 0 AS balance")
        await database.commit()
        for run in ("first", "second"):
            async with client(portal, database) as pull:
                if run == "first":
                    await pull.publish("payment", {"amount": 40})
                    await pull.publish("payment", {"amount": 2})
                await asyncio.sleep(2)
            row = await (await database.execute("SELECT balance FROM account")).fetchone()
            print(f"{run} run: the balance is {row[0] if row else None}")
            await database.commit()


if __name__ == "__main__":
    asyncio.run(main())
