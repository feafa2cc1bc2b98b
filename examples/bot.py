"""A bot whose callbacks live in two routers, each in a file of its own.

Run it:  python examples/bot.py
"""

import asyncio

from bitrix_pull import PullClient
from bot_chat import chat_router
from bot_orders import Orders, orders_router
from portal_or_emulator import portal_or_emulator


async def main() -> None:
    async with portal_or_emulator() as portal:
        pull = PullClient(portal.auth)
        orders = Orders()

        async def say(text: str) -> None:
            print(f"bot: {text}")
            await pull.publish("answer", {"text": text}, module="chat")

        pull.include(orders_router(orders))
        pull.include(chat_router(orders, say))

        async with pull:
            print("The bot is live.")
            if portal.emulated:
                await talk(pull)
            else:
                await asyncio.Event().wait()


async def talk(pull: PullClient) -> None:
    """Play the others: a shop that changes orders, and a person who asks about them."""
    async with pull.subscribe("answer", module="chat") as answers:
        await pull.publish("order_update", {"id": 7, "status": "paid"})
        await pull.publish("order_update", {"id": 7, "status": "sent"})
        for question in ("status 7", "status 8"):
            print(f"you: {question}")
            await pull.publish("message", {"text": question}, module="chat")
            await anext(answers)


if __name__ == "__main__":
    asyncio.run(main())
