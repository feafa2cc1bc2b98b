"""Publishing from a service: awaited where the thing happens, and checked.

Run it:  python examples/publisher.py
"""

import asyncio
from collections.abc import Iterable

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
            # "safe": whoever hears twice that an order is paid takes no harm, so what an
            # outage leaves open is sent again.
            receipt = await self._pull.publish(
                "order_update", {"id": order_id, "status": "paid"}, retry="safe", timeout=10
            )
        except PullError as error:
            print(f"order {order_id}: paid, but nobody may know: {error}")
        else:
            print(f"order {order_id}: paid, and published by {receipt.route}")

    async def remind(self, order_ids: Iterable[int]) -> None:
        """Remind oneself of unpaid orders: many events, few requests."""
        async with self._pull.batch(route="endpoint") as batch:
            for order_id in order_ids:
                batch.publish("order_reminder", {"id": order_id}, to_self=True)
        for fate in batch.receipt.failures:
            print(f"no reminder of {fate.message.params['id']}: {fate.error}")
        print(f"{batch.receipt.messages} reminders in {batch.receipt.requests} request")


async def main() -> None:
    async with portal_or_emulator() as portal:
        # To publish, a client need not be started: only closed, for its HTTP session.
        pull = PullClient(portal.auth)
        orders = Orders(pull)
        try:
            for order_id in (7, 8, 9):
                await orders.pay(order_id)
            await orders.remind(range(10, 60))
        finally:
            await pull.close()


if __name__ == "__main__":
    asyncio.run(main())
