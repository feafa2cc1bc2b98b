"""Publishing by each of the ways that a portal offers (protocol §7)."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bitrix_pull.errors import (
    AccessDenied,
    InsufficientScope,
    InvalidArgument,
    MethodNotFound,
    PublishError,
    PublishRefused,
    PublishTooLarge,
    RouteUnavailable,
)
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.addresses import require_tls
from bitrix_pull.portal.auth import Mode
from bitrix_pull.portal.http import HttpSession
from bitrix_pull.portal.models import PublicChannelInfo, PullConfig, read_public_channels
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.publish.batches import REQUEST_MAX_BYTES, pack, spread
from bitrix_pull.publish.message import Message
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.close_codes import describe, read_refusal
from bitrix_pull.wire.json_text import encode_json
from bitrix_pull.wire.urls import publication_url

Route = Literal["auto", "rest", "endpoint", "socket"]

EXPIRY_S = 86_400
"""How long the push server keeps a message for replay; what REST uses too (protocol §2)."""

CALL_MAX_BYTES = REQUEST_MAX_BYTES - 100
"""What the params of a JSON-RPC call may take, so that the whole keeps the limit of a request."""

_VERSION_WITH_ENDPOINT = 4
_VERSION_WITH_JSONRPC = 5


@dataclass(slots=True, frozen=True)
class Receipt:
    """What became of a publish call.

    Attributes:
        route: The way it went: "rest", "endpoint" or "socket".
        messages: Messages that were sent; a long list of users takes several.
        requests: Requests that it took.
        confirmed: True if the server said that it accepted them; the socket never answers.
            Accepted does not mean delivered.
    """

    route: str
    messages: int
    requests: int
    confirmed: bool


class Publisher:
    """Sends checked messages by REST, by the publish endpoint or over the open socket."""

    def __init__(
        self,
        *,
        rest: RestClient,
        mode: Mode,
        config: Callable[[], Awaitable[PullConfig]],
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
            require_connection: Raises NotRunning if there is no open connection.
            send: Sends a frame over the open connection.
            call: Calls a method of a JSON-RPC server over the open connection.
            options: Deadlines and limits.
        """
        self._rest = rest
        self._mode = mode
        self._config = config
        self._require_connection = require_connection
        self._send = send
        self._call = call
        self._options = options

    async def publish(self, message: Message, route: Route) -> Receipt:
        """Send one message; see ``PullClient.publish``."""
        match route:
            case "auto":
                if self._mode == "application":
                    return await self._by_rest(message)
                return await self._by_endpoint(message)
            case "rest":
                return await self._by_rest(message)
            case "endpoint":
                return await self._by_endpoint(message)
            case "socket":
                return await self._by_socket(message)
            case _:
                raise InvalidArgument(
                    f'route {route!r:.40} is unknown: use "auto", "rest", "endpoint" or "socket"'
                )

    async def _by_rest(self, message: Message) -> Receipt:
        if self._mode == "user":
            raise RouteUnavailable(
                "a webhook has no application whose events it could publish over REST",
                advice='Use route="endpoint" and name the receivers with users=[…].',
            )
        call: dict[str, Any] = {
            "COMMAND": message.command,
            "PARAMS": message.params,
            "MODULE_ID": message.module,
        }
        if message.users is not None:
            # The portal compares a single id with `===` to text (protocol §2).
            single = len(message.users) == 1
            call["USER_ID"] = str(message.users[0]) if single else list(message.users)
        await self._rest.call("pull.application.event.add", call)
        return Receipt("rest", messages=1, requests=1, confirmed=True)

    async def _by_endpoint(self, message: Message) -> Receipt:
        config = await self._config()
        url = config.publish_url
        if config.server.version not in (0, _VERSION_WITH_ENDPOINT) or url is None:
            raise RouteUnavailable(
                f"the portal's push server (version {config.server.version}) offers no publish endpoint",
                advice=self._other_route(),
            )
        require_tls(url, self._options.allow_http_hosts)
        requests = await self._requests(message, config)
        address = publication_url(url, config.channel_ids, client_id=config.client_id)
        for request, _ in requests:
            await _post(self._rest.http, address, request, self._options)
        return Receipt("endpoint", sum(count for _, count in requests), len(requests), confirmed=True)

    async def _by_socket(self, message: Message) -> Receipt:
        self._require_connection()
        config = await self._config()
        if config.server.version >= _VERSION_WITH_JSONRPC:
            return await self._by_call(message)
        # In text mode the server silently ignores what a client sends (protocol §7).
        if config.server.version not in (0, _VERSION_WITH_ENDPOINT) or not self._options.protobuf:
            raise RouteUnavailable(
                f"a push server of version {config.server.version} takes no messages over the socket"
                " unless it is spoken to in protobuf",
                advice=self._other_route(),
            )
        requests = await self._requests(message, config)
        for request, _ in requests:
            await self._send(request)
        return Receipt("socket", sum(count for _, count in requests), len(requests), confirmed=False)

    async def _by_call(self, message: Message) -> Receipt:
        """Publish over JSON-RPC, which answers (protocol §4.3)."""
        if message.users is None:
            raise self._no_shared_channel()
        body = {"module_id": message.module, "command": message.command, "params": message.params}
        call = {"userList": list(message.users), "body": body, "expiry": EXPIRY_S}
        size = len(encode_json(call))
        if size > CALL_MAX_BYTES:
            raise PublishTooLarge(f"the message takes {size} bytes; a call may hold {CALL_MAX_BYTES}")
        await self._call("publish", call)
        return Receipt("socket", messages=1, requests=1, confirmed=True)

    async def _requests(self, message: Message, config: PullConfig) -> list[tuple[bytes, int]]:
        """Return the encoded requests with the number of messages in each."""
        receivers = await self._receivers(message, config)
        return list(pack(spread(message.body(), EXPIRY_S, receivers)))

    async def _receivers(self, message: Message, config: PullConfig) -> list[PublicChannel]:
        """Return the public channels of a message's users, asking the portal for unknown ones."""
        if message.users is None:
            raise self._no_shared_channel()
        known = config.public_channels
        missing = [user for user in message.users if user not in known]
        if missing:
            known = {**known, **await self._ask_for_channels(missing)}
        nobody = [user for user in message.users if user not in known]
        if nobody:
            raise InvalidArgument(f"the portal knows no public channel of user {nobody[0]}")
        return [_public_channel(known[user]) for user in message.users]

    async def _ask_for_channels(self, users: Sequence[int]) -> dict[int, PublicChannelInfo]:
        method = "pull.channel.public.list"
        call: dict[str, Any] = {"USERS": list(users)}
        if self._mode == "application":
            call["APPLICATION"] = "Y"
        try:
            return read_public_channels(await self._rest.call(method, call), method)
        except (InsufficientScope, AccessDenied, MethodNotFound):
            raise RouteUnavailable(
                f"the credentials may not ask for the public channels of users ({method})",
                advice=self._other_route(),
            ) from None

    def _no_shared_channel(self) -> RouteUnavailable:
        other = "." if self._mode == "user" else ', or use route="rest".'
        return RouteUnavailable(
            "the shared channel cannot be published to by a client",
            advice=f"Name the receivers with users=[…]{other}",
        )

    def _other_route(self) -> str:
        return 'Use route="rest".' if self._mode == "application" else "Use an application's token."


def _public_channel(info: PublicChannelInfo) -> PublicChannel:
    return PublicChannel.parse(f"{info.public_id}.{info.signature}" if info.signature else info.public_id)


async def _post(http: HttpSession, url: str, request: bytes, options: PullOptions) -> None:
    """Post one request to the publish endpoint; it answers 200 with an empty body."""
    answer = await http.request(
        "POST", url, body=request, timeout_s=options.rest_timeout_s, max_bytes=options.max_rest_bytes
    )
    if answer.status == 200:
        return
    if answer.status == 413:
        raise PublishTooLarge(f"the push server refused a request of {len(request)} bytes")
    refusal = read_refusal(answer.body) if answer.status == 400 else None
    if refusal is None:
        raise PublishError(f"the push server answered with status {answer.status}")
    raise PublishRefused(f"the push server refused it with {describe(refusal)}", code=refusal)
