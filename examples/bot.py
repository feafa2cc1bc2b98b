"""A bot whose handlers live in two routers, with a database handed in and middleware around them.

Run it:  python examples/bot.py
"""

import asyncio
import sqlite3
import time
from contextlib import closing

import bot_chat
import bot_orders
from bitrix_pull import CallNext, Context, Event, PullClient, Router
from portal_or_emulator import portal_or_emulator

router = Router()
router.include(bot_orders.router)
router.include(bot_chat.router)


@router.middleware
async def timing(event: Event, call_next: CallNext, context: Context) -> object:
    began_at = time.perf_counter()
    try:
        return await call_next(event)
    finally:
        print(f"  {event.label} took {(time.perf_counter() - began_at) * 1000:.1f} ms")


async def main() -> None:
    async with portal_or_emulator() as portal:
        with closing(sqlite3.connect(":memory:")) as db:
            db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, status TEXT)")
            pull = PullClient(portal.auth, context={"db": db})
            pull.include(router)
            async with pull:
                print("The bot is live.")
                await (talk(pull) if portal.emulated else asyncio.Event().wait())


async def talk(pull: PullClient) -> None:
    """Play the others: a shop that changes orders, and a person who asks about them."""
    async with pull.subscribe("answer", module="chat") as answers:
        await pull.publish("order_update", {"id": 7, "status": "paid"})
        await pull.publish("order_update", {"id": 7, "status": "sent"})
        for question in ("status 7", "status 8", "status of it"):
            print(f"you: {question}")
            await pull.publish("message", {"text": question}, module="chat")
            print(f"bot: {(await anext(answers)).params['text']}")


if __name__ == "__main__":
    asyncio.run(main())
