"""What tells a message from another one with the same mid: 8 bytes, kept with each known mid.

A push server that has lost its counter hands out mids a second time, for other messages
(protocol §6). A stamp is one number, made from what the server repeats in every replay:

- from 1 up: the second in which the push server took the message, and as its fraction that of
  the portal's time in it, or a digest of its content where it holds none;
- from -1 down: the portal's time alone, where the format does not tell the server's;
- between 0 and 1: a digest of its content, where there is neither;
- 0: nothing is known of it.
"""

import math
import zlib
from collections.abc import Sequence
from typing import Any, cast

import orjson

from bitrix_pull.events import PullEvent
from bitrix_pull.wire.messages import Control, Malformed, Unread

UNKNOWN = 0.0
"""The stamp of a message of which nothing is known but its mid."""

_DIGESTED_MAX_BYTES = 4096
"""The length of a body from which on it tells enough by itself."""

_NUMBERS = {float, int}

_GOLDEN = 0.6180339887498949
"""Lengths that differ by little are far from each other by it."""


def stamps_of(events: Sequence[PullEvent[Any] | Unread]) -> list[float]:
    """Return the stamp of each event."""
    if events and events[0].created_unix is None:
        # It is a matter of the format: none of them tells the server's time.
        return _stamps_by_portal(events) or [stamp_of(event) for event in events]
    try:
        # Nearly everything comes from the portal, by a server of version 4.
        return [event.created_unix + event.extra["server_time_unix"] % 1 for event in cast("Any", events)]
    except (AttributeError, KeyError, TypeError):
        pass
    try:
        return [
            event.created_unix
            + (event.sent_unix if type(event) is Unread else event.extra["server_time_unix"]) % 1
            for event in cast("Any", events)
        ]
    except (KeyError, TypeError):
        return [stamp_of(event) for event in events]


def _stamps_by_portal(events: Sequence[PullEvent[Any] | Unread]) -> list[float] | None:
    """Return the stamp of each event if it is the portal's time of all of them, as ``stamp_of`` would."""
    try:
        sent = [
            event.extra["server_time_unix"] for event in cast("Any", events) if event.created_unix is None
        ]
    except (AttributeError, KeyError, TypeError):
        return None
    if not _NUMBERS.issuperset(map(type, sent)):
        return None
    stamps = [-each for each in sent if 1 <= each < math.inf]
    return stamps if len(stamps) == len(events) else None


def stamp_of(message: PullEvent[Any] | Unread | Control | Malformed) -> float:
    """Return the stamp of a message."""
    if isinstance(message, Malformed):
        return UNKNOWN
    if isinstance(message, Unread):
        created = message.created_unix
        return -message.sent_unix if created is None else created + message.sent_unix % 1
    if message.created_unix is None:
        sent = sent_unix(message)
        return _digest(message) if sent is None else -sent
    try:
        return float(message.created_unix + message.extra["server_time_unix"] % 1)
    except (KeyError, TypeError):
        return message.created_unix + _digest(message)


def sent_unix(message: PullEvent[Any] | Unread | Control) -> float | None:
    """Return the portal's time in a message (unix), or None if it holds none."""
    if isinstance(message, Unread):
        return message.sent_unix
    sent: object = message.extra.get("server_time_unix")
    # To build the union of both for isinstance takes longer than all the rest.
    return sent if (type(sent) is float or type(sent) is int) and 1 <= sent < math.inf else None


def are_of_two(stamp: float, other: float) -> bool:
    """Tell whether two stamps for one mid are surely those of two messages.

    Stamps of different kinds do not compare: one message may have come in two formats.
    """
    # Neither is true of what is no number.
    differ = stamp < other or stamp > other
    return differ and _kind(stamp) == _kind(other) and UNKNOWN not in (stamp, other)


def created_unix(stamp: float) -> float | None:
    """Return when the push server took the message (unix), or None where that is not known."""
    return stamp if stamp >= 1 else None


def _kind(stamp: float) -> int:
    return (stamp >= 1) - (stamp <= -1)


def _digest(message: PullEvent[Any] | Control) -> float:
    """Return a number between 0 and 1 that follows from the content."""
    size = message.size if isinstance(message, PullEvent) else 0
    if size < _DIGESTED_MAX_BYTES:
        try:
            content = orjson.dumps([message.command, message.params])
        except TypeError:
            pass  # Integers and text that only a lenient parser reads.
        else:
            return (zlib.crc32(content) + 1) / (2**32 + 1)
    return (size * _GOLDEN) % 1
