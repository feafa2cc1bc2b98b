"""The channels to subscribe to, their life, and the configuration that they come from."""

import asyncio
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from bitrix_pull.connection.backoff import CHANCE, Backoff
from bitrix_pull.connection.disconnects import Wait
from bitrix_pull.connection.recovery import MAINTENANCE_WAIT_S, passing_wait
from bitrix_pull.connection.stores import ConfigStore
from bitrix_pull.errors import ChannelsEnded, IncompleteConfig, PullError
from bitrix_pull.events import PortalTrouble
from bitrix_pull.portal.config import ConfigFetcher
from bitrix_pull.portal.models import PullConfig, read_channel
from bitrix_pull.portal.portal_clock import PortalClock
from bitrix_pull.redaction import get_logger
from bitrix_pull.telemetry import log_fields
from bitrix_pull.wire.channel_ids import channel_key
from bitrix_pull.wire.messages import is_object

logger: Final = get_logger("connection")

LEAD_S = 120.0
"""How long before the earliest end to ask for new channels."""

SPREAD_S = 60.0
"""Up to so much earlier, at random, so that the clients of a portal do not ask all at once."""

AFTER_END_S = (1.0, 3.0)
"""Where the portal kept answering the same channels: how long after their end to ask again."""

SAME_AGAIN_S = (60.0, 75.0)
"""Least and longest wait after an answer that brought nothing new, or none at all, while the
present channels are still good."""

LOOK_S = (3_300.0, 3_900.0)
"""Least and longest time between two looks at the configuration: nobody tells an application
that an administrator has changed the push server's settings (protocol §5)."""

RENEWAL_S = 10.0
"""How long the portal may take to tell new channels before those that have ended count as lost."""

CLOCK_SLACK_S = 10.0
"""How much earlier than by the portal's clock a channel is taken to have ended, where that is safer."""

TIMER_SLACK_S = 0.01
"""The event loop may fire a timer a little early; without slack we would spin until it is due."""


