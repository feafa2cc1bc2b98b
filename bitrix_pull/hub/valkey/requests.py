"""How other services ask the owner of a portal to publish, in any language: JSON objects, version 1.

A request is an entry of the stream ``{NAME:N}:publish``, with one field ``request`` whose text is
this object. ``N`` is the portal's shard: the CRC-32 (zlib's) of its key in UTF-8, modulo the number
of shards of the log; with one shard, 0. What is not known here is refused: a slip in ``users`` must
not publish to everybody.

================ ==========================================================================
``v``            1
``portal``       the portal's key in the hub
``command``      see ``PullClient.publish``, for all of these
``params``       the payload, an object; may be left out
``module``       may be left out
``users``        a user id or several; may be left out
``channels``     a public channel or several; may be left out
``route``        "auto", "rest", "endpoint" or "socket"; may be left out
``id``           the asker's own name for the request, unlike any other of the portal's: a request
                 that is sent again under it within an hour is published once. May be left out:
                 it is the entry's id then
``reply_to``     where the answer goes; may be left out: it is the request's ``id`` then
``expires_in_s`` seconds from the entry's own time, by the engine's clock, after which it is not
                 published any more: 60, if left out; a day at most
================ ==========================================================================

The answer is an entry of the stream ``{NAME:N}:answer:REPLY_TO``, which is gone ten minutes after
its last answer, with one field ``answer`` whose text is this object. Fields may be added without
another version.

================ ==========================================================================
``v``            1
``id``           the request's
``portal``       the portal's key, or null
``outcome``      "accepted", "refused" or "unknown", as in ``Fate``: "refused" was surely not published
                 (to some receivers at least), "unknown" may have been or not
``error``        why it is not "accepted", else null: ``type``, the name of an error of ``bitrix_pull``
                 or "Expired"; ``message``; ``retryable``, whether the same may succeed later
``route``        the way it went: "rest", "endpoint" or "socket"; null if it was not sent
``confirmed``    see ``Receipt``
``missed``       ids of users who surely did not get it, where others did
``in_doubt``     ids of users who may have got it or not
``epoch``        which owner of the portal it was; null if it was none
================ ==========================================================================

With redis-cli, for the log ``bitrix-pull`` of one shard::

    XADD {bitrix-pull:0}:publish MAXLEN ~ 10000 * request '{"v": 1, "portal": "acme", "id": "7f31",
        "command": "order_paid", "params": {"id": 7}, "users": [1]}'
    XREAD BLOCK 90000 STREAMS {bitrix-pull:0}:answer:7f31 0

What is promised: a request is published once at most, by who owns its portal when its turn comes, in
the order of the stream among those of its portal; and is answered once. A request whose portal nobody
serves waits until it expires. If the owner dies between taking it and the answer, the answer is
"unknown": publishing is not repeated. An engine that comes back without its last second may
have lost requests and answers of that second; where the owner is another one by then, it may
also publish anew what was taken within it.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast, get_args

import orjson

from bitrix_pull.errors import InvalidArgument, PullError
from bitrix_pull.hub.cluster import checked_keys
from bitrix_pull.publish.message import Message
from bitrix_pull.publish.publisher import Route
from bitrix_pull.publish.receipt import Outcome, Receipt
from bitrix_pull.wire.json_text import parser_for

VERSION: Final = 1
EXPIRES_IN_S: Final = 60.0
LASTS_MAX_S: Final = 86_400.0
EXPIRED: Final = "Expired"
REQUESTS_MAX: Final = 10_000
"""How many wait in a shard at most: of more, the oldest are refused."""

_ID_LENGTH_MAX = 200
_KNOWN = {
    *("v", "portal", "command", "params", "module", "users", "channels", "route"),
    *("id", "reply_to", "expires_in_s"),
}


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """What somebody asks to be published.

    Attributes:
        portal: The portal's key.
        id: The request's name.
        reply_to: Where the answer goes.
        expires_in_s: For how long it is good.
        content: What is to be published, as it was given.
        named: True if the asker has named it.
    """

    portal: str
    id: str
    reply_to: str
    expires_in_s: float
    content: Mapping[str, Any] = field(repr=False)
    named: bool

    @classmethod
    def read(cls, raw: bytes | None, entry: str) -> "PublishRequest":
        """Read one; what it asks to publish is looked at by ``message`` only.

        Args:
            raw: The JSON text, if there is any.
            entry: The id of its entry.

        Raises:
            BadRequest: It is none.
        """
        content = _object(raw, entry)
        request_id = _name(content, "id", entry, entry)
        reply_to = _name(content, "reply_to", request_id, request_id)
        portal = content.get("portal")
        if (wrong := _what_is_wrong(content)) is not None:
            raise BadRequest(wrong, request_id, reply_to, portal if isinstance(portal, str) else None)
        lasts_s = float(content.get("expires_in_s", EXPIRES_IN_S))
        return cls(cast("str", portal), request_id, reply_to, lasts_s, content, "id" in content)

    @property
    def lasts_ms(self) -> int:
        """For how long it is good, in milliseconds."""
        return max(round(self.expires_in_s * 1000), 1)

    def message(self) -> Message:
        """Return what is to be published.

        Raises:
            InvalidArgument: It cannot be.
        """
        content = self.content
        return Message(
            content.get("command", ""),
            content.get("params"),
            module=content.get("module", "application"),
            users=content.get("users"),
            channels=content.get("channels"),
        )

    @property
    def route(self) -> Route:
        """The way to go.

        Raises:
            InvalidArgument: There is none of this name.
        """
        route = self.content.get("route", "auto")
        if route not in get_args(Route):
            raise InvalidArgument(f"route {route!r:.40} is unknown")
        return cast("Route", route)


class BadRequest(Exception):  # noqa: N818
    """An entry that is no request.

    Args:
        what: What is wrong with it.
        request_id: What to call it in the answer.
        reply_to: Where the answer goes.
        portal: Whose it seems to be.
    """

    @classmethod
    def of(cls, request: PublishRequest, what: str) -> "BadRequest":
        """Return the error for a request that cannot be served."""
        return cls(what, request.id, request.reply_to, request.portal)

    def __init__(
        self, what: str, request_id: str, reply_to: str | None = None, portal: str | None = None
    ) -> None:
        super().__init__(what)
        self.request_id: str = request_id
        self.reply_to: str = reply_to or request_id
        self.portal: str | None = portal


def _object(raw: bytes | None, entry: str) -> dict[str, Any]:
    if raw is None:
        raise BadRequest("the entry has no field request", entry)
    try:
        told = parser_for(raw, len(raw), mids=False)(raw)
    except ValueError as error:
        raise BadRequest(f"the request is no JSON: {error}", entry) from None
    if not isinstance(told, dict):
        raise BadRequest("the request is no JSON object", entry)
    return cast("dict[str, Any]", told)


def _what_is_wrong(content: Mapping[str, Any]) -> str | None:
    """Return what keeps an object from being a request, but for what its names are."""
    if content.get("v") != VERSION:
        return f"the request's v is {content.get('v')!r:.20}: version {VERSION} is known here"
    if unknown := content.keys() - _KNOWN:
        return f"the request has a field {min(unknown)!r:.40}, which is unknown"
    if None in content.values():
        return "a field of the request is null: leave it out where nothing is meant"
    try:
        checked_keys([content.get("portal", "")])
    except (InvalidArgument, TypeError) as error:
        return str(error)
    lasts_s = content.get("expires_in_s", EXPIRES_IN_S)
    if isinstance(lasts_s, bool) or not isinstance(lasts_s, int | float) or not 0 < lasts_s <= LASTS_MAX_S:
        return f"expires_in_s must be seconds, more than 0 and {LASTS_MAX_S:.0f} at most"
    return None


def _name(content: Mapping[str, Any], what: str, default: str, entry: str) -> str:
    name = content.get(what, default)
    if not isinstance(name, str) or not 0 < len(name) <= _ID_LENGTH_MAX or not name.isprintable():
        raise BadRequest(
            f"the request's {what} must be printable text of 1 to {_ID_LENGTH_MAX} characters", entry
        )
    return name


@dataclass(frozen=True, slots=True)
class PublishAnswer:
    """What became of a request to publish.

    Attributes:
        id: The request's.
        portal: The portal's key; None if the request did not tell.
        outcome: "accepted", "refused" or "unknown", as in ``Fate``.
        error_type: Why it is not "accepted": the name of an error of this library, or "Expired".
        error: The same in words.
        retryable: True if the same may succeed later.
        route: The way it went; None if it was not sent.
        confirmed: See ``Receipt``.
        missed: Ids of users who surely did not get it, where others did.
        in_doubt: Ids of users who may have got it or not.
        epoch: Which owner of the portal it was; None if it was none.
    """

    id: str
    portal: str | None
    outcome: Outcome
    error_type: str = ""
    error: str = ""
    retryable: bool = False
    route: str | None = None
    confirmed: bool = False
    missed: Sequence[int] = ()
    in_doubt: Sequence[int] = ()
    epoch: int | None = None

    @classmethod
    def of(cls, request: PublishRequest, epoch: int, receipt: Receipt) -> "PublishAnswer":
        """Return what a receipt for one message says."""
        (fate,) = receipt.fates
        error = fate.error
        return cls(
            request.id,
            request.portal,
            fate.outcome,
            "" if error is None else type(error).__name__,
            "" if error is None else str(error),
            error is not None and error.retryable,
            receipt.route,
            receipt.confirmed,
            tuple(each for each in fate.missed if isinstance(each, int)),
            tuple(each for each in fate.in_doubt if isinstance(each, int)),
            epoch,
        )

    @classmethod
    def failed(
        cls, request: PublishRequest, epoch: int, error: PullError, outcome: Outcome = "refused"
    ) -> "PublishAnswer":
        """Return what an error says."""
        told = type(error).__name__, str(error), error.retryable
        return cls(request.id, request.portal, outcome, *told, epoch=epoch)

    def write(self) -> bytes:
        """Return it as JSON."""
        error = {"type": self.error_type, "message": self.error, "retryable": self.retryable}
        return orjson.dumps(
            {
                "v": VERSION,
                "id": self.id,
                "portal": self.portal,
                "outcome": self.outcome,
                "error": error if self.error_type else None,
                "route": self.route,
                "confirmed": self.confirmed,
                "missed": list(self.missed),
                "in_doubt": list(self.in_doubt),
                "epoch": self.epoch,
            }
        )

    @classmethod
    def read(cls, raw: bytes) -> "PublishAnswer":
        """Read one. Raises ``ValueError`` for what is none."""
        try:
            told: Any = orjson.loads(raw)
            error: Any = told["error"] or {}
            if not isinstance(told["id"], str):
                raise TypeError
            return cls(
                told["id"],
                told["portal"],
                told["outcome"],
                error.get("type", ""),
                error.get("message", ""),
                error.get("retryable", False),
                told["route"],
                told["confirmed"],
                tuple(told["missed"]),
                tuple(told["in_doubt"]),
                told["epoch"],
            )
        except (KeyError, TypeError, AttributeError):
            raise ValueError("this is no answer") from None


def prefix_of(name: str, number: int) -> str:
    """Return what all keys of a shard of a log begin with: the part in braces decides on the slot."""
    return f"{{{name}:{number}}}"


def shard_of(portal: str, shards: int) -> int:
    """Return the number of a portal's shard."""
    return zlib.crc32(portal.encode("utf-8", "replace")) % shards
