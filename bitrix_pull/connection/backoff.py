"""The delays between attempts (protocol §8): a ladder for what was answered, for what was not, for stores."""

import random

LADDER_S = (0.5, 5.0, 5.0, 25.0, 25.0, 45.0, 45.0, 45.0, 45.0, 45.0, 60.0)
"""Seconds to wait after the first, second, … failed attempt in a row that the server answered;
after further ones as after the last."""

UNANSWERED_S = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 25.0)
"""The same where nothing answered or an open stream was cut: nobody can be annoyed by that."""

STORES_S = (0.5, 1.0, 2.0, 4.0)
"""The same where what this side keeps could not be read or written: the servers have no part in it, and
whoever is deaf for want of a store is to hear soon after that is back."""

JITTER = 0.2
"""Largest part of a delay that is added at random, so that many clients spread out."""

SOUND_AFTER_S = 30.0
"""A stream that lived this long was a sound one, whatever ended it."""

CHANCE = random.Random()
"""One for all: its state takes more than all else of a ladder."""


class Backoff:
    """Counts failures in a row and says how long to wait after each.

    Each ladder counts for itself, so a night without network does not make the first 502 in
    the morning cost a minute.
    """

    def __init__(self, random_source: random.Random | None = None) -> None:
        """Start at the foot of all ladders."""
        self._random = random_source or CHANCE
        self._answered = self._unanswered = self._stores = 0

    def next_delay_s(self, *, answered: bool) -> float:
        """Count one failure and return the seconds to wait.

        Args:
            answered: True if the server answered with a status or close code, False if
                nothing answered, or an open stream was cut.
        """
        if answered:
            delay = _rung_s(LADDER_S, self._answered)
            self._answered += 1
        else:
            delay = _rung_s(UNANSWERED_S, self._unanswered)
            self._unanswered += 1
        return self._spread(delay)

    def store_delay_s(self) -> float:
        """Count one failure of a store and return the seconds to wait."""
        delay = _rung_s(STORES_S, self._stores)
        self._stores += 1
        return self._spread(delay)

    def _spread(self, delay_s: float) -> float:
        return delay_s * (1 + self._random.uniform(0, JITTER))

    def opened(self, *, brought: bool) -> None:
        """Take note that an attempt succeeded: what the server answers next is its first failure.

        Args:
            brought: True if anything new came by the stream: then it was worth it, and a cut
                of it is the first one too.
        """
        self._answered = self._stores = 0
        if brought:
            self._unanswered = 0

    def reset(self) -> None:
        """Start anew at the foot of all ladders."""
        self._answered = self._unanswered = self._stores = 0


def _rung_s(ladder: tuple[float, ...], failures: int) -> float:
    return ladder[min(failures, len(ladder) - 1)]
