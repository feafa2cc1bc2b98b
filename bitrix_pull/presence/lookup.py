"""Asking a push server who is online, as its version allows (protocol §4.2 and §4.3)."""

import asyncio
import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol

from bitrix_pull.errors import MalformedFrame, PresenceUnavailable, PullError, RouteUnavailable
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.portal.public_channels import PublicChannels
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.presence.status import Presence
from bitrix_pull.redaction import get_logger
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.messages import is_object

logger: Final = get_logger("presence")

CALLS_AT_ONCE = 100
"""So many calls are on their way at once: one after the other they would take long, as the
server gathers its answers for 0.4 s."""

_PORTAL_METHOD = "pull.api.user.getLastSeen"

DENIED_S = 600.0
"""How long a portal is not asked again when users were last active: it refuses, or does not know."""

BUSY_S = 30.0
"""The same for one that could not answer."""

_SECONDS = re.compile(r"[0-9]{1,15}")
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
        rest: Asks the portal about users whom a server of version 5 does not know.
    """

    def __init__(
        self,
        server: PushServer,
        *,
        config: Callable[[], Awaitable[PullConfig]],
        public_channels: PublicChannels,
        rest: RestClient,
    ) -> None:
        self.server = server
        self._rest = rest
        self._denied_until = -math.inf
        self._not_before: dict[int, float] = {}
        self._config = config
        self._public_channels = public_channels
        self._watches: Counter[int] = Counter()

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
        answer = _read_map(await self.server.call("getUsersLastSeen", {"userList": list(users)}))
        found = {user: _presence(answer[str(user)]) for user in users if str(user) in answer}
        if len(found) < len(users):
            found |= await self._last_active([user for user in users if user not in found])
        return {user: found.get(user, _OFFLINE) for user in users}

    async def _last_active(self, users: Sequence[int]) -> dict[int, Presence]:
        """Ask the portal about users whom the push server has not seen, if the credentials may.

        The push server learns from the answer, and knows them the next time.
        """
        now = asyncio.get_running_loop().time()
        self._not_before = {user: at for user, at in self._not_before.items() if at > now}
        asked = [user for user in users if user not in self._not_before]
        if not asked or now < self._denied_until:
            return {}
        try:
            answer = await self._rest.call(_PORTAL_METHOD, {"userIds": asked, "sendToQueueSever": True})
            active = _read_map(answer)
        except PullError as error:
            # What the push server does not know is no reason to tell nothing of the others.
            self._denied_until = now + (BUSY_S if error.retryable else DENIED_S)
            logger.info("the portal does not tell when users were last active: %s", error)
            return {}
        # Whoever never was active is not asked for with each look.
        self._not_before |= dict.fromkeys(asked, now + DENIED_S)
        # Numbers may be text. However active they are, they are not connected to the push server.
        return {
            user: Presence(online=False, last_seen_s=int(seconds))
            for user in asked
            if _SECONDS.fullmatch(seconds := str(active.get(str(user))))
        }

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


def _read_map(answer: object) -> Mapping[str, object]:
    """Read an answer by user id; who is not known is missing.

    Raises:
        MalformedFrame: It is no map.
    """
    if answer == []:  # PHP's empty map.
        return {}
    if not is_object(answer):
        raise MalformedFrame("the answer about when users were last seen is no map")
    return answer


def _presence(seconds: object) -> Presence:
    """Read how long ago the server saw a user."""
    if type(seconds) is not int or seconds < 0:
        return _OFFLINE
    return _ONLINE if seconds == 0 else Presence(online=False, last_seen_s=seconds)
