"""Whose reservations are these? Asked of all clients of the application, over its shared channel.

A process that dies leaves records reserved, and nothing at the portal tells them from those of
a living one: a process id is made by the portal, nobody else knows it, and it has no age. But
all clients of an application hear its shared channel. So whoever finds reservations that are
not its own asks there; whoever holds some of them answers; what nobody answers for in time is
taken over. Where two ask for the same, the first question that is heard counts, in the one
order in which all hear them.

Who asks must hear its own question first: silence on a stream that carries nothing proves
nothing. A holder that cannot hear or speak for that long loses its records to another, and
both handle them; that is the harm of a mistake here, never a loss.

Process ids do not travel: a digest names them.
"""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from bitrix_pull.events import PullEvent
from bitrix_pull.flag import Flag
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.redaction import get_logger
from bitrix_pull.wire.messages import is_object

logger: Final = get_logger("portal_events")

MODULE = "bitrix_pull"
COMMAND = "reservations"

HEAR_S = 10.0
"""How long one's own question may take to come back."""

PATIENCE_S = 5.0
"""How long after it an answer may take."""

NAMES_MAX = 200
"""Reservations in one question."""


class RollCall:
    """Asks and answers for one client."""

    def __init__(self, rest: RestClient, held: Callable[[], Collection[str]]) -> None:
        """Create one that asks nobody yet.

        Args:
            rest: Calls the portal.
            held: Gives the process ids that this client is at work on.
        """
        self._rest = rest
        self._held = held
        self._nonce = secrets.token_hex(8)
        self._asked: dict[str, str] = {}
        self._heard = Flag()

    @asynccontextmanager
    async def unclaimed(self, process_ids: Collection[str]) -> AsyncGenerator[list[str] | None]:
        """Give the reservations that nobody answers for; None if nobody could be asked.

        Until the context is left, they count as held here. Ask for ``NAMES_MAX`` at a time.

        Raises:
            PullError: The question could not be sent.
        """
        self._asked = {_digest(process_id): process_id for process_id in process_ids}
        self._heard.clear()
        try:
            await self._say({"ask": list(self._asked), "by": self._nonce})
            try:
                async with asyncio.timeout(HEAR_S):
                    await self._heard.wait()
            except TimeoutError:
                logger.info("the question whose reservations these are did not come back")
                yield None
                return
            await asyncio.sleep(PATIENCE_S)
            yield list(self._asked.values())
        finally:
            self._asked = {}
            self._heard.clear()

    async def leave(self) -> None:
        """Tell the others that there are reservations here that nobody is at work on.

        Raises:
            PullError: It could not be sent.
        """
        await self._say({"left": True, "by": self._nonce})

    async def hear(self, event: PullEvent[Any]) -> bool:
        """Take in what a client of the application says, this one included.

        Returns:
            True if another one has left reservations.

        Raises:
            PullError: An answer could not be sent.
        """
        params = event.params
        if not is_object(params):
            return False
        asked = _names(params.get("ask"))
        if params.get("by") == self._nonce:
            if asked:
                self._heard.set()
        elif asked:
            held = asked & {_digest(process_id) for process_id in self._held()}
            if self._heard.is_set():
                held |= asked & set(self._asked)  # We were first.
            elif not event.replayed:
                self._withdraw(asked)
            if held:
                await self._say({"held": sorted(held), "by": self._nonce})
        else:
            self._withdraw(_names(params.get("held")))
            return params.get("left") is True
        return False

    def _withdraw(self, names: Collection[str]) -> None:
        for name in names:
            self._asked.pop(name, None)

    async def _say(self, params: Mapping[str, Any]) -> None:
        await self._rest.ask(
            "pull.application.event.add",
            {"COMMAND": COMMAND, "MODULE_ID": MODULE, "PARAMS": params},
            first=True,
        )


def _names(value: object) -> set[str]:
    if not isinstance(value, list):
        return set()
    return {name for name in cast("list[object]", value) if isinstance(name, str)}


def _digest(process_id: str) -> str:
    return hashlib.sha256(f"bitrix_pull reservation {process_id}".encode()).hexdigest()[:24]
