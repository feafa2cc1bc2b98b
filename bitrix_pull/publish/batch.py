"""Messages that are collected first and sent together."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

from bitrix_pull.publish.message import Message, Params
from bitrix_pull.publish.receipt import Receipt
from bitrix_pull.wire.channel_ids import PublicChannel


class Batch:
    """Collects messages and sends them at the end of its ``async with`` block.

    An exception in the block sends nothing. Each block begins with nothing collected. Made
    by ``PullClient.batch``.

    Example:
        async with pull.batch(route="endpoint") as batch:
            for order in orders:
                batch.publish("order_update", {"id": order.id}, users=order.watchers)
        batch.receipt.raise_for_failures()
    """

    def __init__(self, send: Callable[[Sequence[Message]], Awaitable[Receipt]]) -> None:
        """Send by ``send`` what is collected."""
        self._send = send
        self._messages: list[Message] = []
        self._collecting = False
        self._receipt: Receipt | None = None

    def publish(
        self,
        command: str,
        params: Params | None = None,
        *,
        module: str = "application",
        users: int | Iterable[int] | None = None,
        channels: str | PublicChannel | Iterable[str | PublicChannel] | None = None,
        to_self: bool = False,
    ) -> None:
        """Add a message; the arguments are those of ``Message``.

        Raises:
            InvalidArgument: The message can be no event.
            RuntimeError: It would never be sent: the block has ended, or not begun.
        """
        if not self._collecting:
            raise RuntimeError("a batch takes messages inside of its `async with` block only")
        self._messages.append(
            Message(command, params, module=module, users=users, channels=channels, to_self=to_self)
        )

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def receipt(self) -> Receipt:
        """What became of the messages, in the order in which they were added.

        Raises:
            RuntimeError: They are not sent yet.
        """
        if self._receipt is None:
            raise RuntimeError("a batch is sent at the end of its `async with` block")
        return self._receipt

    async def __aenter__(self) -> Self:
        self._messages, self._receipt = [], None
        self._collecting = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Send what was collected, unless the block raised.

        Raises:
            PullError: The route cannot be used at all; nothing was sent.
        """
        self._collecting = False
        if exc_type is None:
            self._receipt = await self._send(self._messages)
