"""Publishing from a service: awaited where the thing happens, and checked.

Run it:  python examples/publisher.py
"""

import asyncio

from bitrix_pull import PullClient, PullError
from portal_or_emulator import portal_or_emulator


class Orders:
    """A service that tells everybody who has the application open about its orders."""

    def __init__(self, pull: PullClient) -> None:
        self._pull = pull

    async def pay(self, order_id: int) -> None:
        """Mark an order as paid, and tell everybody."""
        # Here it would be stored. Whether the news gets out does not undo that.
        try:
            receipt = await self._pull.publish("order_update", {"id": order_id, "status": "paid"})
        except PullError as error:
            again = "worth another try" if error.retryable else "takes a person"
            print(f"order {order_id}: paid, but nobody was told ({again}): {error}")
        else:
            print(f"order {order_id}: paid, and published by {receipt.route}")


async def main() -> None:
    async with portal_or_emulator() as portal:
        # To publish, a client need not be started: only closed, for its HTTP session.
        pull = PullClient(portal.auth)
        orders = Orders(pull)
        try:
            for order_id in (7, 8, 9):
                await orders.pay(order_id)
        finally:
            await pull.close()


if __name__ == "__main__":
    asyncio.run(main())
