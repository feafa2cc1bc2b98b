"""The channels to subscribe to, their life, and the configuration that they come from."""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from bitrix_pull.errors import InvalidConfig, NotAPortal, PullError
from bitrix_pull.portal.config import ConfigFetcher
from bitrix_pull.portal.models import Channel, PullConfig
from bitrix_pull.redaction import get_logger
from bitrix_pull.wire.channel_ids import channel_key
from bitrix_pull.wire.messages import is_object

logger = get_logger("connection")

LEAD_S = 120.0
"""How long before the earliest end to ask for new channels."""

SPREAD_S = 60.0
"""Up to so much earlier, at random, so that the clients of a portal do not ask all at once."""

AFTER_END_S = (2.0, 5.0)
"""Where the portal kept answering the same channels: how long after their end to ask again."""

SAME_AGAIN_S = (60.0, 75.0)
"""Least and longest wait after an answer that brought nothing new, or none at all."""


TIMER_SLACK_S = 0.01


class ChannelManager:
    """Owns the configuration and decides when the portal is asked for another one.

    The portal answers the same channels until they have expired, whatever it is asked
    (protocol §3). So one request goes out ahead of the earliest end, in case the portal
    renews on request; if it brings the same channels, one more follows just after the end,
    and from then on one a minute at most. All of it by the portal's clock.
    """

    def __init__(self, fetcher: ConfigFetcher, random_source: random.Random | None = None) -> None:
        """Create a manager that has fetched nothing yet."""
        self._fetcher = fetcher
        self._random = random_source or random.Random()
        self._config: PullConfig | None = None
        self._fetching = asyncio.Lock()
        self._expired: set[str] = set()
        self._woken = asyncio.Event()
        # Both in the event loop's time: when to ask, and before when not even if there is cause.
        self._due_at = math.inf
        self._hold_until = -math.inf
        self._warned = False
        # Portal time minus the loop's: neither a wrong nor a jumping local clock does harm.
        self._clock_offset_s: float | None = None

    @property
    def known(self) -> bool:
        """True if the next call of ``config`` needs no request."""
        return self._config is not None and not self._due()

    def portal_now(self) -> float:
        """Return the portal's present time (unix); ours where the portal told none."""
        if self._clock_offset_s is None:
            return time.time()
        return asyncio.get_running_loop().time() + self._clock_offset_s

    def end_at(self) -> float:
        """Return when the first of the channels ends, in the event loop's time."""
        if self._config is None or self._config.earliest_end is None:
            return math.inf
        left_s = self._config.earliest_end.timestamp() - self.portal_now()
        return asyncio.get_running_loop().time() + left_s

    async def config(self) -> PullConfig:
        """Return the configuration, from the portal if need be. One request, whoever asks.

        Raises:
            PullError: There is none yet, and the portal did not give a usable one.
        """
        async with self._fetching:
            if self._config is None:
                return await self._fetch()
            if self._due():
                await self._refresh()
            return self._config

    async def current(self) -> PullConfig:
        """Return the configuration; while its channels are good, no renewal of them is waited for.

        Raises:
            PullError: As ``config`` does.
        """
        if self._config is None or self._expired or asyncio.get_running_loop().time() >= self.end_at():
            return await self.config()
        return self._config

    def refuse(self) -> None:
        """Take note that the configuration is no good any more: ask for another one."""
        if self._config is not None:
            self._expire(_keys(self._config))
            self._woken.set()

    def accepted(self) -> None:
        """Take note that the push server has accepted the channels: they are good until their end."""
        end_in = self.end_at() - asyncio.get_running_loop().time()
        if self._expired and end_in > 0:
            self._expired.clear()
            self._warned = False
            self._hold_until = -math.inf
            self._due_at = asyncio.get_running_loop().time() + self._due_in_s(end_in)

    def expire(self, params: Mapping[str, Any]) -> bool:
        """Take note of a ``channel_expire`` (protocol §5); return True if it is about our channels.

        If it brings the new channel, no request is needed. It may name a channel that was
        replaced long ago, or carry an application's id as its type: only the id counts.
        """
        expired, new = params.get("channel"), params.get("new_channel")
        key = channel_key(str(expired.get("id", ""))) if is_object(expired) else ""
        if self._config is None or key not in _keys(self._config):
            return False
        if params.get("action") == "reconnect" and is_object(new) and self._swap(self._config, key, new):
            logger.info("the push server replaced a channel")
        else:
            self._expire({key})
        self._woken.set()
        return True

    def _expire(self, keys: set[str]) -> None:
        """Plan a request: now if this is news, else not before the portal may be asked again."""
        now = asyncio.get_running_loop().time()
        self._due_at = max(self._hold_until, now) if keys <= self._expired else now
        self._expired |= keys

    async def renewed(self, since: PullConfig) -> None:
        """Wait until there are other channels than in ``since``, asking the portal when they are due.

        Raises:
            PullError: The portal refuses for good to tell the new ones.
        """
        while _same_channels(since, await self.config()):
            self._woken.clear()
            # When the time is up, `config` asks the portal.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(None if math.isinf(self._due_at) else self._due_at):
                    await self._woken.wait()

    def _due(self) -> bool:
        # The event loop may fire a timer a little early; without slack we would spin until it is due.
        return asyncio.get_running_loop().time() + TIMER_SLACK_S >= self._due_at

    async def _refresh(self) -> None:
        """Ask for a configuration while there is one to go on with."""
        try:
            await self._fetch()
        except PullError as error:
            # A portal that was one before may show a page about its maintenance.
            if not error.retryable and not isinstance(error, NotAPortal | InvalidConfig):
                raise
            now = asyncio.get_running_loop().time()
            self._due_at = self._hold_until = now + self._random.uniform(*SAME_AGAIN_S)
            logger.warning("the channels could not be renewed, next attempt in a minute: %s", error)

    async def _fetch(self) -> PullConfig:
        """Make a request and plan the next one."""
        before, overdue = self._config, bool(self._expired)
        config = await self._fetcher.fetch(cache=not overdue)
        loop_now = asyncio.get_running_loop().time()
        now = config.server_time.timestamp() if config.server_time is not None else time.time()
        self._clock_offset_s = now - loop_now
        end_in = math.inf if config.earliest_end is None else config.earliest_end.timestamp() - now
        fresh = before is None or not _same_channels(before, config)
        if end_in <= 0 or (overdue and not fresh):
            # Such channels are no good, but nobody has better ones: ask now and then.
            self._hold_until = self._due_at = loop_now + self._random.uniform(*SAME_AGAIN_S)
            if not self._warned and end_in <= 0:
                logger.warning("the portal answers channels that have expired; it is asked once a minute")
            self._warned = end_in <= 0
        else:
            self._warned = False
            self._hold_until = -math.inf
            self._due_at = loop_now + self._due_in_s(end_in)
        self._expired &= _keys(config)
        self._config = config
        return config

    def _due_in_s(self, end_in: float) -> float:
        """Return the seconds until the request ahead of the end, or just after it if that is past."""
        if end_in > LEAD_S + SPREAD_S:
            return end_in - LEAD_S - self._random.uniform(0, SPREAD_S)
        return end_in + self._random.uniform(*AFTER_END_S)

    def _swap(self, config: PullConfig, key: str, new: Mapping[str, Any]) -> bool:
        """Put a new channel in the place of an expired one, if it is one."""
        try:
            channel = Channel.model_validate(new)
        except ValidationError:
            return False
        private = config.channels.private
        place = "private" if private is not None and channel_key(private.id) == key else "shared"
        channels = config.channels.model_copy(update={place: channel})
        # The public part is unknown until the portal is asked for it.
        public = {} if place == "private" else config.public_channels
        self._config = config.model_copy(update={"channels": channels, "public_channels": public})
        end = self._config.earliest_end
        if end is not None:
            loop_now = asyncio.get_running_loop().time()
            self._due_at = loop_now + self._due_in_s(max(end.timestamp() - self.portal_now(), 0.0))
        return True


def _keys(config: PullConfig) -> set[str]:
    """Return what the subscription rests on: the channels, and the token that may stand for them."""
    return {channel_key(channel_id) for channel_id in config.channel_ids} | ({config.jwt} - {""})


def _same_channels(one: PullConfig, other: PullConfig) -> bool:
    return one.channel_ids == other.channel_ids and one.jwt == other.jwt
