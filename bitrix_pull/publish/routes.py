"""What the ways to publish have in common, and what can be told of them before anything is sent."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import Literal, NamedTuple, Protocol

from bitrix_pull.errors import NoChannel, PullError, RouteUnavailable, Unreachable
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.auth import Mode
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.portal.public_channels import Own, PublicChannels
from bitrix_pull.publish.message import Message
from bitrix_pull.publish.packing import RECEIVERS_MAX, Part, Receiver, Request, Target, encoded, pack, split
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.formats import WireFormat, format_of

RouteName = Literal["rest", "endpoint", "socket"]


class Route(Protocol):
    """One way to publish.

    Attributes:
        name: As the user chooses it.
        confirms: True if the server says that it has accepted a request.
        isolates: Codes of refusals for one receiver's or message's sake: what is refused
            with one of them can be sent again in parts, and all but that one get through.
        pipelined: True if the server carries requests out in the order in which they come,
            so that none has to wait for the answer to another one.
    """

    name: RouteName
    confirms: bool
    isolates: frozenset[int]
    pipelined: bool

    async def plan(self, messages: Sequence[Message]) -> "Plan":
        """Say how messages go out, in order.

        Raises:
            PullError: Not at all; nothing was sent.
        """
        ...

    async def send(self, request: Request, timeout_s: float) -> None:
        """Send one request, once.

        Raises:
            OutcomeUnknown: It may have been published or not.
            PublishBusy: Not published; the server wants to be asked later.
            Unreachable: Never sent.
            PullError: Refused: not published.
        """
        ...


@dataclass(slots=True)
class Plan:
    """The requests that messages take, and the messages that cannot go at all.

    Attributes:
        requests: In the order in which each receiver shall get them. They may be made as
            they are taken.
        failed: What cannot go this way, and why; complete when all requests were taken.
        in_turn: True if the order matters between all requests, whoever their receivers are.
    """

    requests: Iterable[Request] = ()
    failed: list[tuple[Part, PullError]] = field(default_factory=list[tuple[Part, PullError]])
    in_turn: bool = False


class _Audience(NamedTuple):
    """Whom a message names, and mostly others too: it is found once for all of them.

    Attributes:
        targets: Those that have a channel.
        receivers: The same, as they are encoded; None where they are too many for one message.
        absent: Users that have none.
    """

    targets: Sequence[Target]
    receivers: bytes | None
    absent: Sequence[Target]


_AUDIENCES_MAX = 4_096
"""How many to remember: each may be as large as the message's own list of users."""

_users, _to_self = attrgetter("users"), attrgetter("to_self")


class Addresses:
    """Finds the public channels that messages go to, for routes that need them."""

    def __init__(self, channels: PublicChannels, mode: Mode) -> None:
        """Take what is not known yet from the portal."""
        self._channels = channels
        self._mode: Mode = mode

    async def plan(self, messages: Sequence[Message]) -> Plan:
        """Pack messages into requests, with the channel of every receiver.

        Raises:
            PullError: The portal could not be asked; nothing was sent.
        """
        known, denied = await self._look_up(messages)
        own = await self._channels.own() if any(map(_to_self, messages)) else None
        plan = Plan()
        users = {user: (Target(user, channel),) for user, channel in known.items()}
        plan.requests = pack(self._parts(messages, users, denied, own, plan.failed))
        return plan

    async def _look_up(
        self, messages: Sequence[Message]
    ) -> tuple[Mapping[int, PublicChannel], RouteUnavailable | None]:
        """Return the channels of users, and what the portal says if it refuses to tell some."""
        users = tuple(dict.fromkeys(chain.from_iterable(map(_users, messages))))
        try:
            return await self._channels.of_users(users), None
        except RouteUnavailable as error:
            denied = error
        # Some can be reached all the same: oneself at least.
        known: dict[int, PublicChannel] = {}
        for user in users:
            with suppress(RouteUnavailable):
                known |= await self._channels.of_users((user,))
        return known, denied

    def _parts(
        self,
        messages: Sequence[Message],
        users: Mapping[int, tuple[Target]],
        denied: RouteUnavailable | None,
        own: Own | None,
        failed: list[tuple[Part, PullError]],
    ) -> Iterator[Part]:
        """Yield what goes out, and add to ``failed`` what cannot."""
        audiences: dict[object, _Audience] = {}
        for position, message in enumerate(messages):
            named = message.users, message.channels, message.to_self
            try:
                audience = audiences.get(named)
                if audience is None:
                    if len(audiences) >= _AUDIENCES_MAX:
                        audiences.clear()
                    audience = audiences[named] = self._audience(message, users, denied, own)
                if audience.targets:
                    whole = Part(position, message, audience.targets, audience.receivers)
                    if whole.fits:
                        yield whole
                    else:
                        yield from split(whole)
            except PullError as error:
                failed.append((unaddressed(position, message), error))
                continue
            if audience.absent:
                missed = Part(position, message, audience.absent)
                failed.append((missed, NoChannel(f"{missed} was not sent: there is no channel")))

    def _audience(
        self,
        message: Message,
        users: Mapping[int, tuple[Target]],
        denied: RouteUnavailable | None,
        own: Own | None,
    ) -> "_Audience":
        """Return whom a message names."""
        targets = self._targets(message, users, denied, own)
        absent = [Target(user) for user in message.users if user not in users]
        return _Audience(targets, encoded(targets) if len(targets) <= RECEIVERS_MAX else None, absent)

    def _targets(
        self,
        message: Message,
        users: Mapping[int, tuple[Target]],
        denied: RouteUnavailable | None,
        own: Own | None,
    ) -> Sequence[Target]:
        """Return the receivers that have a channel."""
        if message.to_everybody:
            raise no_shared_channel(self._mode)
        if denied is not None and not users.keys() >= set(message.users):
            raise denied
        targets = [Target(channel, channel) for channel in message.channels]
        targets += [target for user in message.users for target in users.get(user, ())]
        if own is not None and message.to_self:
            if own.channel is None:
                raise RouteUnavailable(
                    "the portal does not tell a public channel of your own", advice=_NAME_YOURSELF
                )
            targets.append(Target(own.channel if own.user is None else own.user, own.channel))
        # A user and that user's channel are one receiver.
        return list({target.key: target for target in targets}.values())


