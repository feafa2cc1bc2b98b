"""What ``pull.config.get`` and ``pull.application.config.get`` answer, as values (protocol §2).

Portals differ in how they write the same thing: ``[]``, ``false``, ``""`` or null for what is
not there, ``"Y"`` or 1 for true, numbers as text, ``long_pooling_secure``. All of that ends
here. Every field may be missing, and unknown ones are ignored.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, TypeVar, cast
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from bitrix_pull.errors import IncompleteConfig, InvalidConfig, NotConfigured
from bitrix_pull.wire.channel_ids import channel_key
from bitrix_pull.wire.messages import is_nothing, is_object


def _php_map(value: Any) -> Any:
    """PHP writes a map with the keys 0, 1, … as a list, and an empty one in many ways."""
    if is_nothing(value):
        return {}
    if isinstance(value, list | dict) and len(cast("Collection[object]", value)) > MAP_MAX:
        raise ValueError(f"there are over {MAP_MAX} of them")
    if isinstance(value, list):
        value = dict(enumerate(cast("list[object]", value)))
    return _without_nothing(value)


def _without_nothing(value: Any, flags: Collection[str] = ()) -> Any:
    """Leave out the fields of a map that hold nothing; of ``flags`` those that hold no false either."""
    if not isinstance(value, Mapping):
        return value
    fields = cast("Mapping[object, object]", value)
    return {
        name: item
        for name, item in fields.items()
        if not is_nothing(item) or (name in flags and (item is False or item == ""))
    }


def _php_flag(value: Any) -> Any:
    """PHP's ``false`` as text is empty."""
    return False if value == "" else value


def _php_time(value: Any) -> Any:
    """PHP writes 0, false or nothing for a time that is not set."""
    return value or None


_T = TypeVar("_T")
_NAME = re.compile(r"[A-Za-z_]{1,24}|\d{1,20}")

MAP_MAX = 10_000
"""Public channels in one answer at most: each takes a kilobyte."""

PROBLEMS_MAX = 100
"""Malformed fields up to which the first is named."""

