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
        saves: How often it has taken what it was given to save, in this run.
        failures: How often it has not.
        saving_s: Seconds that all of that took.
    """

    saved_at: datetime | None = None
    error: str = ""
    comes_again: int = 0
    saves: int = 0
    failures: int = 0
    saving_s: float = 0.0


@dataclass(slots=True, frozen=True)
class OldestEvent:
    """The event that has waited longest to be handled.

    Attributes:
        event: What it is and which one: ``im.message (mid …)``. Never its content.
        handler: Who has not finished with it: the name of a handler, of several, or an iterator's.
        age_s: Seconds since it was received.
    """

    event: str
    handler: str
    age_s: float


@dataclass(slots=True, frozen=True)
class Health:
    """How a client is doing, as counted since it was last started.

    Attributes:
        portal: What the portal is called: the client's ``name``, or else its host.
        state: The state of the connection.
        since: Since when it is in that state (UTC).
        transport: How events come, or came last: "websocket" or "long_polling"; "" before the
            first connection.
        server_version: The push server's, as the portal told it; 0 before it did.
        live: True if the connection is open and was heard from within the deadline.
        ready: For a readiness probe: True if what is sent now reaches a handler soon, that
            is, if it is live and the inbox has room. It becomes so again by itself.
        alive: For a liveness probe: True while it runs and helps itself through whatever
            happens. False before the start, after the end, and if it is FAILED, when a person
            must act and the client must be started again.
        silent_for_s: Seconds since the push server was heard from, keep-alives included; None
            before the first connection.
        next_attempt_in_s: In BACKOFF: seconds until the next attempt; else None.
        channels_end_at: When the present channels end, by the portal's clock; None where unknown.
        last_error: What is wrong at present, in words; "" if nothing is. It is gone once the
            client is live by good channels again.
        last_error_at: When something last went wrong (UTC), however long ago; None if nothing
            ever did.
        connects: Connections that were opened.
        received: Events handed to dispatch.
        last_event_at: When the last of them was received (UTC); None if none was.
        healed: Those of them that the push server had left out, and that were fetched afterwards.
        gaps: How often the push server's history was gone, so that events may be lost.
        duplicates: Messages that the server sent again and that were dropped.
        malformed: Messages that could not be read. What is of a kind that nobody wants may not be
            looked at, and is counted under ``unrouted`` then.
        ignored: Events of modules that the options say to ignore; not among ``received``.
        dropped: Events that were dropped because handlers were too slow; see ``overflow``.
        waiting: Events that handlers have not finished with.
        waiting_bytes: Bytes of those events' bodies.
        lag_s: Seconds for which the oldest of them has waited; 0 if none does. The portal's own
            events count too.
        oldest: That event, and for whom it waits; None if none does.
        handler_failures: How often a handler has failed for good on an event.
        unrouted: Of those received, how many no handler and no iterator wants, by module and
            command: ``{"im.message": 3}``. After 100 names all others count as "others".
        store: When the resume point was saved, or why not.
    """

    portal: str
    state: State
    since: datetime
    transport: str
    server_version: int
    live: bool
    ready: bool
    alive: bool
    silent_for_s: float | None
    next_attempt_in_s: float | None
    channels_end_at: datetime | None
    last_error: str
    last_error_at: datetime | None
    connects: int
    received: int
    last_event_at: datetime | None
    healed: int
    gaps: int
    duplicates: int
    malformed: int
    ignored: int
    dropped: int
    waiting: int
    waiting_bytes: int
    lag_s: float
    oldest: OldestEvent | None
    handler_failures: int
    unrouted: Mapping[str, int]
    store: StoreHealth
