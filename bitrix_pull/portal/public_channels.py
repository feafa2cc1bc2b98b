"""The public channels of users: where clients publish to, and ask who is online (protocol §2 and §3).

``publicChannels`` of a configuration names the user's portal-wide channel, whatever the mode:
on an application's behalf nothing is ever sent there, as no client of it would get it.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from bitrix_pull.errors import (
    AuthError,
    InvalidArgument,
    InvalidConfig,
    MethodNotFound,
    RouteUnavailable,
)
from bitrix_pull.portal.auth import Mode
from bitrix_pull.portal.models import PublicChannelInfo, PullConfig, read_public_channels
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.redaction import get_logger
from bitrix_pull.wire.channel_ids import PublicChannel

logger: Final = get_logger("portal")

METHOD = "pull.channel.public.list"

USERS_PER_CALL = 1_000
"""So many channels stay well below ``max_rest_bytes``."""

CHANNELS_KEPT = 10_000
"""Channels that are remembered; the oldest go first."""

ENDED_S = 5.0
"""How long a channel is used that the portal tells though its end has come: a portal may be
late with a new one, and is not asked about it for each message."""

RENEWAL_S = 10.0
"""How long after their end the configuration's own channels are still good: its owner asks
for new ones some seconds after that, and listens on these until then."""

LIFE_UNKNOWN_S = 600.0
"""How long a channel is remembered whose end the portal does not tell."""

ABSENT_S = 60.0
"""How long it is remembered that a user, being inactive or unknown, has no channel."""

DENIED_S = 600.0
"""How long a portal that refuses to tell the channels is not asked again."""


@dataclass(slots=True, frozen=True)
class Own:
    """Who publishes: the user behind the credentials, as far as the configuration tells.

    Attributes:
        user: The user's id, or None where the portal does not tell.
        channel: The user's public channel of the client's mode, or None where there is none.
    """

    user: int | None
    channel: PublicChannel | None


@dataclass(slots=True, frozen=True)
class _Known:
    channel: PublicChannel | None
    good_until_unix: float


class PublicChannels:
    """Finds the public channels of users, asking the portal once for each until its end.

    Args:
        rest: Asks the portal.
        mode: Whose channels: those of the application, or those of user mode.
        config: Gives the configuration, which tells the current user's channel.
        now: The portal's clock (unix).
    """

    def __init__(
        self,
        rest: RestClient,
        mode: Mode,
        *,
        config: Callable[[], Awaitable[PullConfig]],
        now: Callable[[], float],
    ) -> None:
        self._rest = rest
        self._mode: Mode = mode
        self._config = config
        self._now = now
        self._known: dict[int, _Known] = {}
        self._asking = asyncio.Lock()
        self._denied_until = -math.inf

    async def of_users(self, users: Sequence[int]) -> dict[int, PublicChannel]:
        """Return the public channels of users; who has none, being inactive or unknown, is left out.

        One request at a time: who asks for users that another call is asking for gets
        that answer. A call that fails or is cancelled leaves nothing behind.

        Raises:
            RouteUnavailable: The credentials may not ask; the text names another way.
            PullError: The portal could not be asked, or its answer is malformed.
        """
        found = self._remembered(users, await self._config())
        if len(found) < len(set(users)):
            async with self._asking:
                config = await self._config()
                found = self._remembered(users, config)
                missing = [user for user in dict.fromkeys(users) if user not in found]
                for start in range(0, len(missing), USERS_PER_CALL):
                    found |= await self._ask(missing[start : start + USERS_PER_CALL])
        return {user: channel for user, channel in found.items() if channel is not None}

    def forget(self, users: Iterable[int]) -> None:
        """Ask anew for the channels of users: the push server did not take what we have."""
        for user in users:
            self._known.pop(user, None)

    async def own(self) -> Own:
        """Return who publishes, as the configuration tells it.

        Raises:
            PullError: There is no configuration yet, and the portal gave none.
        """
        return self._own(await self._config())

    def _own(self, config: PullConfig) -> Own:
        private = config.channels.private
        channel = _parse(private.public_id) if private is not None and private.public_id else None
        named = config.public_channels
        if self._mode == "application":
            return Own(next(iter(named)) if len(named) == 1 else None, channel)
        if channel is not None:
            mine = [user for user, info in named.items() if info.public_id == channel.id.hex()]
            return Own(mine[0] if mine else None, channel)
        # Without a private channel, or its public part, only the user's own is named.
        if len(named) != 1:
            return Own(None, None)
        ((user, info),) = named.items()
        return Own(user, _channel(info))

    def _remembered(self, users: Sequence[int], config: PullConfig) -> dict[int, PublicChannel | None]:
        now = self._now()
        told = self._told(users, config)
        found: dict[int, PublicChannel | None] = {}
        for user in users:
            known = told.get(user) or self._known.get(user)
            if known is not None and now < known.good_until_unix:
                found[user] = known.channel
        return found

    def _told(self, users: Sequence[int], config: PullConfig) -> dict[int, _Known]:
        """Return the channels that the configuration tells, as far as it does."""
        if self._mode == "application":
            own, private = self._own(config), config.channels.private
            if own.user is None or own.channel is None or private is None:
                return {}
            return {own.user: _Known(own.channel, _renewed_at(private.end))}
        named = {user: info for user in users if (info := config.public_channels.get(user)) is not None}
        return {
            user: _Known(channel, _renewed_at(info.end))
            for user, info in named.items()
            if (channel := _channel(info)) is not None
        }

    async def _ask(self, users: Sequence[int]) -> dict[int, PublicChannel | None]:
        if self._now() < self._denied_until:
            raise self._denied()
        params: dict[str, Any] = {"USERS": list(users)}
        if self._mode == "application":
            params["APPLICATION"] = "Y"
        try:
            answer = read_public_channels(await self._rest.call(METHOD, params), METHOD)
        except (AuthError, MethodNotFound) as error:
            self._denied_until = self._now() + DENIED_S
            logger.warning("the portal does not tell the public channels of users: %s", error)
            raise self._denied() from None
        found = {user: _channel(answer[user]) if user in answer else None for user in users}
        self._remember(found, answer)
        return found

    def _remember(
        self, found: Mapping[int, PublicChannel | None], answer: Mapping[int, PublicChannelInfo]
    ) -> None:
        now = self._now()
        for user, channel in found.items():
            end = None if channel is None else answer[user].end
            # Not anew ahead of the end: until then the portal answers the same (protocol §3).
            good_until = now + (ABSENT_S if channel is None else LIFE_UNKNOWN_S)
            if end is not None:
                good_until = max(end.timestamp(), now + ENDED_S)
            # Anew at the end of the line: the oldest are the first to be forgotten.
            self._known.pop(user, None)
            self._known[user] = _Known(channel, good_until)
        while len(self._known) > CHANNELS_KEPT:
            del self._known[next(iter(self._known))]

    def _denied(self) -> RouteUnavailable:
        other = (
            'Use route="rest" (pull.application.event.add), which needs no channels of users.'
            if self._mode == "application"
            else 'Grant the webhook the scope "pull_channel".'
        )
        return RouteUnavailable(
            f"the credentials may not ask for the public channels of users ({METHOD})", advice=other
        )


def _channel(info: PublicChannelInfo) -> PublicChannel | None:
    """Return a user's channel; None for one who has none."""
    if not info.public_id:
        return None
    return _parse(f"{info.public_id}.{info.signature}" if info.signature else info.public_id)


def _renewed_at(end: datetime | None) -> float:
    """Return until when a channel of the configuration is good (unix)."""
    return math.inf if end is None else end.timestamp() + RENEWAL_S


def _parse(text: str) -> PublicChannel:
    try:
        return PublicChannel.parse(text)
    except InvalidArgument:
        raise InvalidConfig("the portal's answer holds a public channel that is none") from None
