"""Reads a hub's log beside its consumer groups."""

from collections.abc import AsyncGenerator
from typing import Any, Final

from bitrix_pull.hub.valkey.engine import Engine, text
from bitrix_pull.hub.valkey.requests import prefix_of

_AT_ONCE: Final = 200
_WAIT_S: Final = 2.0


class LogReader:
    """Follows one shard of a log: no group's position is moved, and nothing is changed.

    Args:
        engine: The engine, which is open while it reads.
        name: The log's.
        shard: Which shard.
    """

    def __init__(self, engine: Engine, name: str, shard: int) -> None:
        self._engine = engine
        self._stream = f"{prefix_of(name, shard)}:events"
        self._last = ""

    async def newest(self, count: int) -> list[bytes]:
        """Return the last entries, the oldest of them first, and go on after them.

        Raises:
            EngineUnavailable: The engine does not answer.
            InvalidArgument: It refuses us, or holds something else under the key.
        """
        found = await self._engine.call("XREVRANGE", self._stream, "+", "-", "COUNT", count)
        return self._taken(found[::-1])

    async def following(self) -> AsyncGenerator[list[bytes]]:
        """Yield entries as they come, as `bitrix_pull.hub.valkey.envelope` has them; none now and then.

        It may be begun again after an error, and goes on where it was.

        Raises:
            EngineUnavailable: The engine does not answer.
            InvalidArgument: It refuses us, or holds something else under the key.
        """
        client: Any = self._engine.blocking_client(_WAIT_S)
        bounds = ("COUNT", _AT_ONCE, "BLOCK", round(_WAIT_S * 1000))
        try:
            while True:
                command = ("XREAD", *bounds, "STREAMS", self._stream, self._last or "0")
                answer = await self._engine.call(*command, by=client)
                yield [event for _, found in answer or () for event in self._taken(found)]
        finally:
            await client.aclose()

    def _taken(self, found: list[Any]) -> list[bytes]:
        if found:
            self._last = text(found[-1][0])
        events: list[Any] = [fields and fields.get(b"event") for _, fields in found]
        # Something else may have been written there.
        return [event for event in events if isinstance(event, bytes)]
