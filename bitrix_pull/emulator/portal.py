"""The portal: users, tokens and channels, and the events that its backend sends (protocol §2, §3, §5)."""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal

from bitrix_pull.emulator import json_values
from bitrix_pull.emulator.channels import (
    CHANNEL_LIFE_S,
    Audience,
    ChannelBook,
    Owner,
    PortalChannel,
    Signer,
    derive,
)
from bitrix_pull.emulator.clock import machine_time
from bitrix_pull.emulator.faults import PortalFaults
from bitrix_pull.emulator.history import MAX_EXPIRY_S, NO_ADDITIONS, Additions
from bitrix_pull.emulator.journal import Journal
from bitrix_pull.emulator.jwt import JwtSigner
from bitrix_pull.emulator.offline_queue import OfflineQueue
from bitrix_pull.emulator.php import as_php_writes
from bitrix_pull.emulator.push_server import CLIENT_PUBLISH_PATH, SUBSCRIBE_PATHS, PushServer
from bitrix_pull.emulator.records import Deals
from bitrix_pull.emulator.rest_limits import RestLimits
from bitrix_pull.emulator.tokens import Tokens
from bitrix_pull.events import BACKEND_SENDER, Sender

Scheme = Literal["http", "https"]

REVISION_WEB = 19
REVISION_MOBILE = 3
TOKEN_LIFE_S = 3_600.0
STATUS_EXPIRY_S = 120
REFRESH_TOKEN_LIFE_S = 180 * 86_400.0
CODE_LIFE_S = 30.0

# Not UTC, so that who overlooks the offset is found out.
_TIME_ZONE = timezone(timedelta(hours=3))


@dataclass(slots=True, frozen=True)
class Notification:
    """A mobile notification that ``pull.application.push.add`` took."""

    users: Sequence[int]
    text: str
    avatar: str


@dataclass(slots=True, frozen=True)
class TokenRequest:
    """A request to the OAuth endpoint.

    Attributes:
        at: When it was answered (unix).
        granted: False if it was refused.
    """

    at: float
    granted: bool