class ChannelManager:
    """Owns the configuration and decides when the portal is asked for another one.

    The portal answers the same channels until they have expired, whatever it is asked
    (protocol §3). So one request goes out ahead of the earliest end, in case the portal
    renews on request; if it brings the same channels, one more follows just after the end.
    From then on the channels are no good, and the portal is asked by the short ladder.
    Beside that its settings are looked at once an hour. All of it by the portal's clock,
    and at once where this machine has slept or its clock was set.

    Where there is a store for it, the configuration is left there until the portal is to be asked
    anyway, and whoever follows the stream next begins with it and asks when this one would have.

    Attributes:
        clock: The portal's clock.
        trouble: Why there is no better configuration than the present one; None if all is well.
    """

    def __init__(
        self,
        fetcher: ConfigFetcher,
        clock: PortalClock,
        announce: Callable[[PortalTrouble], None],
        random_source: random.Random | None = None,
        configs: ConfigStore | None = None,
    ) -> None:
        """Create a manager that has fetched nothing yet; ``announce`` hears of trouble."""
        self.clock = clock
        self.trouble: PullError | None = None
        self._fetcher = fetcher
        self._announce = announce
        self._configs = configs
        self._random = random_source or CHANCE
        self._backoff = Backoff(self._random)
        self._config: PullConfig | None = None
        self._fetching = asyncio.Lock()
        # The channels that were replaced, and since when; of those that are gone, the last ones.
        self._expired: dict[str, float] = {}
        self._refused = False
        self._bell: asyncio.Future[None] | None = None
        # By the portal's clock: when to ask, before when not even if there is cause, and when we did.
        self._due_unix = math.inf
        self._hold_until_unix = -math.inf
        self._asked_unix = -math.inf

    # -- what they are ----------------------------------------------------------

    @property
    def known(self) -> bool:
        """True if the next call of ``config`` needs no request."""
        return self._config is not None and not self.due

    @property
    def end_at(self) -> datetime | None:
        """When the first of the present channels ends; None where that is not known."""
        return None if self._config is None else self._config.earliest_end

    def replaced(self, since: PullConfig) -> bool:
        """True if there is a configuration that calls for another stream than ``since`` did."""
        return self._config is not None and _differ(since, self._config)

    def ended_for_s(self, config: PullConfig) -> float:
        """Return for how long nothing has come by its channels: they are past their end, or were replaced.

        Returns:
            Seconds; negative until then.
        """
        now = self.clock.now()
        # The portal may have told a later end of the same channels.
        told = config if self._config is None or self.replaced(config) else self._config
        ends = [end for key, end in self._expired.items() if key in _keys(told)]
        return now - min((_end_unix(told), *ends))

    def ended(self, config: PullConfig) -> bool:
        """True if nothing more comes by its channels."""
        return self.ended_for_s(config) >= 0

    def bring_all(self, config: PullConfig) -> bool:
        """True if all that is for this client comes by its channels, even if a clock is a little off."""
        return config.complete and self.ended_for_s(config) < -CLOCK_SLACK_S

    @property
    def due(self) -> bool:
        """True if it is time to ask the portal."""
        return self.clock.now() + TIMER_SLACK_S >= self._due_unix

    @property
    def asked_ago_s(self) -> float:
        """Seconds since the portal last answered, or failed to."""
        return self.clock.now() - self._asked_unix

    @property
    def due_in_s(self) -> float:
        """Seconds until it is time to ask the portal."""
        return max(self._due_unix - self.clock.now(), 0.0)

    async def config(self) -> PullConfig:
        """Return the configuration, from the portal if need be. One request, whoever asks.

        Raises:
            PullError: There is none yet, and the portal did not give a usable one; or it
                refuses for good.
        """
        async with self._fetching:
            if self._config is None or self.due:
                return await self._ask()
            return self._config

    async def current(self) -> PullConfig:
        """Return the configuration; while its channels are good, no renewal of them is waited for.

        Raises:
            PullError: As ``config`` does.
        """
        if self._config is None or self._refused or self.ended(self._config):
            return await self.config()
        return self._config

    async def until_next(self, ending: asyncio.Future[Any], within_s: float | None = None) -> None:
        """Wait until they are near their end or at it, until the portal is to be asked, or for other ones.

        Args:
            ending: Ends the wait when it is done.
            within_s: How long to wait at most.
        """
        if self.due:
            return
        now, end = self.clock.now(), self._end()
        moments = [at for at in (end - CLOCK_SLACK_S, end, end + RENEWAL_S, self._due_unix) if at > now]
        if within_s is not None:
            moments.append(now + within_s)
        self._bell = asyncio.get_running_loop().create_future()
        ending.add_done_callback(self._ring)
        try:
            jumped = await self.clock.until(min(moments, default=math.inf), self._bell)
        finally:
            ending.remove_done_callback(self._ring)
        if jumped and self.clock.now() - self._asked_unix >= SAME_AGAIN_S[0]:
            logger.info("this machine has slept, or its clock was set: looking at the configuration")
            self.look()

    # -- what is said of them -----------------------------------------------------

    def refuse(self) -> None:
        """Take note that the configuration was of no use: ask for another one."""
        if self._config is not None:
            self._refused = True
            self._due_unix = max(self._hold_until_unix, self.clock.now())
            self._ring()

    def look(self) -> None:
        """Take note that there is cause to look at the configuration, which may be good all the same."""
        self._due_unix = min(self._due_unix, max(self._hold_until_unix, self.clock.now()))
        self._ring()

    def accepted(self) -> None:
        """Take note that the push server has accepted the channels: no word of theirs is to be kept."""
        if self._refused and self.trouble is None:
            self._hold_until_unix = -math.inf
            self._plan()
        self._refused = False

    def expire(self, params: Mapping[str, Any]) -> bool:
        """Take note of a ``channel_expire`` (protocol §5); return True if it is about our channels.

        It may name a channel that was replaced long ago, or carry an application's id as its
        type: only the id counts. What it brings as the new channel may be another one than
        it seems (protocol §3): only the shared channel of user mode is swapped, and for all
        else the portal is asked.
        """
        expired, new = params.get("channel"), params.get("new_channel")
        key = channel_key(str(expired.get("id", ""))) if is_object(expired) else ""
        if self._config is None or key not in _keys(self._config):
            return False
        if params.get("action") == "reconnect" and is_object(new) and self._swap(self._config, key, new):
            logger.info("the push server replaced the shared channel")
        else:
            self._due_unix = self._expired[key] = self.clock.now()
        self._ring()
        return True

    def _swap(self, config: PullConfig, key: str, new: Mapping[str, Any]) -> bool:
        """Put a new shared channel in the place of an expired one, if it is one."""
        shared = config.channels.shared
        if self._fetcher.mode != "user" or shared is None or channel_key(shared.id) != key:
            return False
        channel = read_channel(new)
        if channel is None or channel.type != "shared":
            return False
        self._config = replace(config, channels=replace(config.channels, shared=channel))
        self._plan()
        return True

    def _ring(self, _: object = None) -> None:
        """Let ``until_next`` return."""
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    # -- asking the portal ----------------------------------------------------------

    async def ask(self) -> None:
        """Ask the portal, if that is due; where it fails for a while, ``trouble`` says so.

        Raises:
            PullError: There is no configuration yet, or the portal refuses for good.
        """
        async with self._fetching:
            if self._config is None or self.due:
                await self._ask()

    async def _ask(self) -> PullConfig:
        if self._config is None and (inherited := await self._inherited()) is not None:
            return inherited
        present = self._config
        is_overdue = present is not None and (self._refused or self.ended(present))
        try:
            told = await self._fetcher.fetch(cache=not is_overdue)
        except PullError as error:
            wait = passing_wait(error)
            if present is None or wait is None or (self._refused and wait is Wait.MAINTENANCE):
                raise
            self._in_trouble(error, wait)
            return present
        finally:
            self._asked_unix = self.clock.now()
        if told.server_time is not None:
            self.clock.learn(told.server_time.timestamp())
        config = self._take(told)
        await self._leave(config)
        return config

    async def _inherited(self) -> PullConfig | None:
        """Begin with what was left by whoever followed this stream before; None if it is not good any more.

        Raises:
            PullError: It is good, and the portal does not do what has to come before.
        """
        if self._configs is None:
            return None
        try:
            whose = await self._fetcher.whose()
            found = await self._configs.load(whose) if whose else None
        except PullError as error:
            logger.info("the portal is asked, as no configuration could be taken over: %s", error)
            return None
        if found is None:
            return None
        config, good_for_s = found
        now = _now_of(config)
        if now is None or good_for_s <= 0 or _end_unix(config) - now <= LEAD_S:
            return None
        await self._fetcher.inherit(config)
        self.clock.learn(now)
        self._config = config
        self._plan()
        self._due_unix = min(self._due_unix, self.clock.now() + good_for_s)
        return config

    async def _leave(self, config: PullConfig) -> None:
        """Leave it for whoever follows this stream next, if it is as good as it can be."""
        if self._configs is None or self.trouble is not None or self._hold_until_unix > self.clock.now():
            return
        now = self.clock.now()
        good_for_s = min(self._due_unix, self._end() - LEAD_S) - now
        if good_for_s <= 0:
            return
        try:
            if whose := await self._fetcher.whose():
                left = replace(config, server_time=datetime.fromtimestamp(now, UTC))
                await self._configs.save(whose, left, good_for_s)
        except PullError as error:
            logger.info("the configuration is not left for whoever is next: %s", error)

    def _take(self, told: PullConfig) -> PullConfig:
        """Go on with what the portal has told, and plan the next question."""
        present, refused = self._config, self._refused
        self._refused = False
        if present is None:
            config, is_fresh = told, True
        else:
            config = self._completed(told, present)
            # A token is another one in every answer: until it is due, that is nothing new.
            is_due = refused or self.ended_for_s(present) >= -(LEAD_S + SPREAD_S)
            is_fresh = _differ(present, config, tokens=is_due)
            if is_fresh:
                self._expired = {key: at for key, at in self._expired.items() if key in _keys(present)}
            elif config.jwt != present.jwt:
                config = present
        self._config = config
        # The portal vouches for what it tells, whatever was said before.
        for key in _keys(told):
            self._expired.pop(key, None)
        if self.ended(config):
            self._in_trouble(ChannelsEnded("the portal tells channels that have ended by its own clock"))
        elif not told.complete:
            self._in_trouble(_incomplete(told))
        else:
            self.trouble = None
            self._backoff.reset()
            self._plan()
        if refused and not is_fresh:
            self._hold_until_unix = self.clock.now() + self._random.uniform(*SAME_AGAIN_S)
        return config

    def _completed(self, told: PullConfig, present: PullConfig) -> PullConfig:
        """Fill in what the portal has left out, as far as what was there is still good."""
        if told.complete:
            return told
        missing = {
            place: channel
            for place in ("private", "shared")
            if getattr(told.channels, place) is None
            and (channel := getattr(present.channels, place)) is not None
            and channel_key(channel.id) not in self._expired
            and (channel.end is None or self.clock.now() < channel.end.timestamp())
        }
        return replace(told, channels=replace(told.channels, **missing))

    def _in_trouble(self, error: PullError, wait: Wait = Wait.LADDER) -> None:
        """Take note of what keeps the configuration from being good, or better, and plan to ask again."""
        is_news = self.trouble is None or str(self.trouble) != str(error)
        self.trouble = error
        if wait is Wait.MAINTENANCE:
            delay_s = self._random.uniform(*MAINTENANCE_WAIT_S)
        elif self._config is None or not self.bring_all(self._config):
            delay_s = self._backoff.next_delay_s(answered=wait is Wait.LADDER)
        else:
            delay_s = self._random.uniform(*SAME_AGAIN_S)
        now, end = self.clock.now(), self._end()
        if now < end and wait is not Wait.MAINTENANCE:
            # Not later than if all had been well.
            delay_s = min(delay_s, end - now + self._random.uniform(*AFTER_END_S))
        self._due_unix = now + delay_s
        if wait is Wait.MAINTENANCE:
            self._hold_until_unix = self._due_unix
        if is_news:
            logger.warning(
                "%s; the portal is asked again in %.0f s",
                str(error).removesuffix("."),
                delay_s,
                extra=log_fields(retry_in_s=delay_s, error=error),
            )
            self._announce(PortalTrouble(error, delay_s))

    def _end(self) -> float:
        return math.inf if self._config is None else _end_unix(self._config)

    def _plan(self) -> None:
        """Plan the next question: ahead of the end, or just after it if that is past; or a look before."""
        now, end = self.clock.now(), self._end()
        if end - now > LEAD_S + SPREAD_S:
            renewal = end - LEAD_S - self._random.uniform(0, SPREAD_S)
        else:
            renewal = end + self._random.uniform(*AFTER_END_S)
        self._due_unix = min(renewal, now + self._random.uniform(*LOOK_S))


def _keys(config: PullConfig) -> set[str]:
    return {channel_key(channel_id) for channel_id in config.channel_ids}


def _end_unix(config: PullConfig) -> float:
    end = config.earliest_end
    return math.inf if end is None else end.timestamp()


def _now_of(config: PullConfig) -> float | None:
    return None if config.server_time is None else config.server_time.timestamp()


def _differ(one: PullConfig, other: PullConfig, *, tokens: bool = True) -> bool:
    """True if two configurations are not of the same stream."""
    return _stream(one) != _stream(other) or (tokens and one.jwt != other.jwt)


def _stream(config: PullConfig) -> tuple[object, ...]:
    """Return what a stream rests on, but for the token that may stand for its channels."""
    server = config.server
    return (
        config.channel_ids,
        config.client_id,
        config.websocket_url,
        config.polling_url,
        server.version,
        server.mode,
        server.config_timestamp,
    )


def _incomplete(config: PullConfig) -> IncompleteConfig:
    places = [place for place in ("private", "shared") if getattr(config.channels, place) is None]
    return IncompleteConfig(
        f"the portal has left out the {' and the '.join(places)} channel: what is sent there does not arrive"
    )
