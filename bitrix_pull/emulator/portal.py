"""The portal: users, tokens and channels, and the events that its backend sends (protocol §2, §3, §5)."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import orjson

from bitrix_pull.emulator.channels import (
    CHANNEL_LIFE_S,
    Audience,
    ChannelBook,
    Owner,
    PortalChannel,
    derive,
)
from bitrix_pull.emulator.history import MAX_EXPIRY_S
from bitrix_pull.emulator.php import as_php_writes
from bitrix_pull.emulator.push_server import CLIENT_PUBLISH_PATH, SUBSCRIBE_PATHS, PushServer
from bitrix_pull.emulator.tokens import Tokens

REVISION_WEB = 19
REVISION_MOBILE = 3
TOKEN_LIFE_S = 3_600.0
REFRESH_TOKEN_LIFE_S = 180 * 86_400.0

# Not UTC, so that who overlooks the offset is found out.
_TIME_ZONE = timezone(timedelta(hours=3))


@dataclass(slots=True, frozen=True)
class Notification:
    """A mobile notification that ``pull.application.push.add`` took."""

    users: Sequence[int]
    text: str
    avatar: str


class Portal:
    """A portal with one application installed. Every positive number is the id of a user.

    The attributes may be changed while it runs.

    Attributes:
        admins: Ids of the users with administrator rights.
        application_scope: What the application may do.
        webhook_scope: What inbound webhooks may do.
        application_name: Without one, no notification is taken.
        push_configured: False: the portal answers that Push & Pull is not configured.
        server_time_in_config: Some portals tell their time there, some do not.
        client_id: The application's id on the OAuth server.
        client_secret: The application's secret there.
        member_id: The portal's lasting key.
        address: Host and port at which it is served.
        channels: The book of its channels.
        tokens: Issues its tokens, and knows them again.
        notifications: What was sent to mobile phones, the oldest first.
        calls: How often each REST method was called.
    """

    def __init__(
        self,
        push: PushServer,
        security_key: str,
        clock: Callable[[], float] = time.time,
        *,
        channel_life_s: float = CHANNEL_LIFE_S,
    ) -> None:
        self.admins = {1}
        self.application_scope = {"pull"}
        self.webhook_scope = {"pull", "pull_channel"}
        self.application_name = "Emulated application"
        self.push_configured = True
        self.server_time_in_config = False
        self.client_id = f"local.{derive(security_key, 'client id')[:8].hex()}"
        self.client_secret = derive(security_key, "client secret").hex()
        self.member_id = derive(security_key, "member id")[:16].hex()
        self.address = ""
        self.channels = ChannelBook(security_key, clock, self._announce, life_s=channel_life_s)
        self.tokens = Tokens(security_key, clock)
        self.notifications: list[Notification] = []
        self.calls = Counter[str]()
        self._push = push
        self._clock = clock
        self._key = security_key

    # -- who may come in ----------------------------------------------------------

    def issue_token(self, user_id: int = 1, expires_in_s: float | None = None) -> str:
        """Return a new access token of the application; by default it does not expire by itself."""
        return self.tokens.issue("access", user_id, expires_in_s)

    def issue_refresh_token(self, user_id: int = 1) -> str:
        """Return a new refresh token of the application."""
        return self.tokens.issue("refresh", user_id, REFRESH_TOKEN_LIFE_S)

    def expire_token(self, token: str) -> None:
        """Let an access or refresh token be expired from now on."""
        self.tokens.expire(token)

    def webhook_code(self, user_id: int = 1) -> str:
        """Return the secret part of a user's inbound webhook."""
        return derive(self._key, "webhook", user_id)[:8].hex()

    # -- what its backend sends ---------------------------------------------------

    def send(
        self,
        command: str,
        params: Any = None,
        *,
        module: str = "application",
        users: Iterable[int] | None = None,
        audience: Audience = "application",
        expiry_s: int = MAX_EXPIRY_S,
    ) -> str:
        """Send an event and return its mid.

        Args:
            command: The kind of event within its module.
            params: Any JSON; it goes out as PHP writes it, an empty map as ``[]``.
            module: The module that sends it.
            users: On the private channels of these users; None: on the shared channel.
            audience: On the channels of the application, or on those of user mode.
            expiry_s: How long the push server keeps it for replay.
        """
        owners = [Owner(audience)] if users is None else [Owner(audience, user_id) for user_id in users]
        # First the channels: an expired one is replaced and announced before the event goes out.
        channels = [self.channels.current(owner) for owner in owners]
        return self._publish(channels, module, command, {} if params is None else params, expiry_s)

    def _announce(self, old: PortalChannel, new: PortalChannel) -> None:
        """Tell who still listens on an expired channel what to do (protocol §5)."""
        is_application = old.owner.audience == "application"
        kind = self.client_id if is_application else _kind(old)
        params: dict[str, Any] = {"action": "reconnect", "channel": {"id": old.id, "type": kind}}
        if not (is_application and old.owner.user_id):
            params["new_channel"] = {
                "id": self._push.signer.sign(new.subscribed),
                "start": self.atom(new.start),
                "end": self.atom(new.end),
                "type": kind,
            }
        self._publish([old], "pull", "channel_expire", params, MAX_EXPIRY_S)

    def _publish(
        self, channels: Sequence[PortalChannel], module: str, command: str, params: Any, expiry_s: int
    ) -> str:
        now = self._clock()
        body = {
            "module_id": module,
            "command": command,
            "params": as_php_writes(params),
            "extra": {
                "server_time": self.atom(now),
                "server_time_unix": now,
                "server_name": self.address,
                "revision_web": REVISION_WEB,
                "revision_mobile": REVISION_MOBILE,
            },
        }
        return self._push.publish([channel.subscribed for channel in channels], orjson.dumps(body), expiry_s)

    # -- what it tells its clients ------------------------------------------------

    def config(self, audience: Audience, user_id: int) -> dict[str, Any]:
        """Return the result of ``pull.application.config.get`` or ``pull.config.get``."""
        now = self._clock()
        poll, websocket = (self.push_url(path) for path in SUBSCRIBE_PATHS)
        websocket = websocket.replace("http", "ws", 1)
        publish = self.push_url(CLIENT_PUBLISH_PATH)
        config: dict[str, Any] = {
            "server": {
                "version": 4,
                "server_enabled": True,
                "mode": "personal",
                "hostname": self.address,
                "long_polling": poll,
                # Misspelt as on live portals.
                "long_pooling_secure": poll,
                "websocket_enabled": True,
                "websocket": websocket,
                "websocket_secure": websocket,
                "publish_enabled": True,
                "publish": publish,
                "publish_secure": publish,
                "config_timestamp": 1_774_886_062,
            },
            "api": {"revision_web": REVISION_WEB, "revision_mobile": REVISION_MOBILE},
            "channels": {
                "shared": self._channel(self.channels.current(Owner(audience))),
                "private": self._channel(self.channels.current(Owner(audience, user_id))),
            },
            "exp": int(now) + 86_400,
            "publicChannels": self.public_channels(audience, [user_id]),
        }
        if self.server_time_in_config:
            config["serverTime"] = self.atom(now)
        return config

    def public_channels(self, audience: Audience, user_ids: Iterable[int]) -> dict[str, Any]:
        """Return the public channels of users, by user id."""
        found: dict[str, Any] = {}
        for user_id in user_ids:
            channel = self.channels.current(Owner(audience, user_id))
            assert channel.public_id is not None
            found[str(user_id)] = {
                "user_id": user_id,
                "public_id": channel.public_id,
                "signature": self._push.signer.sign_public(channel.public_id).signature.hex(),
                "start": self.atom(channel.start),
                "end": self.atom(channel.end),
            }
        return found

    def _channel(self, channel: PortalChannel) -> dict[str, Any]:
        described: dict[str, Any] = {"id": self._push.signer.sign(channel.subscribed)}
        if channel.public_id is not None:
            public = self._push.signer.sign_public(channel.public_id)
            described["public_id"] = ".".join(filter(None, (channel.public_id, public.signature.hex())))
        return described | {
            "start": self.atom(channel.start),
            "end": self.atom(channel.end),
            "type": _kind(channel),
        }

    def push_url(self, path: str) -> str:
        """Return the address of a path on the push server."""
        return f"http://{self.address}{path}"

    def now(self) -> float:
        """Return the portal's time: unix time."""
        return self._clock()

    def atom(self, at: float) -> str:
        """Write a time in the portal's way (ATOM)."""
        return datetime.fromtimestamp(at, _TIME_ZONE).isoformat(timespec="seconds")


def _kind(channel: PortalChannel) -> str:
    return "private" if channel.owner.user_id else "shared"
