"""The part of the bot that follows orders."""

import sqlite3

from pydantic import BaseModel

from bitrix_pull import PullEvent, Router

router = Router(module="application")


class Order(BaseModel):
    """The params of ``order_update``."""

    id: int
    status: str


@router.on("order_update", model=Order)
def order_updated(event: PullEvent[Order], db: sqlite3.Connection) -> None:
    db.execute("REPLACE INTO orders VALUES (?, ?)", (event.params.id, event.params.status))
