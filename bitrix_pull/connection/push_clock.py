"""The push server's clock: by it a message is created, and kept for so long."""

from bitrix_pull.portal.portal_clock import Moment


class PushClock:
    """Shows the push server's time, as far as its answers have told it.

    The answer to a WebSocket's handshake carries no date (protocol §6), those to polls do.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self._told: tuple[float, Moment] | None = None

    def learn(self, unix: float) -> None:
        """Take over what it showed a moment ago."""
        self._told = unix, Moment.now()

    def now(self) -> float | None:
        """Return its present time (unix), or None where it has told none."""
        if self._told is None:
            return None
        unix, moment = self._told
        # Time in which this machine slept has passed for the server too.
        return unix + moment.elapsed_s
