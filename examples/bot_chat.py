"""The part of the bot that answers questions."""

from collections.abc import Awaitable, Callable

from pydantic import BaseModel

from bitrix_pull import PullEvent, Router
from bot_orders import Orders


class Message(BaseModel):
    """The params of ``message``."""

    text: str


def chat_router(orders: Orders, say: Callable[[str], Awaitable[None]]) -> Router:
    """Return the router that answers ``status NUMBER``."""
    router = Router(module="chat")

    @router.on("message", model=Message)
    async def asked(event: PullEvent[Message]) -> None:
        match event.params.text.split():
            case ["status", number] if number.isdecimal():
                await say(f"order {number} is {orders.status(int(number))}")
            case _:
                await say("I understand: status NUMBER")

    return router
