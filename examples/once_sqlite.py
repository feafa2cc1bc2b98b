"""One effect an event, also over a crash: what is handled is written in the same transaction.

Run it:  python examples/once_sqlite.py
"""

import asyncio
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from bitrix_pull import Once, PullClient, PullEvent
from portal_or_emulator import Portal, portal_or_emulator


def client(portal: Portal, database: sqlite3.Connection) -> PullClient:
    """Return a client that adds up payments."""
    # With resume= in a real program; without it, and from the earliest event on, all comes again.
    pull = PullClient(portal.auth, start="earliest")
    pull.middleware(provides=["db"])(Once(database))

    @pull.on("payment")
    async def add_up(event: PullEvent, db: sqlite3.Connection) -> None:
        print(f"payment of {event.params['amount']}")
        db.execute("UPDATE account SET balance = balance + ?", (event.params["amount"],))

    return pull


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with portal_or_emulator() as portal:
            with closing(sqlite3.connect(Path(folder) / "account.db")) as database:
                database.execute("CREATE TABLE account AS SELECT 0 AS balance")
                database.commit()
                for run in ("first", "second"):
                    async with client(portal, database) as pull:
                        if run == "first":
                            await pull.publish("payment", {"amount": 40})
                            await pull.publish("payment", {"amount": 2})
                        await asyncio.sleep(2)
                    (balance,) = database.execute("SELECT balance FROM account").fetchone()
                    print(f"{run} run: the balance is {balance}")


if __name__ == "__main__":
    asyncio.run(main())
