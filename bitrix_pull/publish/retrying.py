"""Getting one request through: what is repeated, for how long, and what is known in the end."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Literal

from bitrix_pull.errors import OutcomeUnknown, PublishBusy, PullError, Unreachable

Retry = Literal["never", "safe"]
"""Whether a message may be repeated of which nobody knows whether it was published."""

BACKOFF_S = (0.25, 0.5, 1.0, 2.0, 5.0)
"""Waits between repetitions; the last one lasts."""


async def deliver(send: Callable[[float], Awaitable[None]], *, deadline: float, retry: Retry) -> None:
    """Send until it is known what became of it, or until it may not be repeated any more.

    What the server was too busy to take is repeated in any case: it was not published.

    Args:
        send: Makes one attempt within the given seconds. It raises ``PublishBusy``,
            ``Unreachable`` (never sent), ``OutcomeUnknown``, or whatever else refuses it.
        deadline: When to give up, in the event loop's time.
        retry: "safe" repeats what was never sent, or may have been published or not.

    Raises:
        OutcomeUnknown: Nobody knows of one attempt at least, and none was accepted.
        PullError: It surely was not published.
    """
    loop = asyncio.get_running_loop()
    doubt: OutcomeUnknown | None = None
    attempts = 0
    while True:
        left_s = deadline - loop.time()
        if left_s <= 0:
            raise Unreachable("not sent: the timeout had passed before its turn came", unsent=True)
        try:
            await send(left_s)
            return
        except PullError as error:
            if isinstance(error, OutcomeUnknown):
                doubt = error
            wait_s = _wait_s(error, retry, attempts)
            if wait_s is None or loop.time() + wait_s >= deadline:
                if doubt is not None and doubt is not error:
                    # An earlier attempt may have come through, whatever became of this one.
                    raise doubt from error
                raise
        await asyncio.sleep(wait_s)
        attempts += 1


def _wait_s(error: PullError, retry: Retry, attempts: int) -> float | None:
    """Return the seconds until the next attempt; None if there may be none."""
    backoff_s = BACKOFF_S[min(attempts, len(BACKOFF_S) - 1)] * random.uniform(0.8, 1.2)
    match error:
        case PublishBusy():
            return max(error.retry_after_s, backoff_s)
        case OutcomeUnknown() | Unreachable() if retry == "safe":
            return backoff_s
        case _:
            return None
