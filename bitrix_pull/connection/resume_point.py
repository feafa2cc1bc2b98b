"""Up to where a client has come, as it is written down between two runs.

Settled mids are written as ``{"what they have in common": ["the rest of each", …]}``: most of
their 26 digits are the same for as long as a push server keeps its data (protocol §6). Their
stamps are written in as few digits as tell them from the one before, and to the last bit.
"""

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import accumulate, repeat
from typing import Any, TypeGuard, cast

from bitrix_pull.connection.known_mids import is_regular
from bitrix_pull.connection.stamps import UNKNOWN
from bitrix_pull.wire.messages import is_object

CLOCK_SLACK_S = 2.0
"""The server's creation times are whole seconds, and its clock may be a little off."""

FOREIGN_CLOCK_SLACK_S = 30.0
"""By how much the push server's clock may be off the portal's, where only that one is known."""

MID_LENGTH_MAX = 64
"""Characters of a mid from which on it is none; a real one has 26."""


@dataclass(slots=True, frozen=True)
class Beginning:
    """A moment by two clocks: what is older than when a client first connected is not for it.

    The push server and the portal may differ by hours, so each is compared with its own
    clock; None where that clock is not known.
    """

    server_unix: float | None
    portal_unix: float | None

    def is_after(self, created_unix: float | None, sent_unix: float | None) -> bool:
        """Tell whether a message is surely older.

        Args:
            created_unix: When the push server took it, by its clock, in whole seconds.
            sent_unix: When the portal sent it, by the portal's clock.
        """
        sent_s = _apart_s(sent_unix, self.portal_unix)
        created_s = _apart_s(created_unix, self.server_unix)
        if created_s is not None:
            if abs(created_s) > CLOCK_SLACK_S:
                # One clock may have been set meanwhile: then the other one knows better.
                return created_s < 0 and (sent_s is None or sent_s < CLOCK_SLACK_S)
            # Within the same seconds only the portal's time is exact enough; but it is written
            # down before the message is sent, sometimes long before.
            return sent_s is not None and -2 * CLOCK_SLACK_S < sent_s < 0
        if sent_s is not None:
            return sent_s < 0
        foreign_s = _apart_s(created_unix, self.portal_unix)
        return foreign_s is not None and foreign_s < -FOREIGN_CLOCK_SLACK_S


def _apart_s(unix: float | None, other: float | None) -> float | None:
    return None if unix is None or other is None else unix - other


@dataclass(slots=True, frozen=True)
class Kept:
    """A message that the push server has to keep: whether its history is whole is told by it.

    Attributes:
        mid: The message.
        stamp: What tells it from another one with the same mid; see ``ResumePoint.stamps``.
        until_unix: Until when it is kept, by the push server's clock.
        channels: A digest of each of the channels by which it may have come, separated by
            spaces, as others have another history.
    """

    mid: str
    stamp: float
    until_unix: float
    channels: str = ""


