"""The push servers that a client has been on: a position belongs to one of them."""

from collections.abc import Collection, Sequence

from bitrix_pull.connection.cursor import Cursor, ResumePoint
from bitrix_pull.connection.stamps import UNKNOWN

_OTHERS_MAX = 3
"""How many servers are remembered beside the present one."""


class Cursors:
    """A cursor for each push server, as the mids of two servers do not compare (protocol §6)."""

    def __init__(self, *, known_mids: int = 10_000, resume: ResumePoint | None = None) -> None:
        """Start where another run has come to, or with nothing seen.

        Args:
            known_mids: How many mids a cursor remembers at least.
            resume: What an earlier run has written down.
        """
        self._known_mids = known_mids
        self._others: dict[str, Cursor] = {}
        self.current = Cursor(known_mids=known_mids, resume=resume)
        """That of the server to which the client is connected, or was last."""

    def at(self, server: str) -> Cursor:
        """Return the cursor of a server, which is the current one from now on.

        Args:
            server: Its ``HOST:PORT``.
        """
        left = self.current
        if left.server in ("", server) or not left.connected_before:
            left.server = server
            return left
        self._others[left.server] = left
        known = self._others.pop(server) if server in self._others else None
        self.current = known or Cursor(known_mids=self._known_mids, server=server, left=left)
        while len(self._others) > _OTHERS_MAX:
            del self._others[next(iter(self._others))]
        return self.current

    @property
    def numbering(self) -> object:
        """Equal to what it was for as long as the resume point is one of the same mids."""
        return self.current.server, self.current.numbering

    def snapshot(self, unsettled: Collection[str]) -> ResumePoint:
        """Return what to write down, given the mids that handlers have not finished with."""
        cursor = self.current
        if self._others or cursor.numbering:
            # Of those from before, none is a place in the present stream.
            unsettled = {mid for mid in unsettled if cursor.stamp(mid) is not None}
        return cursor.snapshot(unsettled)

    def stamps(self, mids: Sequence[str]) -> list[float]:
        """Return the stamps of messages that were admitted; 0.0 for those that are forgotten."""
        stamp = self.current.stamp
        return [stamp(mid) or UNKNOWN for mid in mids]
