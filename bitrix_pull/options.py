"""Every timeout, limit and policy of a client, in one place."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from ssl import SSLContext
from typing import Literal, cast, get_args
from urllib.parse import urlsplit

from bitrix_pull.errors import InvalidArgument

Transport = Literal["auto", "websocket", "long_polling"]
Overflow = Literal["pause", "drop_oldest", "drop_newest"]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How many REST calls a portal takes: a leaky bucket (protocol §2).

    The defaults are those of cloud portals; ``RateLimit(250, 5)`` is that of the Enterprise
    plan.

    Attributes:
        burst: Calls at once.
        per_s: Calls a second after that.
    """

    burst: int = 50
    per_s: float = 2.0

    def __post_init__(self) -> None:
        check_number("burst", self.burst, whole=True)
        check_number("per_s", self.per_s)


RestLimit = RateLimit | Literal["auto"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PullOptions:
    """Settings of a client. The defaults suit a service on a cloud portal.

    Attributes:
        transport: "auto" takes the WebSocket, and long polling where that is blocked;
            "websocket" and "long_polling" take nothing else.
        protobuf: False asks a server of version 4 for JSON text instead of protobuf.
        start_timeout_s: How long ``async with`` waits for the client to be live; it gives up
            at once when the next attempt would come later than that.
        rest_timeout_s: Deadline of one REST call, waiting and connecting included.
        rest_limit: How many REST calls the portal takes, from all clients of it in this
            process together; those that are too many wait within their deadline. "auto" is
            ``RateLimit()`` for cloud portals (``*.bitrix24.*``) and no limit for others,
            None no limit. Your own REST client, passed as ``auth``, keeps limits itself.
        connect_timeout_s: Deadline for name, TCP, TLS and WebSocket handshake together.
        ping_interval_s: Seconds between our pings on a WebSocket.
        ping_timeout_s: Seconds within which the server must answer a ping.
        poll_timeout_s: Seconds within which a long poll must begin to be answered; the server
            does so after 40 s at the latest. The answer may then take as long as it takes, but
            not be silent for ``ping_interval_s + ping_timeout_s``.
        catch_up_s: How long to wait for missed events after a reconnect where only time shows that
            there are none: by polling, and before version 3.
        close_timeout_s: Deadline for closing a connection politely.
        close_drain_s: How long ``close()``, and leaving ``async with``, wait for handlers to
            finish what was already received.
        inbox_max_events: Events taken from the server and not yet handled, from which on
            ``overflow`` says what happens.
        inbox_max_bytes: The same in bytes of message bodies.
        overflow: What happens then. "pause" stops reading the socket until handlers have
            caught up, and loses nothing that the server keeps; what was read at the same
            time as the last of them still goes in. "drop_oldest" drops the
            event that waits longest for a handler, "drop_newest" the one that arrives; an
            ``EventsDropped`` notice says so.
        connector: Names the application's own exchange channel (``auth_connector``) for the
            portal's events: what is changed through it, by ``call`` and its like, does not come
            back as an event. Its events are bound and queued apart from those of others. Not
            in every plan; "" for none. Latin letters, digits and ``_ . -``.
        portal_events_interval_s: Seconds between two looks into the portal's queue of events
            where nothing is announced: how late an event comes whose announcement was lost.
        ignore_modules: Modules whose events are dropped, and counted in ``health()``. On push
            servers from version 5 on an application also gets what the portal sends to its
            user: ``ignore_modules={"im", "tasks", "crm"}``. What the client itself goes by
            ("pull", "online", "rest") cannot be ignored.
        known_mids: How many message ids are remembered to drop duplicates.
        max_message_bytes: Largest message that is accepted, as it is written on the wire; the
            server's own limit is 1 MiB. A larger one is left out, and a ``MessageDropped``
            notice says so. How many messages come at once is no matter: what is held in
            memory of them is the inbox and one message.
        max_rest_bytes: Largest REST answer that is accepted.
        allow_http_hosts: Hosts to which credentials may go over plain http, beside
            loopback addresses, for which it is always allowed.
        allow_private_hosts: Push servers (names or IP addresses) that may be on a private
            network, or on this machine, though the portal is not. A portal that is itself
            on a private network needs no entry.
        ssl: What to trust and to show in TLS, for the portal, the push server and an
            https proxy alike: ``ssl.create_default_context(cafile="our-ca.pem")``. None:
            what Python trusts, which the environment's ``SSL_CERT_FILE`` can change.
        proxy: The HTTP proxy for everything but loopback addresses,
            ``http://[USER:PASSWORD@]HOST:PORT``. None: what the environment names
            (``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY``, ``NO_PROXY``).
    """

    transport: Transport = "auto"
    protobuf: bool = True
    start_timeout_s: float = 10.0
    rest_timeout_s: float = 30.0
    rest_limit: RestLimit = "auto"
    connect_timeout_s: float = 10.0
    ping_interval_s: float = 10.0
    ping_timeout_s: float = 5.0
    poll_timeout_s: float = 60.0
    catch_up_s: float = 0.5
    close_timeout_s: float = 1.0
    close_drain_s: float = 5.0
    inbox_max_events: int = 10_000
    inbox_max_bytes: int = 8 * 1024 * 1024
    overflow: Overflow = "pause"
    connector: str = ""
    portal_events_interval_s: float = 300.0
    ignore_modules: Collection[str] = ()
    known_mids: int = 10_000
    max_message_bytes: int = 1024 * 1024 + 64 * 1024
    max_rest_bytes: int = 2 * 1024 * 1024
    allow_http_hosts: Collection[str] = ()
    allow_private_hosts: Collection[str] = ()
    ssl: SSLContext | None = None
    proxy: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for item in fields(self):
            _check_like(item.default, item.name, getattr(self, item.name))
        if self.ssl is not None and not isinstance(self.ssl, SSLContext):
            raise InvalidArgument("ssl must be an ssl.SSLContext")
        if self.proxy is not None:
            check_proxy(self.proxy, "proxy")
        if not isinstance(self.connector, str) or not _CONNECTOR.fullmatch(self.connector):
            raise InvalidArgument("connector must be text of letters, digits and _ . -, or empty")
        for module in self.ignore_modules:
            if not _MODULE.fullmatch(module) or module in _OWN_MODULES:
                raise InvalidArgument(
                    f"ignore_modules holds {module!r:.40}",
                    advice="Use lower-case letters, digits, dots and underscores; "
                    'what the client itself goes by ("pull", "online", "rest") cannot be ignored.',
                )
        for name, choices in (("transport", get_args(Transport)), ("overflow", get_args(Overflow))):
            if getattr(self, name) not in choices:
                raise InvalidArgument(f"{name} must be one of {choices}, not {getattr(self, name)!r:.40}")
        if self.rest_limit not in ("auto", None) and not isinstance(self.rest_limit, RateLimit):
            raise InvalidArgument(
                f'rest_limit must be a RateLimit, "auto" or None, not {self.rest_limit!r:.40}'
            )


_CONNECTOR = re.compile(r"[A-Za-z0-9_.-]{0,100}")
_MODULE = re.compile(r"[a-z0-9._]+")
_OWN_MODULES = ("pull", "online", "rest")
_LARGEST_NUMBER = 2**31 - 1


def _check_like(default: object, name: str, value: object) -> None:
    """Refuse what is not of the kind that its default shows: a switch, a number, names."""
    match default:
        case bool():
            if not isinstance(value, bool):
                raise InvalidArgument(f"{name} must be True or False, not {type(value).__name__}")
        case int() | float():
            check_number(name, value, whole=isinstance(default, int))
        case ():
            if isinstance(value, str) or not isinstance(value, Collection):
                raise InvalidArgument(f"{name} must be a collection of texts, not one value")
            if not all(isinstance(item, str) for item in cast("Collection[object]", value)):
                raise InvalidArgument(f"{name} must hold texts")
        case _:
            pass


def check_number(name: str, value: object, *, whole: bool = False) -> None:
    """Refuse what is no number, NaN, and numbers that nothing can wait for or hold.

    Raises:
        InvalidArgument: It is one of these; the text opens with the name.
    """
    kind = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value <= _LARGEST_NUMBER:
        what = "a whole number" if whole else "a number"
        raise InvalidArgument(f"{name} must be {what} greater than 0 and at most {_LARGEST_NUMBER}")


def check_proxy(proxy: str, source: str) -> None:
    """Refuse what cannot be used as a proxy. The text never repeats it, as it may hold a password.

    Args:
        proxy: Its address.
        source: What names it, for the error's text.

    Raises:
        InvalidArgument: It is no ``http(s)://[USER:PASSWORD@]HOST[:PORT]``.
    """
    if not isinstance(proxy, str):
        raise InvalidArgument(f"{source} must be text")
    try:
        parts = urlsplit(proxy)
        usable = bool(parts.hostname) and parts.port != 0 and proxy.isascii() and proxy.isprintable()
    except ValueError:
        parts, usable = urlsplit(""), False
    if usable and parts.scheme.startswith("socks"):
        raise InvalidArgument(
            f"{source} names a SOCKS proxy, which is not supported",
            advice="Name an HTTP proxy instead, or except the hosts by NO_PROXY.",
        )
    usable = usable and parts.scheme in ("http", "https") and " " not in proxy
    usable = usable and parts.path in ("", "/") and not parts.query and not parts.fragment
    # A name without a password is refused by one of the libraries below and taken by the other.
    if not usable or (parts.username is None) != (parts.password is None):
        raise InvalidArgument(
            f"{source} is no address of an HTTP proxy",
            advice='Give it as "http://HOST:PORT"; USER:PASSWORD@ may stand before the host.',
        )
