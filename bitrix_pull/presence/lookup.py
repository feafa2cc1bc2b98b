"""Asking a push server who is online, as its version allows (protocol §4.2 and §4.3)."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from bitrix_pull.errors import MalformedFrame, PresenceUnavailable, RouteUnavailable
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.portal.public_channels import PublicChannels
from bitrix_pull.presence.status import Presence
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.messages import is_object

CALLS_AT_ONCE = 100
"""So many calls are on their way at once: one after the other they would take long, as the
server gathers its answers for 0.4 s."""

_ONLINE = Presence(online=True, last_seen_s=0)
_OFFLINE = Presence(online=False)

_VERSION_WITH_CHANNELS = 4
_VERSION_WITH_USERS = 5


class PushServer(Protocol):
    """The push server, as far as it is connected."""

    @property
    def stream(self) -> object | None:
        """The open connection, to be told from others only; None if there is none."""
        ...

    async def online(self, channels: Sequence[PublicChannel], /) -> Collection[bytes]:
        """Ask version 4 to which of these channels anybody is connected."""
        ...

    async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
        """Call a method of version 5."""
        ...

    async def live_by_another(self, stream: object | None, /) -> None:
        """Wait until it is connected in another way than that."""
        ...


class PresenceLookup:
    """Asks who is online, and to be told of changes.

    Args:
        server: The open connection.
        config: Gives the configuration, which names the server's version.
        public_channels: Finds the channels by which version 4 knows users.
    """

    def __init__(
        self,
        server: PushServer,
        *,
        config: Callable[[], Awaitable[PullConfig]],
        public_channels: PublicChannels,
    ) -> None:
        self.server = server
        self._config = config
        self._public_channels = public_channels
        self._watches = Counter[int]()

    async def of_users(self, users: Sequence[int]) -> dict[int, Presence]:
        """Return what the server tells of each user; see ``PullClient.online``."""
        if await self.tells_changes():
            return await self._last_seen(users)
        try:
            channels = await self._public_channels.of_users(users)
        except RouteUnavailable as refused:
            raise PresenceUnavailable(
                "this push server knows users by their public channels, and the portal does not tell those",
                advice='Grant the scope "pull_channel" or use a webhook that has it.',
            ) from refused
        online = await self.server.online(list(channels.values())) if channels else ()
        return {
            user: _ONLINE if user in channels and channels[user].id in online else _OFFLINE for user in users
        }

    async def _last_seen(self, users: Sequence[int]) -> dict[int, Presence]:
        answer: object = await self.server.call("getUsersLastSeen", {"userList": list(users)})
        if is_object(answer):
            return {user: _presence(answer.get(str(user))) for user in users}
        if answer == []:  # PHP's empty map.
            return dict.fromkeys(users, _OFFLINE)
        raise MalformedFrame("the push server's answer to getUsersLastSeen is no map")

    async def tells_changes(self) -> bool:
        """True if the server sends an event when a user comes or goes, False if it must be asked.

        Raises:
            PresenceUnavailable: It is too old for either.
        """
        # Where the portal names no version, it counts as 4.
        version = (await self._config()).server.version or _VERSION_WITH_CHANNELS
        if version < _VERSION_WITH_CHANNELS:
            raise PresenceUnavailable(
                f"a push server of version {version} does not tell who is online",
                advice="Those of version 4 and up do.",
            )
        return version >= _VERSION_WITH_USERS

    # -- being told of changes, by version 5 --------------------------------------

    async def subscribe(self, users: Collection[int]) -> None:
        """Be told over the present connection when one of them comes or goes."""
        await self._call_for_each("subscribeStatusChange", users)

    def hold(self, users: Collection[int]) -> None:
        """Count a watch of these users."""
        self._watches.update(users)

    async def release(self, users: Collection[int]) -> None:
        """Count that watch off, and hear no more of those whom no other one watches."""
        self._watches.subtract(users)
        unwatched = [user for user in users if self._watches[user] <= 0]
        for user in unwatched:
            del self._watches[user]
        if unwatched and await self.tells_changes():
            await self._call_for_each("unsubscribeStatusChange", unwatched)

    async def _call_for_each(self, method: str, users: Collection[int]) -> None:
        waiting = list(users)
        while waiting:
            some, waiting = waiting[:CALLS_AT_ONCE], waiting[CALLS_AT_ONCE:]
            try:
                async with asyncio.TaskGroup() as calls:
                    for user in some:
                        calls.create_task(self._call(method, user))
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None

    async def _call(self, method: str, user: int) -> None:
        await self.server.call(method, {"userId": user})


def _presence(seconds: object) -> Presence:
    """Read how long ago the server saw a user; it says nothing of who never came."""
    if type(seconds) is not int or seconds < 0:
        return _OFFLINE
    return Presence(online=True, last_seen_s=0) if seconds == 0 else Presence(False, seconds)
