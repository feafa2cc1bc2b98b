"""An open connection that is being read, and looked after once for what it left out."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from bitrix_pull.connection.connector import Connection
from bitrix_pull.connection.continuity import Resumption
from bitrix_pull.connection.disconnects import Ended, Sign
from bitrix_pull.connection.intake import Intake
from bitrix_pull.errors import MalformedFrame
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.wire.close_codes import ClientClose
from bitrix_pull.wire.messages import Control, Incoming
from bitrix_pull.wire.urls import START_OF_HISTORY

AUDIT_AFTER_S = 4.0
"""How long after a connect the server is asked for what it may have left out."""

AUDIT_AGAIN_MAX_S = 300.0
"""Longest wait before the server is asked again, where it could not be asked."""

_AUDIT = "audit"

_TAKEN_AT_ONCE = 500
"""Messages of a replay after which other tasks get their turn."""


Fetch = Callable[[str], Awaitable[Sequence[Incoming] | None]]

IN_FLIGHT_S = 1.0
"""How long a message may be on its way: the server gathers them for 0.4 s."""


class Stream:
    """An open connection and the task that reads it."""

    def __init__(
        self,
        connection: Connection,
        config: PullConfig,
        intake: Intake,
        obey: Callable[[Control], None],
        resumption: Resumption | None,
        *,
        catch_up_s: float,
    ) -> None:
        """Begin to read.

        Args:
            connection: What to read.
            config: The configuration that it was opened with.
            intake: Takes what is read.
            obey: Told of control messages; raises ``Ended`` for those that end the stream.
            resumption: Judges the first frame of a reconnect.
            catch_up_s: How long to wait for the replay; 0 where none is to come.
        """
        self.connection = connection
        self.config = config
        self._intake = intake
        self._obey = obey
        self._resumption = resumption
        loop = asyncio.get_running_loop()
        self._opened_at = loop.time()
        self._caught_up = asyncio.Event()
        if not catch_up_s:
            self._caught_up.set()
        self._give_up_replay = loop.call_later(catch_up_s, self._caught_up.set)
        self._audit: asyncio.Task[None] | None = None
        self.reader = asyncio.create_task(self._read(), name="bitrix_pull reader")

    @property
    def age_s(self) -> float:
        """Seconds since it was opened."""
        return asyncio.get_running_loop().time() - self._opened_at

    @property
    def catching_up(self) -> bool:
        """True while the replay may still come."""
        return not self._caught_up.is_set()

    async def caught_up(self) -> None:
        """Wait until the replay was read or nothing was there to replay, or the stream ended."""
        waiting = asyncio.create_task(self._caught_up.wait())
        try:
            await asyncio.wait({waiting, self.reader}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()

    async def close(self, code: ClientClose) -> None:
        """Stop reading and close the connection."""
        self._give_up_replay.cancel()
        tasks = {self.reader} if self._audit is None else {self.reader, self._audit}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await self.connection.close(code)

    def audit(self, fetch: Fetch, *, repeat: bool) -> None:
        """Some seconds from now, deliver what the server forgot to send.

        The server reads the history first and registers the connection then: what is
        published in between is neither replayed nor sent (protocol §6). Until that has
        come through, the resume point stays where it was for this connection.

        Args:
            fetch: Asks the server anew for what came after a mid; None if it cannot be asked.
            repeat: True if each of its requests is a connection of its own, as in polling.
        """
        self._intake.cursor.hold(_AUDIT)
        self._audit = asyncio.create_task(self._heal(fetch, repeat=repeat), name="bitrix_pull audit")

    async def _heal(self, fetch: Fetch, *, repeat: bool) -> None:
        cursor = self._intake.cursor
        audited: str | None = None
        delay = AUDIT_AFTER_S
        while repeat or audited is None:
            await asyncio.sleep(delay)
            newest = cursor.newest
            if newest == audited:
                continue  # Nothing has come that could have overtaken anything.
            messages = await fetch(cursor.resume_point or START_OF_HISTORY)
            if messages is None:
                delay = min(2 * delay, AUDIT_AGAIN_MAX_S)
                continue
            # What is on its way by the open connection needs no healing.
            await asyncio.sleep(IN_FLIGHT_S)
            if self._resumption is not None:
                self._resumption.judge(messages)
            with contextlib.suppress(Ended):
                for part in _parts(messages):
                    self._take(part, from_history=True, healed=True)
                    await asyncio.sleep(0)
            cursor.release(_AUDIT)
            audited, delay = newest, AUDIT_AFTER_S
            if repeat:
                cursor.hold(_AUDIT)

    def _take(self, messages: Sequence[Incoming], **origin: Any) -> None:
        for control in self._intake.take(messages, **origin):
            self._obey(control)

    async def _read(self) -> Ended:
        try:
            await self._take_first_frame()
            receive, intake = self.connection.receive, self._intake
            while True:
                if intake.full:
                    await intake.room()
                for control in intake.take(await receive()):
                    self._obey(control)
        except Ended as ended:
            return ended
        except MalformedFrame as error:
            return Ended(Sign.GARBLED, str(error))

    async def _take_first_frame(self) -> None:
        """Take the frame in which the server sends the whole replay, at once (protocol §6)."""
        connection = self.connection
        await self._intake.room()
        messages = await connection.receive()
        replayed, newest = self.catching_up, self._intake.cursor.newest
        if self._resumption is not None:
            # The verdict is on all of it, and comes before the first event.
            messages = [*messages, *await rest_of_frame(connection)]
            self._resumption.judge(messages)
        while True:
            for part in _parts(messages):
                self._take(part, from_history=True, replayed=replayed, newest=newest)
                await asyncio.sleep(0)
            if not connection.amid_frame:
                break
            messages = await connection.receive()
        self._caught_up.set()


async def rest_of_frame(connection: Connection) -> list[Incoming]:
    """Return what is left of the frame of which a part was received.

    Raises:
        MalformedFrame: It cannot be read.
    """
    rest: list[Incoming] = []
    while connection.amid_frame:
        rest += await connection.receive()
    return rest


def _parts(messages: Sequence[Incoming]) -> Iterator[Sequence[Incoming]]:
    """Cut what came at once into what may be taken at once."""
    for start in range(0, len(messages), _TAKEN_AT_ONCE):
        yield messages[start : start + _TAKEN_AT_ONCE]
