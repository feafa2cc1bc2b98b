"""How many examples a law is tried on."""

import os

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"


def examples(count: int) -> int:
    """Return so many; forty times as many with ``HYPOTHESIS_PROFILE=thorough``."""
    return 40 * count if THOROUGH else count
