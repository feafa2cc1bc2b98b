"""Where a service hears what became of its requests to publish."""

import asyncio
import contextlib
from collections.abc import Generator
from typing import Any, Final

from bitrix_pull.errors import EngineUnavailable, OutcomeUnknown, PullError
from bitrix_pull.hub.valkey.engine import Engine
from bitrix_pull.hub.valkey.requests import PublishAnswer
from bitrix_pull.redaction import get_logger

_log: Final = get_logger("hub")

_WAIT_S: Final = 5.0
_PAUSE_S: Final = 0.5
_READ_AT_ONCE: Final = 100


class Answers:
    """The answers to one service's requests of a shard: all in one stream, read over one connection.

    Args:
        engine: It is open for as long as this is.
        key: The stream, which nobody else reads.
    """

    def __init__(self, engine: Engine, key: str) -> None:
        self._engine = engine
        self._key = key
        self._waiting: dict[str, asyncio.Future[PublishAnswer]] = {}
        self._reading: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def expected(self, request_id: str) -> "Generator[asyncio.Future[PublishAnswer]]":
        """Wait for the answer to a request: what this yields gets it, or the reason why none can come."""
        answer: asyncio.Future[PublishAnswer] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = answer
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(), name="bitrix_pull publish answers")
        try:
            yield answer
        finally:
            del self._waiting[request_id]
            if answer.done() and not answer.cancelled():
                answer.exception()  # Whoever was to hear it may have left.

    async def close(self) -> None:
        """Read no more; who waits still is told so."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
        self._fail(EngineUnavailable("this publisher was closed before an answer came"))

    async def _read(self) -> None:
        client: Any = self._engine.blocking_client(_WAIT_S)
        try:
            while True:
                try:
                    await self._read_some(client)
                except EngineUnavailable:
                    await asyncio.sleep(_PAUSE_S)
        except PullError as error:
            self._fail(error)
        except Exception as error:
            # A fault of our own: nobody waits for what nobody reads.
            _log.critical("the answers to requests to publish cannot be read", exc_info=True)
            told = OutcomeUnknown.__name__, f"the answers cannot be read: {type(error).__name__}"
            for request_id, answer in self._waiting.items():
                if not answer.done():
                    answer.set_result(PublishAnswer(request_id, None, "unknown", *told))
        finally:
            await client.aclose()

    def _fail(self, error: PullError) -> None:
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(error)

    async def _read_some(self, client: Any) -> None:
        wait_ms = round(_WAIT_S * 1000)
        # From the beginning: an engine that has gone back may number its entries anew.
        command = ("XREAD", "COUNT", _READ_AT_ONCE, "BLOCK", wait_ms, "STREAMS", self._key, "0")
        for _, entries in await self._engine.call(*command, by=client) or ():
            for _, fields in entries:
                # What is no answer came from no hub, and is nobody's.
                with contextlib.suppress(ValueError):
                    self._hear(PublishAnswer.read(fields.get(b"answer", b"")))
            await self._engine.call("XDEL", self._key, *(entry for entry, _ in entries))

    def _hear(self, told: PublishAnswer) -> None:
        answer = self._waiting.get(told.id)
        if answer is not None and not answer.done():
            answer.set_result(told)
