"""Publishing by each of the ways that a portal offers (protocol §7)."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, get_args

from bitrix_pull.errors import (
    InvalidArgument,
    InvalidReceiver,
    InvalidSignature,
    PublicChannelRequired,
    PublishRefused,
    PublishTooLarge,
    PullError,
    Unreachable,
)
from bitrix_pull.options import PullOptions, check_number
from bitrix_pull.portal.auth import Mode
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.portal.public_channels import PublicChannels
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.publish import routes
from bitrix_pull.publish.by_endpoint import EndpointRoute
from bitrix_pull.publish.by_rest import RestRoute
from bitrix_pull.publish.by_socket import CallRoute, FrameRoute
from bitrix_pull.publish.message import Message
from bitrix_pull.publish.order import in_order
from bitrix_pull.publish.packing import Request
from bitrix_pull.publish.receipt import Ledger, Receipt
from bitrix_pull.publish.retrying import Retry, deliver
from bitrix_pull.wire.formats import WireFormat, format_of

Route = Literal["auto", "rest", "endpoint", "socket"]

AT_ONCE = 4
"""Requests of one call that may be under way together."""

PIPELINED_MAX = 500
"""Calls over the socket that may wait for their answers together."""

ISOLATING_MAX = 64
"""Refused requests of one call that are tried again in parts, to find out whose fault it is."""


class Publishing(Protocol):
    """Publishes what users want published."""

    async def publish(
        self, messages: Iterable[Message], *, route: Route, retry: Retry, timeout_s: float | None
    ) -> Receipt:
        """Send messages; see ``PullClient.publish_many``."""
        ...


class Publisher:
    """Sends messages by REST, by the publish endpoint or over the open socket."""

    def __init__(
        self,
        *,
        rest: RestClient,
        mode: Mode,
        config: Callable[[], Awaitable[PullConfig]],
        refuse_config: Callable[[], None],
        public_channels: PublicChannels,
        require_connection: Callable[[], object],
        send: Callable[[bytes], Awaitable[None]],
        call: Callable[[str, Mapping[str, Any]], Awaitable[Any]],
        options: PullOptions,
    ) -> None:
        """Create a publisher.

        Args:
            rest: For calls to the portal; its HTTP session posts to the endpoint too.
            mode: What the credentials stand for.
            config: Gives the configuration, fetched if need be.
            refuse_config: Told that the push server does not take the channels in it.
            public_channels: Knows where users can be reached.
            require_connection: Raises NotRunning if there can be no open connection.
            send: Sends a frame over the open connection; see ``Connection.send``.
            call: Calls a method of a JSON-RPC server over the open connection.
            options: Deadlines and limits.
        """
        addresses = routes.Addresses(public_channels, mode)
        self._mode: Mode = mode
        self._config = config
        self._refuse_config = refuse_config
        self._channels = public_channels
        self._require_connection = require_connection
        self._options = options
        self._rest = RestRoute(rest, mode, public_channels, config, options)
        self._endpoint = EndpointRoute(rest.http, mode, addresses, config, options)
        self._frames = FrameRoute(mode, addresses, config, send, options)
        self._calls = CallRoute(mode, public_channels, call)

    async def publish(
        self, messages: Iterable[Message], *, route: Route, retry: Retry, timeout_s: float | None
    ) -> Receipt:
        """Send messages; see ``PullClient.publish_many``."""
        messages = checked(messages, route, retry, timeout_s)
        loop = asyncio.get_running_loop()
        end = None if timeout_s is None else loop.time() + timeout_s
        ledger = Ledger(messages)
        async with routes.looking_up(end or loop.time() + self._options.rest_timeout_s):
            way = await self._choose(route, messages)
            plan = await way.plan(messages)

        async def send(request: Request) -> None:
            await self._send(request, way, ledger, end=end, retry=retry)

        # What is repeated must not come after what was sent behind it.
        pipelined = way.pipelined and retry == "never"
        at_once = PIPELINED_MAX if pipelined else 1 if plan.in_turn else AT_ONCE
        await in_order(plan.requests, send, at_once=at_once, pipelined=pipelined)
        for part, error in plan.failed:
            ledger.failed([part], error)
        return ledger.receipt(way.name, confirms=way.confirms)

    async def _choose(self, route: Route, messages: Sequence[Message]) -> routes.Route:
        """Return the way to go.

        Raises:
            NotRunning: It is the socket, and the client is not started.
        """
        if route == "auto":
            route = await self._best(messages)
        if route == "rest":
            return self._rest
        if route == "endpoint":
            return self._endpoint
        with contextlib.suppress(Unreachable):  # Between two connections: it may be back in time.
            self._require_connection()
        version = (await self._config()).server.version
        calls = format_of(version, protobuf=True) is WireFormat.JSONRPC
        return self._calls if calls else self._frames

    async def _best(self, messages: Sequence[Message]) -> Route:
        if self._mode == "application" and not any(message.channels for message in messages):
            return "rest"
        return routes.route_without_rest(await self._config())

    async def _send(
        self, request: Request, way: routes.Route, ledger: Ledger, *, end: float | None, retry: Retry
    ) -> None:
        """Get a request through, or as much of it as the server takes, and write down what became of it."""
        loop = asyncio.get_running_loop()

        async def attempt(timeout_s: float) -> None:
            ledger.requests += 1
            await way.send(request, timeout_s)

        try:
            deadline = loop.time() + self._options.rest_timeout_s if end is None else end
            await deliver(attempt, deadline=deadline, retry=retry)
        except PullError as error:
            halves = request.halves() if ledger.isolations < ISOLATING_MAX else None
            if halves is None or not _is_about_a_part(error, way):
                ledger.failed(request.parts, error)
                self._doubt_channels(error, request)
                return
            # Nothing of what is refused was published: the innocent shall get through.
            ledger.isolations += 1
            for half in halves:
                await self._send(half, way, ledger, end=end, retry=retry)
        else:
            ledger.accepted(request)

    def _doubt_channels(self, error: PullError, request: Request) -> None:
        """Ask the portal anew for what the push server does not take: its key may be another now."""
        if isinstance(error, PublicChannelRequired):
            self._refuse_config()
        if isinstance(error, PublicChannelRequired | InvalidReceiver | InvalidSignature):
            self._channels.forget(request.users)


def _is_about_a_part(error: PullError, way: routes.Route) -> bool:
    if isinstance(error, PublishTooLarge):
        return bool(way.isolates)
    return isinstance(error, PublishRefused) and error.code in way.isolates


def checked(
    messages: Iterable[Message], route: Route, retry: Retry, timeout_s: float | None
) -> list[Message]:
    """Return the messages, if ``publish`` can be called so.

    Raises:
        InvalidArgument: It cannot.
    """
    if not isinstance(messages, Iterable):
        raise InvalidArgument(f"messages must be several Message objects, not {type(messages).__name__}")
    checked = list(messages)
    for message in checked:
        if not isinstance(message, Message):
            raise InvalidArgument(f"messages must be Message objects, not {type(message).__name__}")
    if route not in get_args(Route):
        raise InvalidArgument(f'route {route!r:.40} is unknown: use "auto", "rest", "endpoint" or "socket"')
    if retry not in get_args(Retry):
        raise InvalidArgument(f'retry {retry!r:.40} is unknown: use "never" or "safe"')
    if timeout_s is not None:
        check_number("timeout", timeout_s)
    return checked
