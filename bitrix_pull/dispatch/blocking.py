"""Notices plain handlers that hold the event loop up."""

import math
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from bitrix_pull.redaction import get_logger
from bitrix_pull.telemetry import log_fields

BLOCKED_S = 1.0
"""How long a plain handler may take before it is told: heartbeats and all other handlers wait for it."""

_TOLD_EVERY_S = 60.0

logger: Final = get_logger("dispatch")


class BlockingWatch:
    """Warns of handlers that block the event loop, once a minute at most."""

    def __init__(self) -> None:
        """Begin with nothing told."""
        self._told_at = -math.inf

    def took(self, handler: str, seconds: float) -> None:
        """Take note that the event loop waited for a handler."""
        if seconds > BLOCKED_S and monotonic() - self._told_at >= _TOLD_EVERY_S:
            self._told_at = monotonic()
            logger.warning(
                "handler %s has blocked the event loop for %.1f s: make it async, or let it call"
                " asyncio.to_thread (told once a minute)",
                handler,
                seconds,
                extra=log_fields(handler=handler, duration_s=seconds),
            )

    def over(self, callback: Callable[..., Any], handler: str) -> Callable[..., Any]:
        """Return a plain function with an eye on how long it takes."""

        def watched(*arguments: Any, **named: Any) -> Any:
            began_at = monotonic()
            try:
                return callback(*arguments, **named)
            finally:
                self.took(handler, monotonic() - began_at)

        return watched
