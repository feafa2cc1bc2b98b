"""What ends a connection, and what to do about it: protocol §8 as one table."""

from dataclasses import dataclass
from enum import Enum, auto

from bitrix_pull.errors import ConnectionLost
from bitrix_pull.wire.close_codes import ClientClose, ServerClose, describe


class Sign(Enum):
    """What was seen when a connection ended or could not be opened."""

    CHANNEL_REFUSED = auto()
    """Handshake 400, poll 400 or 403, close 4010 or 4036: channel unknown, expired or badly signed.
    Where a WebSocket has worked before, handshake 403 and close 1008 too."""
    HISTORY_UNREADABLE = auto()
    """Close 4011."""
    PUBLISH_REFUSED = auto()
    """Close 4012 to 4021: the server refused what we published."""
    EVICTED = auto()
    """Close 4029, or a poll 429: over 100 connections on the channel."""
    BLOCKED = auto()
    """Handshake 403 or close 1008: something on the way may block WebSockets."""
    SERVER_TROUBLE = auto()
    """Another status or close code: the server answered, but not as it should."""
    UNANSWERED = auto()
    """Nothing answered, or the connection was cut without a close frame."""
    SILENT = auto()
    """Nothing received though pings were sent: a half-open link."""
    GARBLED = auto()
    """Bytes that are no frame of the protocol."""
    CONFIG_EXPIRED = auto()
    """Control message ``config_expire``."""
    SERVER_RESTART = auto()
    """Control message ``server_restart``."""


class Ended(ConnectionLost):
    """A connection ended, or could not be opened.

    Attributes:
        sign: What was seen, which decides what to do.
        code: The close code or HTTP status, or None.
    """

    def __init__(self, sign: Sign, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.sign = sign
        self.code = code


class Wait(Enum):
    """How long to wait before the next attempt."""

    NONE = auto()
    LADDER = auto()
    """The ladder for what the server answered."""
    LADDER_UNANSWERED = auto()
    """The ladder for what nobody answered."""
    LADDER_STORES = auto()
    """The ladder for what this side's own stores did not do."""
    LONG = auto()
    """60 s or more."""
    SPREAD = auto()
    """10 to 120 s at random, as all clients of the server are told at once."""
    MAINTENANCE = auto()
    """10 to 15 minutes: the portal is out of service."""


@dataclass(slots=True, frozen=True)
class Action:
    """What to do after a sign.

    Attributes:
        wait: How long to wait first.
        wait_again: The same when the sign is seen a second time in a row.
        new_config: Fetch the configuration before connecting.
        close_code: The code to close with, if the connection is still open.
        in_vain: That the stream was opened is no success, as it was refused what it came for.
    """

    wait: Wait
    wait_again: Wait
    new_config: bool = False
    close_code: ClientClose = ClientClose.NORMAL
    in_vain: bool = False


TABLE: dict[Sign, Action] = {
    Sign.CHANNEL_REFUSED: Action(Wait.NONE, Wait.LADDER, new_config=True, in_vain=True),
    Sign.HISTORY_UNREADABLE: Action(Wait.LADDER, Wait.LADDER, in_vain=True),
    Sign.PUBLISH_REFUSED: Action(Wait.NONE, Wait.LADDER, in_vain=True),
    Sign.EVICTED: Action(Wait.LONG, Wait.LONG),
    Sign.BLOCKED: Action(Wait.LADDER, Wait.LADDER, in_vain=True),
    Sign.SERVER_TROUBLE: Action(Wait.LADDER, Wait.LADDER),
    Sign.UNANSWERED: Action(Wait.LADDER_UNANSWERED, Wait.LADDER_UNANSWERED),
    Sign.SILENT: Action(Wait.LADDER_UNANSWERED, Wait.LADDER_UNANSWERED, close_code=ClientClose.STUCK),
    Sign.GARBLED: Action(Wait.LADDER, Wait.LADDER, close_code=ClientClose.STUCK, in_vain=True),
    Sign.CONFIG_EXPIRED: Action(
        Wait.SPREAD, Wait.SPREAD, new_config=True, close_code=ClientClose.CONFIG_EXPIRED
    ),
    Sign.SERVER_RESTART: Action(
        Wait.SPREAD, Wait.SPREAD, new_config=True, close_code=ClientClose.SERVER_RESTARTED
    ),
}


def ended_by_close(code: int | None, reason: str = "") -> Ended:
    """Return what a close frame means.

    Args:
        code: Its code; None where none came.
        reason: The text that came with it.
    """
    if code is None:
        return Ended(Sign.UNANSWERED, "the connection was cut without a close frame")
    match code:
        case ServerClose.WRONG_CHANNEL | ServerClose.WRONG_CLIENT:
            sign = Sign.CHANNEL_REFUSED
        case ServerClose.HISTORY_UNREADABLE:
            sign = Sign.HISTORY_UNREADABLE
        case ServerClose.TOO_MANY_CONNECTIONS:
            sign = Sign.EVICTED
        case 1008:
            # A server of version 2 says so where a channel is unknown; nothing on the way does.
            sign = Sign.CHANNEL_REFUSED if "http_status" in reason and "403" in reason else Sign.BLOCKED
        case _ if ServerClose.PUBLIC_CHANNEL_REQUIRED <= code <= ServerClose.INVALID_SIGNATURE:
            sign = Sign.PUBLISH_REFUSED
        case _:
            sign = Sign.SERVER_TROUBLE
    return Ended(sign, _with_reason(f"the push server closed with {describe(code)}", sign), code)


def ended_by_status(status: int, *, poll: bool = False) -> Ended:
    """Return what an HTTP status means at a handshake, or as the answer to a poll."""
    match status:
        case 400:
            sign = Sign.CHANNEL_REFUSED
        case 403:
            sign = Sign.CHANNEL_REFUSED if poll else Sign.BLOCKED
        case 429 if poll:
            sign = Sign.EVICTED
        case _:
            sign = Sign.SERVER_TROUBLE
    return Ended(sign, _with_reason(f"the push server answered with status {status}", sign), status)


def refused_by(ended: Ended) -> Ended:
    """Return what an end means where the same way has worked before: it is the channels that are refused."""
    return Ended(Sign.CHANNEL_REFUSED, _with_reason(str(ended), Sign.CHANNEL_REFUSED), ended.code)


def _with_reason(text: str, sign: Sign) -> str:
    """Add what a server means that refuses channels: two systems disagree, and neither says so."""
    if sign is not Sign.CHANNEL_REFUSED:
        return text
    return (
        f"{text.removesuffix('.')}. It refused the channels: they are unknown to it, expired,"
        " or signed with another key than the portal's"
    )