Number = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""What other programs can read too."""

Flag = Annotated[bool, BeforeValidator(_php_flag)]
Time = Annotated[AwareDatetime | None, BeforeValidator(_php_time)]


class _PortalModel(BaseModel):
    # Inputs hold channel ids and signatures, so pydantic's own errors must not show them.
    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        extra="ignore",
        coerce_numbers_to_str=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _take_nothing_for_missing(cls, value: Any) -> Any:
        """Tell by the kind of a field, not by its name, what stands for nothing in it."""
        flags = [name for name, field in cls.model_fields.items() if field.annotation is bool]
        return {} if is_nothing(value) else _without_nothing(value, flags)


class Channel(_PortalModel):
    """A channel of the portal to listen on.

    Attributes:
        id: What to subscribe with, signature included. Opaque, and a secret.
        public_id: What others publish to it with, signature included; "" where there is none.
        start: From when it is valid.
        end: Until when it is valid. Asking for the configuration before that answers the
            same channel (protocol §3).
        type: As the portal names it: "private", "shared".
    """

    id: str = Field(min_length=1, repr=False)
    public_id: str = Field(default="", repr=False)
    start: Time = None
    end: Time = None
    type: str = ""


def _channel_with_id(value: Any) -> Any:
    """Take a channel without id, and so nothing to subscribe to, for none."""
    return None if is_object(value) and is_nothing(value.get("id")) else value


_ChannelIfAny = Annotated[Channel | None, BeforeValidator(_channel_with_id)]


class Channels(_PortalModel):
    """The channels of the application or user."""

    private: _ChannelIfAny = None
    shared: _ChannelIfAny = None


class PublicChannelInfo(_PortalModel):
    """Where a user can be reached by publishing.

    Attributes:
        user_id: The user's id on the portal.
        public_id: The channel as 32 hex digits, without signature; "" for a user who has none,
            being inactive or unknown to the portal, whatever the other fields say.
        signature: The push server's signature in hex; "" on a server without a key.
        start: From when the channel is valid.
        end: Until when the channel is valid.
    """

    user_id: Number = 0
    public_id: str = Field(default="", repr=False)
    signature: str = Field(default="", repr=False)
    start: Time = None
    end: Time = None


PublicChannels = Annotated[dict[Number, PublicChannelInfo], BeforeValidator(_php_map)]


class ServerConfig(_PortalModel):
    """The push server: its version, its addresses, and what is switched on.

    Attributes:
        version: Chooses the wire format; 0 where the portal does not say.
        mode: "personal" (the portal's own server) or "shared" (needs ``clientId``).
        config_timestamp: When an administrator last changed this (unix).
    """

    version: Number = 0
    server_enabled: Flag = True
    mode: str = ""
    hostname: str = ""
    long_polling: str = ""
    long_polling_secure: str = Field(
        default="", validation_alias=AliasChoices("long_polling_secure", "long_pooling_secure")
    )
    websocket_enabled: Flag = True
    websocket: str = ""
    websocket_secure: str = ""
    publish_enabled: Flag = True
    publish: str = ""
    publish_secure: str = ""
    config_timestamp: Number = 0


class ApiRevisions(_PortalModel):
    """The revisions of the client API that the portal expects; 0 where it does not say."""

    revision_web: Number = 0
    revision_mobile: Number = 0


class PullConfig(_PortalModel):
    """All that is needed to connect.

    Attributes:
        public_channels: By user id; holds the current user at least, where not empty.
        client_id: The portal's id on a push server in shared mode, else "".
        jwt: Takes the place of the channel ids where not "".
        exp: When the configuration itself ends.
        server_time: The portal's clock when it answered (UTC), or None where unknown.
    """

    server: ServerConfig = ServerConfig()
    channels: Channels = Channels()
    public_channels: PublicChannels = Field(
        default_factory=dict[int, PublicChannelInfo], validation_alias="publicChannels"
    )
    client_id: str = Field(default="", validation_alias="clientId", repr=False)
    jwt: str = Field(default="", repr=False)
    exp: Time = None
    api: ApiRevisions = ApiRevisions()
    server_time: Time = Field(default=None, validation_alias="serverTime")
    _former_ids: tuple[str, ...] = PrivateAttr(default=())

    @property
    def websocket_url(self) -> str | None:
        """The address for WebSocket, over TLS if there is one; None if it is switched off."""
        if not self.server.websocket_enabled:
            return None
        return self.server.websocket_secure or self.server.websocket or None

    @property
    def polling_url(self) -> str | None:
        """The address for long polling, over TLS if there is one."""
        return self.server.long_polling_secure or self.server.long_polling or None

    @property
    def publish_url(self) -> str | None:
        """The publish endpoint, over TLS if there is one; None if it is switched off."""
        if not self.server.publish_enabled:
            return None
        return self.server.publish_secure or self.server.publish or None

    @property
    def push_server(self) -> str:
        """``HOST:PORT`` of the push server, by which it is told from another one; "" where there is none."""
        try:
            parts = urlsplit(self.websocket_url or self.polling_url or "")
            port = parts.port or (443 if parts.scheme in ("wss", "https") else 80)
        except ValueError:
            return ""
        return f"{parts.hostname}:{port}" if parts.hostname else ""

    @property
    def channel_ids(self) -> tuple[str, ...]:
        """The ids to subscribe with, in the order that the push server expects."""
        return tuple(channel.id for channel in self._listened())

    @property
    def subscribed_ids(self) -> tuple[str, ...]:
        """The ids to subscribe with: those of its channels, and the former ones that it was given."""
        return (*self.channel_ids, *self._former_ids)

    def with_former(self, ids: Iterable[str]) -> "PullConfig":
        """Return it with channels from before, whose last messages were not received yet.

        A connection may carry old and new ones at once (protocol §3).
        """
        own = {channel_key(own_id) for own_id in self.channel_ids}
        config = self.model_copy()
        config._former_ids = tuple(former for former in ids if channel_key(former) not in own)
        return config

    def reaches(self, ids: Iterable[str]) -> bool:
        """True if these channels are among those to subscribe with."""
        return {*map(channel_key, ids)} <= {*map(channel_key, self.subscribed_ids)}

    @property
    def complete(self) -> bool:
        """True if it names all that there is to listen on; see ``IncompleteConfig``."""
        return bool(self.jwt) or (self.channels.private is not None and self.channels.shared is not None)

    @property
    def earliest_end(self) -> datetime | None:
        """When the first of the channels, or the configuration, ends."""
        ends = [self.exp, *(channel.end for channel in self._listened())]
        return min((end for end in ends if end is not None), default=None)

    def _listened(self) -> list[Channel]:
        both = (self.channels.private, self.channels.shared)
        return [channel for channel in both if channel is not None]


_CONFIG = TypeAdapter(PullConfig)
_PUBLIC_CHANNELS: TypeAdapter[dict[int, PublicChannelInfo]] = TypeAdapter(PublicChannels)


def read_config(result: Any, method: str = "") -> PullConfig:
    """Read a configuration as the portal answers it.

    Args:
        result: What stands under ``result``.
        method: The REST method that gave it, for error texts.

    Raises:
        InvalidConfig: A field is malformed.
        IncompleteConfig: There is nothing to subscribe to.
        NotConfigured: The push server is switched off.
    """
    config = _read(_CONFIG, result, method)
    if not config.server.server_enabled:
        raise NotConfigured("the portal says server.server_enabled: false", method=method)
    if not config.channel_ids and not config.jwt:
        raise IncompleteConfig(
            "the configuration has no channel: channels.private, channels.shared and jwt are all missing",
            method=method,
        )
    return config


def read_public_channels(result: Any, method: str = "") -> dict[int, PublicChannelInfo]:
    """Read what ``pull.channel.public.list`` answers: channels by user id.

    Raises:
        InvalidConfig: A field is malformed.
    """
    return _read(_PUBLIC_CHANNELS, result, method)


def _read(adapter: TypeAdapter[_T], result: Any, method: str) -> _T:
    try:
        return adapter.validate_python(result)
    except ValidationError as error:
        if error.error_count() > PROBLEMS_MAX:
            # The list alone would take a kilobyte for each.
            text = f"the portal's answer is malformed in {error.error_count()} places"
            raise InvalidConfig(text, method=method) from None
        problems = [
            # Without pydantic's mention of our classes.
            f"{_portal_path(problem['loc'])}: {problem['msg'].partition(' or instance of ')[0]}"
            for problem in error.errors(include_url=False, include_input=False, include_context=False)
        ]
    more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
    raise InvalidConfig(f"the portal's answer is malformed at {problems[0]}{more}", method=method)


def _portal_path(location: tuple[int | str, ...]) -> str:
    """Return a field's place as the portal names it: ``channels.private.end``."""
    names = [str(part) for part in location if part != "[key]"]
    # What is neither a field's name nor a user id may be anything, a channel id too.
    return ".".join(name if _NAME.fullmatch(name) else "…" for name in names) or "result"