@dataclass(slots=True, frozen=True)
class ResumePoint:
    """Up to where a client has come, as it is written down between two runs.

    Attributes:
        mid: Everything up to this message is settled. Resume after it.
        settled: Later messages that are settled too, so that they are not handled again.
        began: What is older than this is not wanted; None: everything is.
        server: ``HOST:PORT`` of the push server whose mids these are, as those of two servers
            do not compare; "" where nobody has written that down.
        stamps: For each of ``settled`` what tells it from another message with the same mid, as
            a server that has lost its counter hands mids out again; 0.0 where nothing does.
            Empty where nobody has written that down.
        kept: The newest message that the server had to keep, or None if there was none.
        stamp: That of the last message up to ``mid``; 0.0 where it is not known.
    """

    mid: str
    settled: tuple[str, ...] = ()
    began: Beginning | None = None
    server: str = ""
    stamps: tuple[float, ...] = ()
    kept: Kept | None = None
    stamp: float = UNKNOWN

    def __post_init__(self) -> None:
        if self.stamps and len(self.stamps) != len(self.settled):
            raise ValueError("the stamps of a resume point are not one for each settled message")

    def write(self) -> dict[str, Any]:
        """Return it as JSON values, for a store of your own."""
        content: dict[str, Any] = {"mid": self.mid}
        if self.began is not None:
            content["began"] = [self.began.server_unix, self.began.portal_unix]
        if self.server:
            content["server"] = self.server
        if self.kept is not None:
            content["kept"] = list(astuple(self.kept))
        if self.settled:
            content["settled"] = _write_mids(self.settled)
        if self.stamp:
            content["stamp"] = self.stamp
        if any(self.stamps):
            content["stamps"] = _write_stamps(self.stamps)
        return content

    @classmethod
    def read(cls, content: object) -> "ResumePoint":
        """Read what ``write`` has returned.

        Raises:
            ValueError: It is none; the text says why, and holds nothing of it.
        """
        if not is_object(content):
            raise ValueError("a resume point is no JSON object")
        mid, server = content.get("mid"), content.get("server", "")
        if not isinstance(mid, str) or not is_regular(mid):
            raise ValueError("the mid of a resume point is no message id of 26 digits")
        if not isinstance(server, str) or not server.isprintable():
            raise ValueError("the server of a resume point is none")
        settled = tuple(_read_mids(content.get("settled")))
        stamp = content.get("stamp", UNKNOWN)
        if not _is_number(stamp):
            raise ValueError("the stamp of a resume point is no number")
        return cls(
            mid,
            settled,
            _read_beginning(content.get("began")),
            server,
            _read_stamps(content.get("stamps")),
            _read_kept(content.get("kept")),
            stamp,
        )

    def joined(self, advances: "Iterable[ResumePoint]") -> "ResumePoint":
        """Return where a client has come that has told this, and what has advanced since.

        Args:
            advances: In order, each with what was new; see ``GrowingStore.advance``.
        """
        settled = dict(zip(self.settled, self.stamps or repeat(UNKNOWN), strict=False))
        last = self
        for last in advances:
            settled.update(zip(last.settled, last.stamps or repeat(UNKNOWN), strict=False))
        beyond = {mid: stamp for mid, stamp in settled.items() if mid > last.mid}
        stamps = tuple(beyond.values()) if any(beyond.values()) else ()
        return replace(
            self, mid=last.mid, settled=tuple(beyond), stamps=stamps, kept=last.kept, stamp=last.stamp
        )


def _write_mids(mids: Sequence[str]) -> dict[str, list[str]]:
    lowest, highest = min(mids), max(mids)
    length = next(
        (index for index, (one, other) in enumerate(zip(lowest, highest, strict=False)) if one != other),
        min(len(lowest), len(highest)),
    )
    return {lowest[:length]: [mid[length:] for mid in mids]}


def _read_mids(settled: object) -> Iterable[str]:
    # A plain list is how they were written at first.
    lists: Mapping[str, object] = {} if settled is None else settled if is_object(settled) else {"": settled}
    for prefix, rests in lists.items():
        if not _is_list(rests):
            raise ValueError("the settled messages of a resume point are no list")
        for rest in rests:
            if not isinstance(rest, str) or not 0 < len(prefix) + len(rest) <= MID_LENGTH_MAX:
                raise ValueError("a settled message of a resume point is no message id")
            yield prefix + rest


def _write_stamps(stamps: Sequence[float]) -> list[int]:
    """Write numbers by their 64 bits, each as what differs from the one before: that is little."""
    bits = struct.unpack(f">{len(stamps)}Q", struct.pack(f">{len(stamps)}d", *stamps))
    return [one ^ before for one, before in zip(bits, (0, *bits), strict=False)]


def _read_stamps(written: object) -> tuple[float, ...]:
    if written is None:
        return ()
    if not _is_list(written) or not all(isinstance(item, int) and 0 <= item < 2**64 for item in written):
        raise ValueError("the stamps of a resume point are no list of 64 bits each")
    bits = accumulate(cast("Sequence[int]", written), int.__xor__)
    stamps = struct.unpack(f">{len(written)}d", struct.pack(f">{len(written)}Q", *bits))
    if not all(map(math.isfinite, stamps)):
        raise ValueError("a stamp of a resume point is no number")
    return stamps


def _read_beginning(began: object) -> Beginning | None:
    if began is None:
        return None
    if _is_list(began) and len(began) == 2 and _is_time(began[0]) and _is_time(began[1]):
        return Beginning(began[0], began[1])
    raise ValueError("a resume point does not tell when its client began")


def _read_kept(kept: object) -> Kept | None:
    if kept is None:
        return None
    if _is_list(kept) and len(kept) == 4:
        mid, stamp, until_unix, channels = kept
        if (
            isinstance(mid, str)
            and isinstance(channels, str)
            and _is_number(stamp)
            and _is_number(until_unix)
        ):
            return Kept(mid, stamp, until_unix, channels)
    raise ValueError("a resume point does not tell what the server had to keep")


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, list | tuple)


def _is_time(value: object) -> TypeGuard[float | None]:
    return value is None or _is_number(value)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
