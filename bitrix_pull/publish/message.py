"""What a user wants to publish, checked before anything is sent."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any, ClassVar, Protocol

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.portal.user_ids import check_user_ids
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.json_text import encode_json


class Dataclass(Protocol):
    """An instance of any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class Model(Protocol):
    """An instance of a pydantic model. Whoever publishes none does not wait for pydantic."""

    __pydantic_serializer__: ClassVar[Any]


Params = Mapping[str, Any] | Model | Dataclass
"""A payload to publish: what becomes a JSON object."""

_COMMAND = re.compile(r"[A-Za-z0-9_:|.-]+")
_MODULE = re.compile(r"[a-z0-9._]+")


@dataclass(init=False, slots=True, frozen=True)
class Message:
    """An event to publish, and who gets it. All who are named get it, each once.

    It is checked and written down when it is made: what becomes of ``params`` after that
    does not change it.

    Example:
        Message("order_update", {"id": 7}, users=[1, 5])

    Attributes:
        command: The kind of event within its module.
        module: The module that sends it.
        users: Users whose private channels get it.
        channels: Public channels that get it.
        to_self: Whether the publishing user's own channel gets it.
        body: The event as push servers carry it: UTF-8 JSON (protocol §5).
    """

    command: str
    module: str
    users: tuple[int, ...]
    channels: tuple[PublicChannel, ...]
    to_self: bool
    body: bytes = field(repr=False)

    def __init__(
        self,
        command: str,
        params: Params | None = None,
        *,
        module: str = "application",
        users: int | Iterable[int] | None = None,
        channels: str | PublicChannel | Iterable[str | PublicChannel] | None = None,
        to_self: bool = False,
    ) -> None:
        """Check a message; where nobody is named, the application's shared channel gets it.

        Args:
            command: Letters, digits and ``_ : | . -``.
            params: The payload: a mapping, a pydantic model or a dataclass, of what JSON can hold,
                of such models in their turn, and of dates, times, UUIDs and enums. Integers are
                exact whatever their size; a ``Decimal`` goes as text with all its digits; NaN
                and infinities, bytes and sets are refused.
            module: Lower-case letters, digits, dots and underscores.
            users: One user id or several.
            channels: One public channel or several, as ``PUB.SIG`` texts or ``PublicChannel``.
            to_self: True to name the user behind the credentials.

        Raises:
            InvalidArgument: A portal could not accept it; the text says what is wrong (the
                portal's own rules, protocol §2: COMMAND_ERROR, MODULE_ID_ERROR, PARAMS_ERROR).
        """
        _check_name("command", command, _COMMAND, "use letters, digits and _ : | . - only (COMMAND_ERROR)")
        _check_name(
            "module",
            module,
            _MODULE,
            "use lower-case letters, digits, dots and underscores only (MODULE_ID_ERROR)",
        )
        params = {} if params is None else params
        if not (isinstance(params, Mapping) or _is_model(params) or _is_dataclass(params)):
            raise InvalidArgument(
                f"params must be a mapping, model or dataclass that becomes a JSON object, "
                f"not {type(params).__name__} (PARAMS_ERROR)"
            )
        if not isinstance(to_self, bool):
            raise InvalidArgument(f"to_self must be True or False, not {type(to_self).__name__}")
        set_field = object.__setattr__  # The instance is frozen.
        set_field(self, "command", command)
        set_field(self, "module", module)
        set_field(self, "users", () if users is None else check_user_ids(users))
        set_field(self, "channels", _check_channels(channels))
        set_field(self, "to_self", to_self)
        content = {"module_id": module, "command": command, "params": params}
        body = encode_json(content)
        if not body.endswith(b"}}"):
            raise InvalidArgument(f"params of {type(params).__name__} become no JSON object (PARAMS_ERROR)")
        set_field(self, "body", body)

    @property
    def params(self) -> dict[str, Any]:
        """The payload as JSON values: what receivers will see."""
        params: dict[str, Any] = json.loads(self.body)["params"]
        return params

    @property
    def to_everybody(self) -> bool:
        """True if nobody is named: it is for the application's shared channel."""
        return not (self.users or self.channels or self.to_self)


def _is_model(value: object) -> bool:
    return hasattr(value, "__pydantic_serializer__") and not isinstance(value, type)


def _is_dataclass(value: object) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def _check_name(what: str, name: object, allowed: re.Pattern[str], rule: str) -> None:
    """Refuse a name, and tell the one character that is wrong: it may be a secret in the wrong place."""
    if not isinstance(name, str):
        raise InvalidArgument(f"the {what} must be text, not {type(name).__name__}: {rule}")
    if allowed.fullmatch(name):
        return
    if not name:
        raise InvalidArgument(f"the {what} is empty: {rule}")
    wrong = next(character for character in name if not allowed.fullmatch(character))
    raise InvalidArgument(f"the {what} holds {wrong!r}: {rule}")


def _check_channels(
    channels: str | PublicChannel | Iterable[str | PublicChannel] | None,
) -> tuple[PublicChannel, ...]:
    if channels is None:
        return ()
    if isinstance(channels, bytes) or not isinstance(channels, str | PublicChannel | Iterable):
        raise InvalidArgument(f"channels must be public channels, not {type(channels).__name__}")
    several = (channels,) if isinstance(channels, str | PublicChannel) else tuple(channels)
    if not several:
        raise InvalidArgument("channels is empty: leave it out to publish to the shared channel")
    for channel in several:
        if not isinstance(channel, str | PublicChannel):
            raise InvalidArgument(f"channels must be texts or PublicChannel, not {type(channel).__name__}")
    read = (PublicChannel.parse(channel) if isinstance(channel, str) else channel for channel in several)
    return tuple(dict.fromkeys(read))
