"""Every timeout, limit and policy of a client, in one place."""

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Literal, get_args

from bitrix_pull.errors import InvalidArgument

Transport = Literal["auto", "websocket", "long_polling"]
Overflow = Literal["pause", "drop_oldest", "drop_newest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PullOptions:
    """Settings of a client. The defaults suit a service on a cloud portal.

    Attributes:
        transport: "auto" takes the WebSocket, and long polling where that is blocked;
            "websocket" and "long_polling" take nothing else.
        protobuf: False asks a server of version 4 for JSON text instead of protobuf.
        start_timeout_s: How long ``async with`` waits for the client to be live; it gives up
            at once when the next attempt would come later than that.
        rest_timeout_s: Deadline of one REST call, connecting included.
        connect_timeout_s: Deadline for name, TCP, TLS and WebSocket handshake together.
        ping_interval_s: Seconds between our pings on a WebSocket.
        ping_timeout_s: Seconds within which the server must answer a ping.
        poll_timeout_s: Deadline of one long poll; the server answers after 40 s at the latest.
        catch_up_s: Seconds after a reconnect in which what arrives counts as replayed history.
        close_timeout_s: Deadline for closing a connection politely.
        inbox_max_events: Events taken from the server and not yet handled, at most; see
            ``overflow``.
        inbox_max_bytes: The same in bytes of message bodies.
        overflow: What happens then. "pause" stops reading the socket until handlers have
            caught up, and loses nothing that the server keeps. "drop_oldest" drops the
            event that waits longest for a handler, "drop_newest" the one that arrives; an
            ``EventsDropped`` notice says so.
        known_mids: How many message ids are remembered to drop duplicates.
        max_frame_bytes: Largest frame or poll body that is accepted. The server sends the
            whole replay of a reconnect in one frame.
        max_rest_bytes: Largest REST answer that is accepted.
        allow_http_hosts: Hosts to which credentials may go over plain http, beside
            loopback addresses, for which it is always allowed.
    """

    transport: Transport = "auto"
    protobuf: bool = True
    start_timeout_s: float = 10.0
    rest_timeout_s: float = 30.0
    connect_timeout_s: float = 10.0
    ping_interval_s: float = 10.0
    ping_timeout_s: float = 5.0
    poll_timeout_s: float = 60.0
    catch_up_s: float = 0.5
    close_timeout_s: float = 1.0
    inbox_max_events: int = 10_000
    inbox_max_bytes: int = 8 * 1024 * 1024
    overflow: Overflow = "pause"
    known_mids: int = 10_000
    max_frame_bytes: int = 16 * 1024 * 1024
    max_rest_bytes: int = 4 * 1024 * 1024
    allow_http_hosts: Collection[str] = ()

    def __post_init__(self) -> None:
        if isinstance(self.allow_http_hosts, str):
            raise InvalidArgument("allow_http_hosts must be a collection of host names, not one string")
        for name, choices in (("transport", get_args(Transport)), ("overflow", get_args(Overflow))):
            if getattr(self, name) not in choices:
                raise InvalidArgument(f"{name} must be one of {choices}, not {getattr(self, name)!r:.40}")
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, int | float) and value is not False and not value > 0:
                raise InvalidArgument(f"{item.name} must be greater than 0, not {value!r}")
