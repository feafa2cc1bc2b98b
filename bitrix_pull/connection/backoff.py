"""The ladder of delays between failed attempts (protocol §8)."""

import random

LADDER_S = (0.1, 15.0, 45.0, 45.0, 45.0, 600.0, 600.0, 600.0, 600.0, 600.0)
"""Seconds to wait after the first, second, … failed attempt in a row."""

LAST_RUNG_S = 3600.0
"""Seconds to wait after every failure beyond the ladder."""

UNANSWERED_MAX_S = 30.0
"""Longest wait where nothing answered at all: nobody can be annoyed, so nobody blocks us."""

JITTER = 0.2
"""Largest part of a delay that is added at random, so that many clients spread out."""

RESET_AFTER_S = 30.0
"""A connection must have been live this long before the ladder starts anew."""


class Backoff:
    """Counts failures in a row and says how long to wait after each.

    The ladder is there for the server's sake, so only what it answered climbs far: a night
    without network must not make the first 502 in the morning cost an hour.
    """

    def __init__(self, random_source: random.Random | None = None) -> None:
        """Start at the foot of the ladder."""
        self._random = random_source or random.Random()
        self._answered = 0
        self._unanswered = 0

    def next_delay_s(self, *, answered: bool) -> float:
        """Count one failure and return the seconds to wait.

        Args:
            answered: True if the server answered with a status or close code, False if
                nothing answered.
        """
        if answered:
            delay = _rung_s(self._answered)
            self._answered += 1
        else:
            # The limit leaves room for the jitter, or all clients would come back at once.
            delay = min(_rung_s(self._unanswered), UNANSWERED_MAX_S / (1 + JITTER))
            self._unanswered += 1
        return delay * (1 + self._random.uniform(0, JITTER))

    def reset(self) -> None:
        """Start anew at the foot of the ladder."""
        self._answered = self._unanswered = 0


def _rung_s(failures: int) -> float:
    return LADDER_S[failures] if failures < len(LADDER_S) else LAST_RUNG_S
