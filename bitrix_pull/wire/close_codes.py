"""Close codes of the push server and of its clients, with their texts (protocol §7 and §8).

The same codes stand in the bodies of HTTP 400 answers, as ``CODE: TEXT``.
"""

from enum import IntEnum

from bitrix_pull.errors import PublishRefused


class ServerClose(IntEnum):
    """Why the push server ends a connection or refuses a request."""

    WRONG_CHANNEL = 4010
    HISTORY_UNREADABLE = 4011
    PUBLIC_CHANNEL_REQUIRED = 4012
    WRONG_REQUEST = 4013
    COMMAND_NOT_ALLOWED = 4014
    WRONG_COMMAND = 4015
    TOO_MANY_MESSAGES = 4016
    NO_RECEIVERS = 4017
    TOO_MANY_CHANNELS = 4018
    INVALID_CHANNEL = 4019
    PRIVATE_RECEIVER = 4020
    INVALID_SIGNATURE = 4021
    TOO_MANY_CONNECTIONS = 4029
    WRONG_CLIENT = 4036

    @property
    def text(self) -> str:
        """The server's own words for it."""
        return _TEXTS[self]


_TEXTS = {
    ServerClose.WRONG_CHANNEL: "Wrong Channel Id.",
    ServerClose.HISTORY_UNREADABLE: "Last Message Id is wrong.",
    ServerClose.PUBLIC_CHANNEL_REQUIRED: "Public Channel Id is Required.",
    ServerClose.WRONG_REQUEST: "Wrong Request Data.",
    ServerClose.COMMAND_NOT_ALLOWED: "Request command is not allowed.",
    ServerClose.WRONG_COMMAND: "Wrong Request Command.",
    ServerClose.TOO_MANY_MESSAGES: "Request exceeded the maximum number of messages.",
    ServerClose.NO_RECEIVERS: "No channels found.",
    ServerClose.TOO_MANY_CHANNELS: "Request exceeded the maximum number of channels.",
    ServerClose.INVALID_CHANNEL: "Request has an invalid channel id.",
    ServerClose.PRIVATE_RECEIVER: "Private channel is not allowed.",
    ServerClose.INVALID_SIGNATURE: "Channel has an invalid signature.",
    ServerClose.TOO_MANY_CONNECTIONS: "Too many connections",
    ServerClose.WRONG_CLIENT: "Wrong Client Id",
}


class ClientClose(IntEnum):
    """Why this client ends a connection."""

    NORMAL = 1000
    CONFIG_REPLACED = 3000
    CHANNEL_EXPIRED = 3001
    SERVER_RESTARTED = 3002
    CONFIG_EXPIRED = 3003
    MANUAL = 3004
    STUCK = 3005


def describe(code: int) -> str:
    """Return a close code with the server's words for it, as far as it is one of the protocol's.

    What came with it is not repeated: a proxy on the way may put the address into it.
    """
    return f"{code}: {_TEXTS[ServerClose(code)]}" if code in _TEXTS else str(code)


REFUSALS = {code: refused for refused in PublishRefused.__subclasses__() for code in refused.codes}
"""The codes with which what was published is refused (protocol §7), and their errors."""


def refusal(code: int, what: str = "it") -> PublishRefused:
    """Return the error for a code with which the push server refused what was published."""
    text = f"the push server refused {what} with {describe(code)}".rstrip(".")
    return REFUSALS.get(code, PublishRefused)(text, code=code)


def read_refusal(body: bytes) -> int | None:
    """Return the code of an HTTP 400 body ``CODE: TEXT``, or None if it has another form."""
    code, colon, _ = body[:200].partition(b":")
    return int(code) if colon and len(code) == 4 and code.isdigit() else None
