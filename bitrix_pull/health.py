"""How a client is doing, in figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from bitrix_pull.events import State


@dataclass(slots=True, frozen=True)
class StoreHealth:
    """How the resume store is doing.

    Attributes:
        saved_at: When the resume point was last saved (UTC); None if not yet in this run. With
            a store in memory that happens when the client closes.
        error: Why the latest save failed; "" if it did not. It is tried again every second.
        comes_again: How many messages are handled again after a restart although they are
            settled: an event before them has not been for so long that there are more of them
            than are remembered.
    """

    saved_at: datetime | None = None
    error: str = ""
    comes_again: int = 0


@dataclass(slots=True, frozen=True)
class Health:
    """How a client is doing, as counted since it was last started.

    Attributes:
        state: The state of the connection.
        live: True if the connection is open and was heard from within the deadline.
        ready: For a readiness probe: True if what is sent now reaches a handler soon, that
            is, if it is live and the inbox has room. It becomes so again by itself.
        alive: For a liveness probe: True while it runs and helps itself through whatever
            happens. False before the start, after the end, and if it is FAILED, when a person
            must act and the client must be started again.
        connects: Connections that were opened.
        received: Events handed to dispatch.
        duplicates: Messages that the server sent again and that were dropped.
        malformed: Messages that could not be read.
        ignored: Events of modules that the options say to ignore; not among ``received``.
        dropped: Events that were dropped because handlers were too slow; see ``overflow``.
        waiting: Events that handlers have not finished with.
        waiting_bytes: Bytes of those events' bodies.
        unwanted: Of those received, how many no handler and no iterator wants, by module and
            command: ``{"im.message": 3}``. After 100 names all others count as "others".
        last_error: What the last failure was, in words; "" if there was none.
        store: When the resume point was saved, or why not.
    """

    state: State
    live: bool
    ready: bool
    alive: bool
    connects: int
    received: int
    duplicates: int
    malformed: int
    ignored: int
    dropped: int
    waiting: int
    waiting_bytes: int
    unwanted: Mapping[str, int]
    last_error: str
    store: StoreHealth
