"""What ``pull.config.get`` and ``pull.application.config.get`` answer, as values (protocol §2).

In how many ways portals write the same thing ends here; see ``php_fields``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from bitrix_pull.errors import IncompleteConfig, InvalidConfig, NotConfigured
from bitrix_pull.portal.php_fields import Fields, Problems, numbered
from bitrix_pull.wire.channel_ids import channel_key

# Plain dataclasses: all clients have these, and few of them any other use for pydantic.


@dataclass(slots=True, frozen=True)
class Channel:
    """A channel of the portal to listen on.

    Attributes:
        id: What to subscribe with, signature included. Opaque, and a secret.
        public_id: What others publish to it with, signature included; "" where there is none.
        start: From when it is valid.
        end: Until when it is valid. Asking for the configuration before that answers the
            same channel (protocol §3).
        type: As the portal names it: "private", "shared".
    """

    id: str = field(repr=False)
    public_id: str = field(default="", repr=False)
    start: datetime | None = None
    end: datetime | None = None
    type: str = ""


@dataclass(slots=True, frozen=True)
class Channels:
    """The channels of the application or user."""

    private: Channel | None = None
    shared: Channel | None = None


@dataclass(slots=True, frozen=True)
class PublicChannelInfo:
    """Where a user can be reached by publishing.

    Attributes:
        user_id: The user's id on the portal.
        public_id: The channel as 32 hex digits, without signature; "" for a user who has none,
            being inactive or unknown to the portal, whatever the other fields say.
        signature: The push server's signature in hex; "" on a server without a key.
        start: From when the channel is valid.
        end: Until when the channel is valid.
    """

    user_id: int = 0
    public_id: str = field(default="", repr=False)
    signature: str = field(default="", repr=False)
    start: datetime | None = None
    end: datetime | None = None


@dataclass(slots=True, frozen=True)
class ServerConfig:
    """The push server: its version, its addresses, and what is switched on.

    Attributes:
        version: Chooses the wire format; 0 where the portal does not say.
        mode: "personal" (the portal's own server) or "shared" (needs ``clientId``).
        config_timestamp: When an administrator last changed this (unix).
    """

    version: int = 0
    server_enabled: bool = True
    mode: str = ""
    hostname: str = ""
    long_polling: str = ""
    long_polling_secure: str = ""
    websocket_enabled: bool = True
    websocket: str = ""
    websocket_secure: str = ""
    publish_enabled: bool = True
    publish: str = ""
    publish_secure: str = ""
    config_timestamp: int = 0


@dataclass(slots=True, frozen=True)
class ApiRevisions:
    """The revisions of the client API that the portal expects; 0 where it does not say."""

    revision_web: int = 0
    revision_mobile: int = 0


@dataclass(slots=True, frozen=True)
class PullConfig:
    """All that is needed to connect.

    Attributes:
        public_channels: By user id; holds the current user at least, where not empty.
        client_id: The portal's id on a push server in shared mode, else "".
        jwt: Takes the place of the channel ids where not "".
        exp: When the configuration itself ends.
        server_time: The portal's clock when it answered (UTC), or None where unknown.
        former_ids: Channels from before that are listened on once more; see ``with_former``.
    """

    server: ServerConfig = ServerConfig()
    channels: Channels = Channels()
    public_channels: Mapping[int, PublicChannelInfo] = field(default_factory=dict[int, PublicChannelInfo])
    client_id: str = field(default="", repr=False)
    jwt: str = field(default="", repr=False)
    exp: datetime | None = None
    api: ApiRevisions = ApiRevisions()
    server_time: datetime | None = None
    former_ids: tuple[str, ...] = field(default=(), repr=False)

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
        return (*self.channel_ids, *self.former_ids)

    def with_former(self, ids: Iterable[str]) -> "PullConfig":
        """Return it with channels from before, whose last messages were not received yet.

        A connection may carry old and new ones at once (protocol §3).
        """
        own = {channel_key(own_id) for own_id in self.channel_ids}
        return replace(self, former_ids=tuple(former for former in ids if channel_key(former) not in own))

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
    problems = Problems()
    config = _config(Fields(result, problems))
    _refuse(problems, method)
    if not config.server.server_enabled:
        raise NotConfigured("the portal says server.server_enabled: false", method=method)
    if not config.channel_ids and not config.jwt:
        raise IncompleteConfig(
            "the configuration has no channel: channels.private, channels.shared and jwt are all missing",
            method=method,
        )
    return config


def write_config(config: PullConfig) -> dict[str, Any]:
    """Return a configuration as JSON values that ``read_config`` reads. It is a secret."""
    channels = {"private": config.channels.private, "shared": config.channels.shared}
    return {
        "server": asdict(config.server),
        "channels": {place: _written(channel) for place, channel in channels.items() if channel is not None},
        "publicChannels": {str(user): _written(info) for user, info in config.public_channels.items()},
        "clientId": config.client_id,
        "jwt": config.jwt,
        "exp": _moment(config.exp),
        "api": asdict(config.api),
        "serverTime": _moment(config.server_time),
    }


def _written(channel: Channel | PublicChannelInfo) -> dict[str, Any]:
    return {**asdict(channel), "start": _moment(channel.start), "end": _moment(channel.end)}


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def read_public_channels(result: Any, method: str = "") -> dict[int, PublicChannelInfo]:
    """Read what ``pull.channel.public.list`` answers: channels by user id.

    Raises:
        InvalidConfig: A field is malformed.
    """
    problems = Problems()
    channels = _public_channels(numbered(result, problems))
    _refuse(problems, method)
    return channels


def read_channel(value: Any) -> Channel | None:
    """Read a channel; None if it is none, or malformed."""
    problems = Problems()
    channel = _channel(Fields(value, problems))
    return None if str(problems) else channel


def _refuse(problems: Problems, method: str) -> None:
    if where := str(problems):
        raise InvalidConfig(f"the portal's answer is malformed {where}", method=method)


def _config(told: Fields) -> PullConfig:
    channels, api = told.map("channels"), told.map("api")
    return PullConfig(
        server=_shared(_server(told.map("server"))),
        channels=Channels(_channel(channels.map("private")), _channel(channels.map("shared"))),
        public_channels=_public_channels(told.numbered("publicChannels")),
        client_id=told.text("clientId"),
        jwt=told.text("jwt"),
        exp=told.time("exp"),
        api=ApiRevisions(api.number("revision_web"), api.number("revision_mobile")),
        server_time=told.time("serverTime"),
    )


def _server(told: Fields) -> ServerConfig:
    return ServerConfig(
        version=told.number("version"),
        server_enabled=told.flag("server_enabled", default=True),
        mode=told.text("mode"),
        hostname=told.text("hostname"),
        long_polling=told.text("long_polling"),
        # Live portals misspell it.
        long_polling_secure=told.text("long_polling_secure", "long_pooling_secure"),
        websocket_enabled=told.flag("websocket_enabled", default=True),
        websocket=told.text("websocket"),
        websocket_secure=told.text("websocket_secure"),
        publish_enabled=told.flag("publish_enabled", default=True),
        publish=told.text("publish"),
        publish_secure=told.text("publish_secure"),
        config_timestamp=told.number("config_timestamp"),
    )


@lru_cache(maxsize=64)
def _shared(server: ServerConfig) -> ServerConfig:
    """Return the same object for all portals that name the same push server."""
    return server


def _channel(told: Fields) -> Channel | None:
    """Read a channel; one without id, and so nothing to subscribe to, is none."""
    channel_id = told.text("id")
    if not channel_id:
        return None
    return Channel(
        channel_id, told.text("public_id"), told.time("start"), told.time("end"), told.text("type")
    )


def _public_channels(told: Iterable[tuple[int, Fields]]) -> dict[int, PublicChannelInfo]:
    return {
        user: PublicChannelInfo(
            channel.number("user_id"),
            channel.text("public_id"),
            channel.text("signature"),
            channel.time("start"),
            channel.time("end"),
        )
        for user, channel in told
    }
