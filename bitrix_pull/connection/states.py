"""The states of a connection, the legal moves between them, and who hears of a move."""

import time
from collections.abc import Callable, Collection, Mapping

from bitrix_pull.events import State, StateChanged
from bitrix_pull.flag import Flag

_ENDS = {State.CLOSING, State.FAILED}
_BEGINNINGS = {State.IDLE, State.CLOSED}

TRANSITIONS: Mapping[State, Collection[State]] = {
    State.IDLE: {State.CONFIGURING, State.CLOSING},
    State.CONFIGURING: {State.CONNECTING, State.LIVE, State.PAUSED, State.BACKOFF, *_ENDS},
    State.CONNECTING: {State.CATCHING_UP, State.LIVE, State.PAUSED, State.CONFIGURING, State.BACKOFF, *_ENDS},
    State.CATCHING_UP: {State.LIVE, State.PAUSED, State.CONFIGURING, State.CONNECTING, State.BACKOFF, *_ENDS},
    State.LIVE: {State.PAUSED, State.RENEWING, State.CONFIGURING, State.CONNECTING, State.BACKOFF, *_ENDS},
    State.PAUSED: {State.LIVE, State.RENEWING, State.CONFIGURING, State.CONNECTING, State.BACKOFF, *_ENDS},
    State.RENEWING: {State.LIVE, State.PAUSED, State.CONFIGURING, State.CONNECTING, State.BACKOFF, *_ENDS},
    State.BACKOFF: {State.CONFIGURING, State.CONNECTING, State.LIVE, State.PAUSED, *_ENDS},
    State.FAILED: {State.CLOSING},
    State.CLOSING: {State.CLOSED},
    State.CLOSED: {State.CONFIGURING, State.CLOSING},
}


class Lifecycle:
    """Holds the state; ``move`` is its only setter."""

    def __init__(self, announce: Callable[[StateChanged], None]) -> None:
        """Create a lifecycle in IDLE; ``announce`` hears of every change."""
        self._state = State.IDLE
        self._announce = announce
        self._moved = Flag()
        self.last_change: StateChanged | None = None
        self.since_unix: float = time.time()
        """Since when it is in its state."""
        self.trouble: Exception | None = None
        """What went wrong last; None once it has become live again."""
        self.trouble_unix: float | None = None
        """When something last went wrong, however long ago."""

    @property
    def state(self) -> State:
        """The present state."""
        return self._state

    def move(self, state: State, *, error: Exception | None = None, retry_in_s: float | None = None) -> None:
        """Enter a state. Staying in the same one changes nothing and is not announced.

        Raises:
            RuntimeError: The table does not allow the move; the state is unchanged.
        """
        if state is self._state:
            return
        if state not in TRANSITIONS[self._state]:
            raise RuntimeError(f"illegal move from {self._state} to {state}")
        change = StateChanged(self._state, state, error, retry_in_s)
        if state is State.LIVE or self._state in _BEGINNINGS:
            self.trouble = None
        if error is not None:
            self.blame(error)
        self._state = state
        self.since_unix = time.time()
        self.last_change = change
        # Each waiter holds the event it waits for, so a fresh one loses nobody.
        self._moved.set()
        self._moved = Flag()
        self._announce(change)

    def blame(self, error: Exception) -> None:
        """Take note of what went wrong, where that is no move of its own."""
        self.trouble = error
        self.trouble_unix = time.time()

    def close(self) -> None:
        """Leave whatever state it is in for CLOSED; one that was never left stays IDLE."""
        if self._state not in (State.IDLE, State.CLOSED):
            self.move(State.CLOSING)
            self.move(State.CLOSED)

    @property
    def failure(self) -> Exception | None:
        """What made it FAILED; None if it is not."""
        change = self.last_change
        return change.error if change is not None and self._state is State.FAILED else None

    async def changed(self) -> None:
        """Wait for the next change."""
        await self._moved.wait()
