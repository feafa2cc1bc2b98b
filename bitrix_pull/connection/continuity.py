"""Whether a reconnect has brought everything back: never claimed unless it was seen."""

from collections.abc import Callable, Sequence
from typing import Literal

from bitrix_pull.connection.cursor import Cursor
from bitrix_pull.events import Continuity, Gap, PullEvent
from bitrix_pull.wire.messages import Control, Incoming, Malformed


class Resumption:
    """Judges one reconnect by what comes first: the replay, or else the audit.

    The resume point lies just before a message that is known. If the server's history is
    whole, the replay holds that message again; if the server still had to keep it and it
    is not there, the history is gone.
    """

    def __init__(
        self,
        cursor: Cursor,
        announce: Callable[[Continuity], None],
        *,
        server_unix: float,
        offline_s: float | None,
    ) -> None:
        """Begin a reconnect.

        Args:
            cursor: What is known; asked before what comes is admitted.
            announce: Gets the verdict.
            server_unix: The push server's clock.
            offline_s: Seconds without a connection, if known.
        """
        self._cursor = cursor
        self._announce = announce
        self._expects_known = cursor.expects(server_unix)
        self._offline_s = offline_s
        self.judged = False
        """True once the verdict was given."""

    def judge(self, messages: Sequence[Incoming]) -> None:
        """Give the verdict, once, on what the first frame or the audit has brought."""
        if self.judged:
            return
        self.judged = True
        mids = [message.mid for message in messages if isinstance(message, PullEvent | Control | Malformed)]
        known = sum(map(self._cursor.knows, mids))
        recovered: Literal["yes", "no", "unknown"] = "unknown"
        if known:
            recovered = "yes"
        elif self._expects_known:
            recovered = "no"
        kind = Gap if recovered == "no" else Continuity
        self._announce(kind(recovered, len(mids) - known, known, self._offline_s))
