"""What a failure demands before the next attempt: how long to wait, and whether to ask the portal anew."""

import random
from dataclasses import dataclass

from bitrix_pull.connection.backoff import Backoff
from bitrix_pull.connection.disconnects import TABLE, Action, Ended, Sign, Wait
from bitrix_pull.errors import PullError, Unreachable

EVICTED_WAIT_S = (60.0, 75.0)
"""Least and longest wait after the server closed with 4029 (protocol §8)."""

SPREAD_WAIT_S = (10.0, 120.0)
"""Least and longest wait after ``config_expire`` and ``server_restart`` (protocol §5)."""


@dataclass(slots=True, frozen=True)
class Step:
    """What to do after a failure.

    Attributes:
        delay_s: How long to wait.
        new_config: Ask the portal for another configuration then.
    """

    delay_s: float
    new_config: bool


class Recovery:
    """Remembers the failures in a row, and reads in the table what the last one demands."""

    def __init__(self) -> None:
        """Begin without a failure."""
        self._backoff = Backoff()
        self._last_sign: Sign | None = None

    def reset(self) -> None:
        """Take note that all is well: the next failure is the first one."""
        self._backoff.reset()
        self._last_sign = None

    def after(self, failure: PullError) -> Step:
        """Return what to do after a failure that ended the stream or an attempt.

        Raises:
            PullError: The failure itself, if only a person can help.
        """
        action = self._action(failure)
        sign = failure.sign if isinstance(failure, Ended) else None
        again = sign is not None and sign is self._last_sign
        self._last_sign = sign
        return self._step(action, action.wait_again if again else action.wait)

    def aside(self, failure: PullError) -> Step:
        """Return what to do where a stream could not be replaced, and goes on as it is.

        Raises:
            PullError: The failure itself, if only a person can help.
        """
        action = self._action(failure)
        return self._step(action, action.wait_again)

    def _action(self, failure: PullError) -> Action:
        if not failure.retryable:
            raise failure
        if isinstance(failure, Ended):
            return TABLE[failure.sign]
        wait = Wait.LADDER_UNANSWERED if isinstance(failure, Unreachable) else Wait.LADDER
        return Action(wait, wait)

    def _step(self, action: Action, wait: Wait) -> Step:
        return Step(self._delay_s(wait), action.new_config)

    def _delay_s(self, wait: Wait) -> float:
        match wait:
            case Wait.NONE:
                return 0.0
            case Wait.LADDER:
                return self._backoff.next_delay_s(answered=True)
            case Wait.LADDER_UNANSWERED:
                return self._backoff.next_delay_s(answered=False)
            case Wait.LONG:
                return random.uniform(*EVICTED_WAIT_S)
            case Wait.SPREAD:
                return random.uniform(*SPREAD_WAIT_S)
