"""What is known of a user's presence."""

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Presence:
    """Whether a user is online: connected to the push server, on the channels that the client uses.

    Attributes:
        online: True if the user is connected now.
        last_seen_s: Seconds since the user was last online, 0 for now. None for a user who
            never was, and for who is offline where the server does not tell (version 4).
    """

    online: bool
    last_seen_s: int | None = None


@dataclass(slots=True, frozen=True)
class PresenceChanged:
    """A watched user has come or gone.

    Attributes:
        user: The user's id.
        online: True if the user is online now.
    """

    user: int
    online: bool
