"""Room for what is not handled yet, which the inboxes of many clients share."""


class Storage:
    """Bounds what many inboxes hold together, so that none of them takes the place of the others.

    Each may hold what its own limits say, while there is room. Once there is none, only those
    are full that hold more than an equal share of it: whoever holds less goes on. So together
    they hold twice ``max_bytes`` at most, and what is read at a time.

    Args:
        max_bytes: Bytes of events' bodies from which on there is no room.
    """

    __slots__ = ("inboxes", "max_bytes", "used")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes: int = max_bytes
        self.used: int = 0
        """Bytes that all inboxes hold together."""
        self.inboxes: int = 0
        """How many inboxes share it."""

    def refuses(self, size: int) -> bool:
        """Tell whether an inbox is full that holds so many bytes."""
        return self.used >= self.max_bytes and size * self.inboxes >= self.max_bytes