_NAME_YOURSELF = "Name yourself with users=[your id]."


@asynccontextmanager
async def looking_up(deadline: float) -> AsyncGenerator[None]:
    """Give up what must be known before anything can be sent when the deadline has passed.

    Raises:
        Unreachable: It has, or nothing answered. Nothing was published.
    """
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise Unreachable("the portal did not tell in time where to publish to", unsent=True) from None
    except Unreachable as error:
        error.unsent = True
        raise


def own_user(own: Own) -> int:
    """Return the id of the user who publishes.

    Raises:
        RouteUnavailable: The portal does not tell it.
    """
    if own.user is None:
        raise RouteUnavailable("the portal does not tell which user you are", advice=_NAME_YOURSELF)
    return own.user


def unaddressed(position: int, message: Message) -> Part:
    """Return a message that cannot be sent, with its receivers as the caller named them."""
    receivers: list[Receiver] = [*message.users, *message.channels]
    return Part(position, message, [Target(receiver) for receiver in receivers])


def no_shared_channel(mode: Mode) -> RouteUnavailable:
    """Return the error for a message without receivers on a route that needs some."""
    other = "." if mode == "user" else ', or use route="rest".'
    return RouteUnavailable(
        "the shared channel cannot be published to by a client",
        advice=f"Name the receivers with users=[…] or channels=[…]{other}",
    )


def check_rest(config: PullConfig, options: PullOptions, mode: Mode) -> None:
    """Refuse REST to who has no application.

    Raises:
        RouteUnavailable: The text names the route that works here.
    """
    if mode == "user":
        reason = "a webhook has no application whose events it could publish over REST"
        raise _unavailable(reason, config, options, mode)


def check_endpoint(config: PullConfig, options: PullOptions, mode: Mode) -> None:
    """Refuse the endpoint where there is none, or no way to use it.

    Raises:
        RouteUnavailable: The text names the route that works here.
    """
    if reason := _no_endpoint(config):
        raise _unavailable(reason, config, options, mode)


def check_socket(config: PullConfig, options: PullOptions, mode: Mode) -> None:
    """Refuse the socket where it takes no messages.

    Raises:
        RouteUnavailable: The text names the route that works here.
    """
    if reason := _no_socket(config, options):
        raise _unavailable(reason, config, options, mode)


def route_without_rest(config: PullConfig) -> RouteName:
    """Return the route for who cannot use REST."""
    return "socket" if format_of(config.server.version, protobuf=True) is WireFormat.JSONRPC else "endpoint"


def _unavailable(reason: str, config: PullConfig, options: PullOptions, mode: Mode) -> RouteUnavailable:
    if mode == "application":
        advice = 'Use route="rest", which reaches users=[…] and the shared channel.'
    else:
        advice = way_past_rest(config, options)
    return RouteUnavailable(reason, advice=advice)


def way_past_rest(config: PullConfig, options: PullOptions) -> str:
    """Return what to advise who cannot use REST."""
    if not _no_endpoint(config):
        return 'Use route="endpoint".'
    if not _no_socket(config, options):
        return 'Use route="socket".'
    return "Use an application's token and users=[…], and with them REST: nothing else works here."


def _no_endpoint(config: PullConfig) -> str:
    """Return why the endpoint cannot be used; "" if it can."""
    version = config.server.version
    if version not in (0, 4):
        return f"a push server of version {version} offers no publish endpoint"
    if config.server.publish_enabled and config.publish_url is None:
        return "the portal names no publish endpoint"
    return _no_publishing(config)


def _no_socket(config: PullConfig, options: PullOptions) -> str:
    version = config.server.version
    match format_of(version, protobuf=options.protobuf):
        case WireFormat.JSONRPC:
            return ""
        case WireFormat.PROTOBUF:
            return _no_publishing(config)
        case _:
            # In text mode the server silently ignores what a client sends (protocol §7).
            return (
                f"a push server of version {version} takes no messages over the socket"
                " unless it is spoken to in protobuf"
            )


def _no_publishing(config: PullConfig) -> str:
    if not config.server.publish_enabled:
        return "publishing by clients is switched off on this portal (server.publish_enabled)"
    private = config.channels.private
    if private is None or not (private.public_id or ":" in private.id):
        return "the publisher has no public channel, which the push server asks for"
    return ""
