"""The part of the bot that answers ``status NUMBER``."""

import sqlite3

from pydantic import BaseModel

from bitrix_pull import PullClient, PullEvent, Router

router = Router(module="chat")


class Message(BaseModel):
    """The params of ``message``."""

    text: str


@router.on("message", model=Message, where=lambda event: event.params.text.startswith("status"))
async def asked(event: PullEvent[Message], db: sqlite3.Connection, pull: PullClient) -> None:
    number = int(event.params.text.removeprefix("status"))
    row = db.execute("SELECT status FROM orders WHERE id = ?", (number,)).fetchone()
    text = f"order {number} is {row[0] if row else 'unknown'}"
    await pull.publish("answer", {"text": text}, module="chat")


@router.on_error(ValueError)
async def not_understood(event: PullEvent, error: ValueError, pull: PullClient) -> None:
    await pull.publish("answer", {"text": "I understand: status NUMBER"}, module="chat")
