"""What a failure demands before the next attempt: how long to wait, and whether to ask the portal anew."""

import random
from dataclasses import dataclass

from bitrix_pull.connection.backoff import SOUND_AFTER_S, Backoff
from bitrix_pull.connection.disconnects import TABLE, Action, Ended, Sign, Wait
from bitrix_pull.errors import (
    EngineUnavailable,
    InvalidConfig,
    NotAPortal,
    NotConfigured,
    PaymentRequired,
    PortalDeleted,
    PortalError,
    PullError,
    ResumeStoreFailed,
    TokenStoreFailed,
    Unreachable,
)

EVICTED_WAIT_S = (60.0, 75.0)
"""Least and longest wait after the server closed with 4029 (protocol §8)."""

SPREAD_WAIT_S = (10.0, 120.0)
"""Least and longest wait after ``config_expire`` and ``server_restart`` (protocol §5)."""

MAINTENANCE_WAIT_S = (600.0, 900.0)
"""Least and longest wait where the portal is out of service (protocol §2)."""


def passing_wait(failure: PullError) -> Wait | None:
    """Return how long to wait where a portal failed that has served this client before.

    What is final at the start, as the address or the plan is wrong, passes later: a box
    whose public part is closed for maintenance says that it was deleted.

    Returns:
        None if only a person can help.
    """
    match failure:
        case Unreachable():
            return Wait.LADDER_UNANSWERED
        case EngineUnavailable() | ResumeStoreFailed() | TokenStoreFailed():
            return Wait.LADDER_STORES
        case PortalDeleted() | PaymentRequired() | NotConfigured():
            return Wait.MAINTENANCE
        case PortalError(code=code) if code.lower() == "server_error":
            return Wait.MAINTENANCE
        case NotAPortal() | InvalidConfig():
            return Wait.LADDER
        case _:
            return Wait.LADDER if failure.retryable else None


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
    """Remembers the failures in a row, and reads in the table what the last one demands.

    Attributes:
        was_live: True once the client was live: what was good enough then may be so again.
    """

    def __init__(self) -> None:
        """Begin without a failure."""
        self.was_live = False
        self._backoff = Backoff()
        self._last_sign: Sign | None = None

    def ended(self, sign: Sign, *, age_s: float, opened: bool, brought: bool) -> None:
        """Take note of the end of a stream: how its attempt counts.

        Args:
            sign: What ended it.
            age_s: How long it lived.
            opened: True if the server has let it begin.
            brought: True if anything new came by it.
        """
        if age_s >= SOUND_AFTER_S:
            self._backoff.reset()
            self._last_sign = None
        elif opened and not TABLE[sign].in_vain:
            self._backoff.opened(brought=brought)

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
        if isinstance(failure, Ended):
            return TABLE[failure.sign]
        wait = passing_wait(failure) if self.was_live or failure.retryable else None
        if wait is None:
            raise failure
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
            case Wait.LADDER_STORES:
                return self._backoff.store_delay_s()
            case Wait.LONG:
                return random.uniform(*EVICTED_WAIT_S)
            case Wait.SPREAD:
                return random.uniform(*SPREAD_WAIT_S)
            case Wait.MAINTENANCE:
                return random.uniform(*MAINTENANCE_WAIT_S)
