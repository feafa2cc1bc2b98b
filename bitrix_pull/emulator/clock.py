"""Unix time that can be put forward."""

import time


def machine_time() -> float:
    """Return this machine's unix time, also where a test has put another function there meanwhile."""
    return time.time()


class AdjustableClock:
    """The machine's time, and what has been added to it.

    Attributes:
        ahead_s: By how much it is ahead of the machine's.
    """

    def __init__(self) -> None:
        self.ahead_s: float = 0.0

    def __call__(self) -> float:
        """Return unix time."""
        return time.time() + self.ahead_s
