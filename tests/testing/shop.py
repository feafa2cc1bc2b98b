"""A service as users write them, for tests as users write them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from bitrix_pull import (
    CallNext,
    Context,
    Event,
    Gap,
    PortalEvent,
    PublishError,
    PullClient,
    PullError,
    PullEvent,
    Router,
)


class Order(BaseModel):
    id: int
    status: str = "new"


class UnknownOrderError(Exception):
    pass


@dataclass
class Warehouse:
    """What handlers work with: it fails as often as a test wants."""

    packed: list[int] = field(default_factory=list[int])
    failures: int = 0
    parked: list[object] = field(default_factory=list[object])
    timings: list[str] = field(default_factory=list[str])
    deals: dict[int, str] = field(default_factory=dict[int, str])

    async def pack(self, order: int) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("the warehouse does not answer")
        self.packed.append(order)


router = Router()


@router.middleware
async def timing(event: Event, call_next: CallNext, context: Context) -> Any:
    try:
        return await call_next(event)
    finally:
        context["warehouse"].timings.append(event.label.partition(" ")[0])


@router.on("order_update", model=Order, where=lambda event: event.params.status == "paid")
async def pack(event: PullEvent[Order], warehouse: Warehouse) -> str:
    await warehouse.pack(event.params.id)
    return "packed"


async def park(event: PullEvent, error: Exception) -> None:
    parked.append((event.params["id"], str(error)))


parked: list[tuple[int, str]] = []


@router.on("invoice", retries=3, retry_delay=30, on_dead_letter=park)
async def book(event: PullEvent, warehouse: Warehouse) -> None:
    await warehouse.pack(event.params["id"])


@router.on("photo", timeout=30)
async def develop(event: PullEvent) -> None:
    await asyncio.Event().wait()


@router.on("payment", ack="manual")
async def pay(event: PullEvent, warehouse: Warehouse) -> None:
    if event.params.get("later") and event.attempts == 1:
        event.nack(delay=60)
    elif not event.params.get("forget"):
        await warehouse.pack(event.params["id"])
        event.ack()


@router.on("order_packed")
def count(event: PullEvent, warehouse: Warehouse) -> None:
    warehouse.parked.append((event.kind, event.params))


@router.on("ship", retries=1)
async def ship(event: PullEvent, pull: PullClient) -> None:
    await pull.publish("order_packed", {"id": event.params["id"]})


@router.on("tell")
async def tell(event: PullEvent) -> list[str]:
    receipt = await event.client.publish_many(
        [_message(user) for user in event.params["users"]], retry=event.params.get("retry", "never")
    )
    return [fate.outcome for fate in receipt.failures]


def _message(user: int) -> Any:
    from bitrix_pull import Message

    return Message("told", {"user": user}, users=user)


@router.on("mistake")
def mistake(event: PullEvent) -> None:
    raise UnknownOrderError("no such order")


@router.on_error(UnknownOrderError)
async def excuse(event: Event, error: UnknownOrderError, warehouse: Warehouse) -> None:
    warehouse.parked.append(str(error))


@router.on("album", concurrency=4, key=lambda event: event.params["album"])
async def sort_photos(event: PullEvent, warehouse: Warehouse) -> None:
    warehouse.packed.append(event.params["id"])


@router.on_portal_event("ONCRMDEALUPDATE", retries=2, retry_delay=60)
async def deal_changed(event: PortalEvent, pull: PullClient, warehouse: Warehouse) -> None:
    assert event.id is not None
    deal = await pull.call("crm.deal.get", {"id": event.id})
    await warehouse.pack(event.id)
    warehouse.deals[event.id] = deal["STAGE_ID"]


@router.on_portal_event("ONTASKADD")
async def task_added(event: PortalEvent, warehouse: Warehouse) -> None:
    warehouse.packed.append(event.fields["FOR"])


async def resync(pull: PullClient, fetch: Callable[[], Awaitable[None]]) -> None:
    """Fetch the state anew after each gap, as long as it runs."""
    async for notice in pull.notices():
        if isinstance(notice, Gap):
            await fetch()


async def publish_or_say_why(pull: PullClient) -> str:
    try:
        await pull.publish("order_packed", {"id": 1}, users=5)
    except PublishError as error:
        return type(error).__name__
    except PullError as error:
        return f"portal: {error}"
    return "published"
