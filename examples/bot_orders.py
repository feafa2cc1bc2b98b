"""The part of the bot that follows orders."""

from pydantic import BaseModel

from bitrix_pull import PullEvent, Router


class Order(BaseModel):
    """The params of ``order_update``."""

    id: int
    status: str


class Orders:
    """What the bot knows of the orders."""

    def __init__(self) -> None:
        self._statuses: dict[int, str] = {}

    def update(self, order: Order) -> None:
        """Take note of an order's new status."""
        self._statuses[order.id] = order.status

    def status(self, order_id: int) -> str:
        """Return the status of an order."""
        return self._statuses.get(order_id, "unknown")


def orders_router(orders: Orders) -> Router:
    """Return the router that keeps the orders up to date."""
    router = Router(module="application")

    @router.on("order_update", model=Order)
    def order_updated(event: PullEvent[Order]) -> None:
        print(f"orders: {event.params.id} is {event.params.status}")
        orders.update(event.params)

    return router
