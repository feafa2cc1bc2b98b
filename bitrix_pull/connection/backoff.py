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
    """Counts failures in a row and says how long to wait after each. Time is passed in."""

    def __init__(self, random_source: random.Random | None = None) -> None:
        """Start at the foot of the ladder."""
        self._random = random_source or random.Random()
        self._failures = 0

    @property
    def failures(self) -> int:
        """Failures since the last reset."""
        return self._failures

    def next_delay_s(self, *, answered: bool) -> float:
        """Count one failure and return the seconds to wait.

        Args:
            answered: True if the server answered with a status or close code, False if
                nothing answered.
        """
        delay = LADDER_S[self._failures] if self._failures < len(LADDER_S) else LAST_RUNG_S
        self._failures += 1
        delay *= 1 + self._random.uniform(0, JITTER)
        return delay if answered else min(delay, UNANSWERED_MAX_S)

    def reset(self) -> None:
        """Start anew at the foot of the ladder."""
        self._failures = 0