class Portal:
    """A portal with one application installed. Every positive number is the id of a user.

    The attributes may be changed while it runs.

    Attributes:
        admins: Ids of the users with administrator rights.
        inactive: Ids of the users who were dismissed: they have no channels, and events to
            them are taken and go nowhere.
        last_active: When each user was last active (unix), as ``pull.api.user.getLastSeen``
            tells it.
        application_scope: What the application may do.
        webhook_scope: What inbound webhooks may do.
        application_name: Without one, no notification is taken.
        push_configured: False: the portal answers that Push & Pull is not configured.
        server_time_in_config: Some portals tell their time there, some do not.
        public_channels_in_config: Some portals name the user's own there, which is the
            portal-wide one whatever the configuration is for; those on a shared push
            server do not. Before version 4 there is ``false`` in its place.
        clock_offset_s: How far its clock is ahead of the push server's. What it tells and
            what expires on it goes by its own.
        is_older: It announces replaced channels as portals did some years ago: always
            "reconnect", and the new channel for all but the private ones of an application.
        limits: How many REST calls it takes.
        faults: How it misbehaves.
        client_id: The application's id on the OAuth server.
        client_secret: The application's secret there.
        member_id: The portal's lasting key.
        address: Host and port at which it is served.
        scheme: "https" where all is served over TLS.
        push_address: Host and port of its push server; "" for the same.
        push_client_id: Its id on a push server in shared mode; "" for that of the first portal there.
        config_timestamp: When an administrator last changed the settings of the push server.
        channels: The book of its channels.
        tokens: Issues its tokens, and knows them again.
        token_life_s: How long an access token that a refresh gives is good for.
        token_requests: The requests for tokens, the oldest first.
        notifications: What was sent to mobile phones, the oldest first.
        features: What the portal's plan includes, as ``feature.get`` tells it: "Y" or "N".
        offline: The queue of its own events, and what the application has bound.
        deals: Its deals.
        static: Results of REST methods that it does not know, by name in lower case.
        journal: What clients did there.
        calls: How often each REST method was called.
        signer: Signs its channels, by the security key that it has.
        jwt: Makes its tokens for a push server of version 5, by the same key.
    """

    def __init__(
        self,
        push: PushServer,
        security_key: str,
        clock: Callable[[], float] = machine_time,
        *,
        channel_life_s: float = CHANNEL_LIFE_S,
        journal: Journal | None = None,
    ) -> None:
        self.admins: set[int] = {1}
        self.inactive: set[int] = set[int]()
        self.last_active: dict[int, float] = {}
        self.application_scope: set[str] = {"crm", "pull", "task", "telephony", "user"}
        self.webhook_scope: set[str] = {"pull", "pull_channel"}
        self.application_name = "Emulated application"
        self.push_configured = True
        self.server_time_in_config = False
        self.public_channels_in_config: bool = push.mode == "personal"
        self.clock_offset_s: float = 0.0
        self.is_older = False
        self.limits: RestLimits = RestLimits(self.now)
        self.faults: PortalFaults = PortalFaults()
        self.client_id: str = f"local.{derive(security_key, 'client id')[:8].hex()}"
        self.client_secret: str = derive(security_key, "client secret").hex()
        self.member_id: str = derive(security_key, "member id")[:16].hex()
        self.address = ""
        self.scheme: Scheme = "http"
        self.push_address: str = ""
        self.push_client_id: str = ""
        self.config_timestamp: int = 1_774_886_062
        self.channels: ChannelBook = ChannelBook(
            security_key, self.now, self._announce, life_s=channel_life_s, version=push.version
        )
        self.tokens: Tokens = Tokens(security_key, self.now)
        self.token_life_s = TOKEN_LIFE_S
        self.token_requests: list[TokenRequest] = []
        self.notifications: list[Notification] = []
        self.features: dict[str, str] = {"rest_offline_extended": "Y", "rest_auth_connector": "Y"}
        self.offline: OfflineQueue = OfflineQueue(self.now)
        self.deals: Deals = Deals(self._deal_changed, lambda: self.atom(self.now()))
        self._actor: tuple[int, str | None] | None = None
        self._queued = Counter[str]()
        self.static: dict[str, Any] = {}
        self.journal: Journal = journal or Journal(clock)
        self.calls: Counter[str] = Counter[str]()
        self._push = push
        # As the administrator set it: the push server may have been given another one since.
        self.signer: Signer = push.signer
        self.jwt: JwtSigner = push.jwt
        self._clock = clock
        self._key = security_key

    # -- who may come in ----------------------------------------------------------

    def issue_token(self, user_id: int = 1, expires_in_s: float | None = None) -> str:
        """Return a new access token of the application; by default it does not expire by itself."""
        return self.tokens.issue("access", user_id, expires_in_s)

    def issue_code(self, user_id: int = 1) -> str:
        """Return a code with which a user has just authorised the application; it works once."""
        return self.tokens.issue("code", user_id, CODE_LIFE_S)

    def issue_refresh_token(self, user_id: int = 1) -> str:
        """Return a new refresh token of the application."""
        return self.tokens.issue("refresh", user_id, REFRESH_TOKEN_LIFE_S)

    def expire_token(self, token: str) -> None:
        """Let a token or code be expired from now on."""
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
        user_params: Mapping[str, Any] | None = None,
        dictionary: Mapping[str, Any] | None = None,
        sender: Sender = BACKEND_SENDER,
    ) -> str:
        """Send an event and return its mid.

        Args:
            command: The kind of event within its module.
            params: Any JSON; it goes out as PHP writes it, an empty map as ``[]``.
            module: The module that sends it.
            users: On the private channels of these users; None: on the shared channel.
            audience: On the channels of the application, or on those of user mode.
            expiry_s: How long the push server keeps it for replay.
            user_params: Belongs into ``params``, which then must be a map. Version 5 sends
                it beside the body, and the client merges; before that the portal does.
            dictionary: The same, and it wins.
            sender: Who it is said to come from.
        """
        owners = [Owner(audience)]
        if users is not None:
            owners = [Owner(audience, user_id) for user_id in users if user_id not in self.inactive]
        # First the channels: an expired one is replaced and announced before the event goes out.
        channels = [self.channels.current(owner).subscribed for owner in owners]
        content: Any = {} if params is None else params
        named = {"user_params": user_params, "dictionary": dictionary}
        additions = {name: value for name, value in named.items() if value}
        if self._push.version < 5:
            for addition in additions.values():
                content = {**content, **addition}
            additions = {}
        return self._publish(channels, module, command, content, expiry_s, additions, sender)

    def send_status(self, user_id: int, status: str = "online") -> str:
        """Tell all who are in user mode that a user is online, away, …, and return the mid."""
        user = {"id": user_id, "status": status, "last_activity_date": self.atom(self.now())}
        params = {"users": {str(user_id): user}}
        return self.send("user_status", params, module="online", audience="user", expiry_s=STATUS_EXPIRY_S)

    def change(
        self, name: str, data: Any = False, *, user_id: int | None = 1, connector: str | None = None
    ) -> None:
        """Let something have happened: queue it for offline handlers, and announce that (protocol §10).

        Args:
            name: The event, such as "ONCRMDEALUPDATE"; in any case.
            data: What it says, such as ``{"FIELDS": {"ID": "7"}}``.
            user_id: Who did it; None: nobody, as an agent.
            connector: The exchange channel of the application through which it was done,
                whose own handlers do not get it; None if somebody else did it.
        """
        for bound, handlers_connector in self.offline.bindings:
            if bound == name.upper() and handlers_connector != connector:
                self.offline.add(bound, data, user_id, handlers_connector)
                self._queued[handlers_connector] += 1
        if self._actor is None:
            self._announce_queued()

    @contextmanager
    def acting(self, user_id: int, connector: str | None) -> Generator[None]:
        """Let what changes meanwhile be the doing of one request, and announce it together."""
        self._actor = (user_id, connector)
        try:
            yield
        finally:
            self._actor = None
            self._announce_queued()

    def _deal_changed(self, event: str, deal_id: int) -> None:
        user_id, connector = self._actor or (1, None)
        self.change(event, {"FIELDS": {"ID": str(deal_id)}}, user_id=user_id, connector=connector)

    def _announce_queued(self) -> None:
        queued, self._queued = self._queued, Counter[str]()
        if queued and not self.faults.lose_announcements:
            counts = [{"connector_id": connector, "count": count} for connector, count in queued.items()]
            self.send("event_offline", counts, module="rest")

    def last_seen_s(self, user_ids: Iterable[int], *, tell_push_server: bool = False) -> dict[int, int]:
        """Return how many seconds ago users were active, as the portal has it; others are missing."""
        found: dict[int, int] = {}
        for user_id in user_ids:
            if user_id in self.last_active:
                found[user_id] = max(0, int(self.now() - self.last_active[user_id]))
                if tell_push_server:
                    self._push.presence.learn(user_id, self.last_active[user_id])
        return found

    # -- what becomes of its channels -----------------------------------------------

    def expire(self, *owners: Owner) -> None:
        """Let channels be at their end, all of them if none are named.

        Nothing is said yet: the first request or event makes the new one of each, and
        announces it on the old one (protocol §3).
        """
        for owner in owners or self.channels.owners:
            self.channels.lapse(owner)

    def rotate(self, *owners: Owner) -> None:
        """Replace channels at once and announce it on the old ones; all of them if none are named."""
        for owner in owners or self.channels.owners:
            self.channels.expire(owner)

    def remove(self, *owners: Owner) -> None:
        """Remove channels as the hourly agent does with those that outlived their end.

        Nothing takes their place before somebody asks. Who still listens on the private
        channel of user mode is told to fetch the configuration; everyone else, on an
        application's private channel too, to go on with the portal's own shared channel
        (protocol §3).
        """
        for removed in self.channels.remove(*owners):
            self._announce_removal(removed)

    def run_agent(self) -> None:
        """Remove the channels that are 13 hours old, as the portal's agent does every hour."""
        self.remove(*self.channels.outlived())

    def restart_notice(self) -> None:
        """Tell everyone who is connected that the push server restarts (``server_restart``)."""
        self._tell_all("server_restart")

    def expire_config(self) -> None:
        """Tell that the configuration is outdated (``config_expire``).

        Before version 5 it goes to the portal-wide shared channel: an application is not
        told (protocol §5).
        """
        if self._push.version >= 5:
            self._tell_all("config_expire")
        else:
            channel = self.channels.current(Owner("user"))
            self._publish([channel.subscribed], "pull", "config_expire", {}, 0)

    def change_settings(self, push: PushServer | None = None, push_address: str | None = None) -> None:
        """Do what it brings that an administrator changes the settings of the push server.

        Args:
            push: The server that the portal uses from now on; None: the same. It must sign
                with the same key.
            push_address: Where it is reached; None: as before.
        """
        self.config_timestamp = max(int(self.now()), self.config_timestamp + 1)
        self.expire_config()
        self._push = push or self._push
        self.push_address = self.push_address if push_address is None else push_address

    def _tell_all(self, command: str) -> None:
        listened = [channel for subscriber in self._push.connections for channel in subscriber.channels]
        if listened:
            # Not kept: who connects later has nothing to do with it.
            self._publish(dict.fromkeys(channel.id.hex() for channel in listened), "pull", command, {}, 0)

    def _announce(self, old: PortalChannel, new: PortalChannel) -> None:
        """Tell who still listens on a channel that was replaced in use (protocol §3)."""
        is_shared = old.owner.user_id is None
        is_applications = old.owner.audience == "application"
        if self.is_older:
            self._tell_expired(old, "reconnect", new if is_shared or not is_applications else None)
        else:
            action = "reconnect" if is_shared and not is_applications else "get_config"
            self._tell_expired(old, action, new if is_shared else None)

    def _announce_removal(self, old: PortalChannel) -> None:
        """Tell who still listens on a channel that the agent has removed (protocol §3)."""
        if self._label(old) == "private":
            self._tell_expired(old, "get_config")
        else:
            self._tell_expired(old, "reconnect", self.channels.current(Owner("user")), by_agent=True)

    def _tell_expired(
        self, old: PortalChannel, action: str, new: PortalChannel | None = None, *, by_agent: bool = False
    ) -> None:
        label = self._label(old)
        channel = {"id": self.signer.sign(old.subscribed), "type": label}
        params: dict[str, Any] = {"action": action, "channel": channel}
        if new is not None:
            params["new_channel"] = {
                "id": self.signer.sign(new.subscribed),
                # The agent reads it from the table as it is, without making ATOM time of it.
                "start": int(new.start) if by_agent else self.atom(new.start),
                "end": self.atom(new.end),
                "type": label,
            }
        self._publish([old.subscribed], "pull", "channel_expire", params, MAX_EXPIRY_S)

    def _label(self, channel: PortalChannel) -> str:
        """Return the type that the portal's table has for a channel."""
        return self.client_id if channel.owner.audience == "application" else _kind(channel)

    def _publish(
        self,
        channels: Iterable[str],
        module: str,
        command: str,
        params: Any,
        expiry_s: int,
        additions: Additions = NO_ADDITIONS,
        sender: Sender = BACKEND_SENDER,
    ) -> str:
        now = self.now()
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
        return self._push.publish(channels, json_values.dumps(body), expiry_s, additions, sender)

    # -- what it tells its clients ------------------------------------------------

    def config(self, audience: Audience, user_id: int) -> dict[str, Any]:
        """Return the result of ``pull.application.config.get`` or ``pull.config.get``."""
        now = self.now()
        version = self._push.version
        poll, websocket = (self.push_url(path) for path in SUBSCRIBE_PATHS)
        websocket = websocket.replace("http", "ws", 1)
        publish = self.push_url(CLIENT_PUBLISH_PATH)
        shared = self.channels.requested(Owner(audience))
        config: dict[str, Any] = {
            "server": {
                "version": version,
                "server_enabled": True,
                "mode": self._push.mode,
                "hostname": self.address,
                "long_polling": poll,
                # Misspelt as on live portals.
                "long_pooling_secure": poll,
                "websocket_enabled": True,
                "websocket": websocket,
                "websocket_secure": websocket,
                "publish_enabled": version >= 4,
                "publish": publish if version >= 4 else "",
                "publish_secure": publish if version >= 4 else "",
                "config_timestamp": self.config_timestamp,
            },
            "api": {"revision_web": REVISION_WEB, "revision_mobile": REVISION_MOBILE},
        }
        channels = {"shared": shared, "private": self.channels.requested(Owner(audience, user_id))}
        for missing in self.faults.next_locked_channels():
            del channels[missing]
        if channels:
            config["channels"] = {kind: self._channel(channel) for kind, channel in channels.items()}
        if self._push.mode == "shared":
            config["clientId"] = self.push_client_id or self._push.client_id
        elif version >= 5:
            config["jwt"] = self.jwt.issue(user_id, shared, issuer=self.address)
            config["exp"] = shared.end
        elif version == 4:
            config["exp"] = int(now) + 86_400
        named = [user_id] if self.public_channels_in_config else []
        public = as_php_writes(self.public_channels("user", named))
        config["publicChannels"] = public if version >= 4 else False
        if self.server_time_in_config:
            config["serverTime"] = self.atom(now)
        return config

    def public_channels(self, audience: Audience, user_ids: Iterable[int]) -> dict[str, Any]:
        """Return the public channels of users, by user id; none before version 4.

        Who is inactive stands there without one, with times of 1970.
        """
        found: dict[str, Any] = {}
        for user_id in user_ids:
            if user_id in self.inactive and self._push.version >= 4:
                found[str(user_id)] = {
                    "user_id": user_id,
                    "public_id": None,
                    "signature": self.signer.sign_public("").signature.hex(),
                    "start": _utc(0),
                    "end": _utc(CHANNEL_LIFE_S),
                }
                continue
            channel = self.channels.current(Owner(audience, user_id))
            if channel.public_id is None:
                continue
            found[str(user_id)] = {
                "user_id": user_id,
                "public_id": channel.public_id,
                "signature": self.signer.sign_public(channel.public_id).signature.hex(),
                "start": self.atom(channel.start),
                "end": self.atom(channel.end),
            }
        return found

    def _channel(self, channel: PortalChannel) -> dict[str, Any]:
        described: dict[str, Any] = {"id": self.signer.sign(channel.subscribed)}
        if channel.public_id is not None:
            public = self.signer.sign_public(channel.public_id)
            described["public_id"] = ".".join(filter(None, (channel.public_id, public.signature.hex())))
        elif channel.owner.user_id is not None:
            described["public_id"] = ""
        return described | {
            "start": self.atom(channel.start),
            "end": self.atom(channel.end),
            "type": _kind(channel),
        }

    @property
    def url(self) -> str:
        """The portal's address: ``http://HOST:PORT``."""
        return f"{self.scheme}://{self.address}"

    def push_url(self, path: str) -> str:
        """Return the address of a path on the push server."""
        return f"{self.scheme}://{self.push_address or self.address}{path}"

    def now(self) -> float:
        """Return the portal's time: unix time."""
        return self._clock() + self.clock_offset_s

    def atom(self, at: float) -> str:
        """Write a time in the portal's way (ATOM)."""
        return datetime.fromtimestamp(at, _TIME_ZONE).isoformat(timespec="seconds")


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _kind(channel: PortalChannel) -> str:
    return "private" if channel.owner.user_id else "shared"
