"""The push server's clock, as its HTTP answers tell it."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime


def date_of(headers: Mapping[str, str]) -> float | None:
    """Return the ``Date`` of an answer as unix time, or None if it has none."""
    try:
        return parsedate_to_datetime(headers["Date"]).timestamp()
    except (LookupError, ValueError):
        return None
