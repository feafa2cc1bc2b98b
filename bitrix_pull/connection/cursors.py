"""The push servers that a client has been on: a position belongs to one of them."""

from collections.abc import Callable, Collection, Iterable

from bitrix_pull.connection.cursor import Cursor
from bitrix_pull.connection.resume_point import ResumePoint
from bitrix_pull.connection.stamps import UNKNOWN

_OTHERS_MAX = 3
"""How many servers are remembered beside the present one."""


class Cursors:
    """A cursor for each push server, as the mids of two servers do not compare (protocol §6)."""

    def __init__(
        self,
        *,
        known_mids: int = 10_000,
        resume: ResumePoint | None = None,
        unsettled: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """Start where another run has come to, or with nothing seen.

        Args:
            known_mids: How many mids a cursor remembers at least.
            resume: What an earlier run has written down.
            unsettled: Gives the mids that handlers have not finished with.
        """
        self._known_mids = known_mids
        self._unsettled = unsettled
        self._others: dict[str, Cursor] = {}
        self.current: Cursor = Cursor(known_mids=known_mids, resume=resume, unsettled=unsettled)
        """That of the server to which the client is connected, or was last."""

    def would_move(self, server: str) -> bool:
        """Tell whether a server has another address than that of the current cursor."""
        return self.current.connected_before and self.current.server not in ("", server)

    def at(self, server: str, *, renamed: bool = False) -> Cursor:
        """Return the cursor of a server, which is the current one from now on.

        Args:
            server: Its ``HOST:PORT``.
            renamed: True if it is the one of the current cursor, at another address.
        """
        left = self.current
        if renamed or not self.would_move(server):
            left.server = server
            return left
        self._others[left.server] = left
        known = self._others.pop(server) if server in self._others else None
        self.current = known or Cursor(
            known_mids=self._known_mids, server=server, left=left, unsettled=self._unsettled
        )
        while len(self._others) > _OTHERS_MAX:
            del self._others[next(iter(self._others))]
        return self.current

    @property
    def numbering(self) -> object:
        """Equal to what it was for as long as the resume point is one of the same mids."""
        return self.current.server, self.current.numbering

    def snapshot(self) -> ResumePoint:
        """Return what to write down; ``settled_beyond`` and ``news`` give what is settled after it."""
        return self.current.snapshot(self._in_hand(), self._unsettled() if self._has_moved else ())

    def settled_beyond(self, mid: str) -> dict[str, float]:
        """Return all messages after one that are settled, with their stamps."""
        return self.current.settled_beyond(mid, self._in_hand())

    def news(self, settled: Iterable[str], mid: str) -> dict[str, float]:
        """Return which of some settled messages come after one, with their stamps."""
        stamps = {each: self.current.stamp(each) for each in settled if each > mid}
        if self._has_moved:
            # One of another stream may have the mid of one that is not settled.
            unsettled = self._in_hand()
            return {
                each: stamp for each, stamp in stamps.items() if stamp is not None and each not in unsettled
            }
        return {each: UNKNOWN if stamp is None else stamp for each, stamp in stamps.items()}

    @property
    def _has_moved(self) -> bool:
        return bool(self._others or self.current.numbering)

    def _in_hand(self) -> Collection[str]:
        """Return what is not settled of the present stream."""
        unsettled = self._unsettled()
        if not self._has_moved:
            return unsettled
        return {mid for mid in unsettled if self.current.stamp(mid) is not None}
