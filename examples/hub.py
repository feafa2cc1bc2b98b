"""Many portals, one set of handlers: deals of all of them as they change.

Run it:  python examples/hub.py
Your portals: PORTALS=portals.db, a database that `bitrix-pull hub add --portals portals.db …`
fills. Without one, it runs against three emulated portals, and ends by itself.
"""

import asyncio
import os

import bitrix_pull
from bitrix_pull import AccessToken, Hub, Portal, PortalEvent, Router, SqlitePortals
from bitrix_pull.emulator import CloudPortal, EmulatedCloud

router = Router()


@router.on_portal_event("ONCRMDEALADD", "ONCRMDEALUPDATE")
async def deal_changed(event: PortalEvent, done: asyncio.Semaphore) -> None:
    # The client of the portal that the event is from.
    deal = await event.client.call("crm.deal.get", {"id": event.id})
    print(f"{event.portal}: deal {event.id} is {deal['STAGE_ID']}: {deal['TITLE']}", flush=True)
    done.release()


def hub_of(portals: SqlitePortals | list[Portal]) -> tuple[Hub, asyncio.Semaphore]:
    done = asyncio.Semaphore(0)
    hub = Hub(portals, context={"done": done})
    hub.include(router)
    return hub, done


async def emulated() -> None:
    print("PORTALS is not set: running against an emulated portal, or rather three.")
    async with EmulatedCloud(3) as cloud:
        names = ["acme", "beta", "gamma"]
        first, *others = zip(names, cloud.portals, strict=True)
        hub, done = hub_of([portal(*each) for each in others])
        async with hub.serving():
            # Portals come and go while it runs.
            await hub.add(portal(*first))
            while hub.health().live < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            for name, each in zip(names, cloud.portals, strict=True):
                await hub.client(name).call("server.time")
                each.deals.add({"TITLE": f"Chairs for {name}", "STAGE_ID": "NEW"})
            for _ in names:
                await done.acquire()
            print(f"{hub.health().live} portals are live", flush=True)


def portal(name: str, each: CloudPortal) -> Portal:
    return Portal(name, AccessToken(each.url, each.token))


if __name__ == "__main__":
    if path := os.environ.get("PORTALS"):
        bitrix_pull.run(hub_of(SqlitePortals(path))[0])
    else:
        asyncio.run(emulated())
