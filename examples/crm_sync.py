"""The deals of a portal mirrored into SQLite: copied once, then kept by the portal's own events.

What changes while this is down waits in the portal's queue, and is caught up with at the next
start. Needs the scopes "pull" and "crm", and an administrator's token.

Run it:  python examples/crm_sync.py
"""

import asyncio
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from bitrix_pull import PortalEvent, PullClient, PullError
from bitrix_pull.emulator import Emulator
from portal_or_emulator import portal_or_emulator

FIELDS = ["ID", "TITLE", "STAGE_ID", "OPPORTUNITY"]


class Mirror:
    """A table of deals that follows a portal."""

    def __init__(self, pull: PullClient, path: Path) -> None:
        self._pull = pull
        self._db = sqlite3.connect(path)
        self._db.execute("CREATE TABLE IF NOT EXISTS deals (id INTEGER PRIMARY KEY, title, stage, amount)")
        self._db.execute("CREATE TABLE IF NOT EXISTS copied (done)")
        self._copied = asyncio.Event()
        self._wanted: dict[int, asyncio.Future[Any]] = {}
        # Many at once, so that what one look into the queue brings is fetched in one batch.
        pull.on_portal_event("ONCRMDEALADD", "ONCRMDEALUPDATE", retries=5, concurrency=50)(self.changed)
        pull.on_portal_event("ONCRMDEALDELETE")(self.deleted)

    async def copy(self) -> None:
        """Copy all deals, once. The events that come meanwhile wait: they are newer."""
        if self._db.execute("SELECT 1 FROM copied").fetchone() is None:
            async for deal in self._pull.fetch_all(
                "crm.deal.list", {"select": FIELDS, "order": {"ID": "ASC"}}
            ):
                self._store(deal)
            self._db.execute("INSERT INTO copied VALUES (1)")
            self._db.commit()
        self._copied.set()

    async def changed(self, event: PortalEvent[Any]) -> None:
        """Store what a deal has become: the event only says that it has changed."""
        await self._copied.wait()
        if event.id is not None:
            self._store(await self._fetch(event.id))
            self._db.commit()

    async def deleted(self, event: PortalEvent[Any]) -> None:
        """Forget a deal."""
        await self._copied.wait()
        self._db.execute("DELETE FROM deals WHERE id = ?", (event.id,))
        self._db.commit()

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the table."""
        return self._db.execute("SELECT * FROM deals ORDER BY id").fetchall()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    async def _fetch(self, deal_id: int) -> dict[str, Any] | None:
        """Fetch a deal, together with others that are wanted in the same moment."""
        if not self._wanted:
            asyncio.get_running_loop().call_later(0.05, lambda: asyncio.ensure_future(self._fetch_wanted()))
        found = self._wanted.setdefault(deal_id, asyncio.get_running_loop().create_future())
        return await asyncio.shield(found)

    async def _fetch_wanted(self) -> None:
        wanted, self._wanted = self._wanted, {}
        try:
            deals = await self._pull.batch_call([("crm.deal.get", {"id": deal_id}) for deal_id in wanted])
        except PullError as error:
            deals = [error] * len(wanted)
        for found, deal in zip(wanted.values(), deals, strict=True):
            # A deal that was deleted since is no failure: its deletion is an event too.
            if isinstance(deal, PullError) and "Not found" not in str(deal):
                found.set_exception(deal)
            else:
                found.set_result(None if isinstance(deal, PullError) else deal)

    def _store(self, deal: dict[str, Any] | None) -> None:
        if deal is not None:
            self._db.execute(
                "INSERT OR REPLACE INTO deals VALUES (?, ?, ?, ?)", [deal[name] for name in FIELDS]
            )


async def main() -> None:
    async with portal_or_emulator() as portal:
        if portal.emulator is None:
            mirror = Mirror(pull := PullClient(portal.auth), Path("deals.db"))
            async with pull:
                await mirror.copy()
                print(f"{len(mirror.rows())} deals are mirrored in deals.db; Ctrl-C stops.")
                await asyncio.Event().wait()
        else:
            await play(portal.emulator, portal.auth)


async def play(emulator: Emulator, auth: Any) -> None:
    """Change deals while the mirror runs and while it does not."""
    deals = emulator.portal.deals
    chairs, tables = deals.add({"TITLE": "Chairs"}), deals.add({"TITLE": "Tables"})
    with tempfile.TemporaryDirectory() as directory:
        database = Path(directory) / "deals.db"
        for run in ("first", "second"):
            mirror = Mirror(pull := PullClient(auth), database)
            async with pull:
                await mirror.copy()
                print(f"{run} run: {len(mirror.rows())} deals at the start")
                if run == "first":
                    deals.update(chairs, {"STAGE_ID": "WON", "OPPORTUNITY": 900})
                while emulator.portal.offline.records:  # noqa: ASYNC110 - the portal sets no event
                    await asyncio.sleep(0.05)
                for row in mirror.rows():
                    print("  ", *row)
            mirror.close()
            # Nobody is there now; the portal remembers.
            deals.delete(tables)
            tables = deals.add({"TITLE": "Lamps"})


if __name__ == "__main__":
    asyncio.run(main())
