"""Publishing over the open WebSocket: frames on version 4, calls from version 5 on."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from bitrix_pull.errors import (
    CallRefused,
    CallTimeout,
    ConnectionLost,
    OutcomeUnknown,
    PublishRefused,
    PullError,
)
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.auth import Mode
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.portal.public_channels import PublicChannels
from bitrix_pull.publish.message import Message
from bitrix_pull.publish.packing import EXPIRY_S, Part, Request, Target, chunks
from bitrix_pull.publish.routes import (
    Addresses,
    Plan,
    RouteName,
    check_socket,
    no_shared_channel,
    own_user,
    unaddressed,
)
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.close_codes import refusal
from bitrix_pull.wire.protobuf import encode_publications


class FrameRoute:
    """The open socket of a push server of version 4.

    A refusal closes the socket, so what was refused is not tried again in parts.
    """

    name: RouteName = "socket"
    confirms = False
    isolates: frozenset[int] = frozenset()
    pipelined = False

    def __init__(
        self,
        mode: Mode,
        addresses: Addresses,
        config: Callable[[], Awaitable[PullConfig]],
        send: Callable[[bytes], Awaitable[None]],
        options: PullOptions,
    ) -> None:
        """Send by ``send``, which returns when the server has read the frame; see ``Connection.send``."""
        self._mode: Mode = mode
        self._addresses = addresses
        self._config = config
        self._send = send
        self._options = options

    async def plan(self, messages: Sequence[Message]) -> Plan:
        """See ``Route``."""
        check_socket(await self._config(), self._options, self._mode)
        return await self._addresses.plan(messages)

    async def send(self, request: Request, timeout_s: float) -> None:
        """See ``Route``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(encode_publications([part.publication for part in request.parts]))
        except PublishRefused as error:
            raise refusal(error.code, str(request)) from None
        except TimeoutError:
            raise OutcomeUnknown(
                f"{request}: no sign within {timeout_s:.2g} s that the push server has read it"
            ) from None
        except ConnectionLost as error:
            raise OutcomeUnknown(f"{request}: {error.args[0]}") from error


class CallRoute:
    """The open socket of a push server of version 5 or newer, which answers (protocol §4.3)."""

    name: RouteName = "socket"
    confirms = True
    # What is tried again would come after what was sent behind it.
    isolates: frozenset[int] = frozenset()
    # Its answers are gathered for 0.4 s, too long to wait for each.
    pipelined = True

    def __init__(
        self, mode: Mode, channels: PublicChannels, call: Callable[[str, Mapping[str, Any]], Awaitable[Any]]
    ) -> None:
        """Call by ``call``; ``channels`` says who oneself is."""
        self._mode: Mode = mode
        self._channels = channels
        self._call = call

    async def plan(self, messages: Sequence[Message]) -> Plan:
        """See ``Route``."""
        own = await self._channels.own() if any(message.to_self for message in messages) else None
        plan = Plan()
        requests: list[Request] = []
        for position, message in enumerate(messages):
            targets = [Target(user) for user in message.users]
            targets += [Target(channel, channel) for channel in message.channels]
            try:
                if message.to_everybody:
                    raise no_shared_channel(self._mode)
                if message.to_self and own is not None:
                    targets.append(Target(own_user(own)))
            except PullError as error:
                plan.failed.append((unaddressed(position, message), error))
            else:
                whole = Part(position, message, list(dict.fromkeys(targets)))
                requests += [Request([part]) for part in chunks(whole)]
        plan.requests = requests
        return plan

    async def send(self, request: Request, timeout_s: float) -> None:
        """See ``Route``."""
        (part,) = request.parts
        message, receivers = part.message, [target.receiver for target in part.targets]
        call: dict[str, Any] = {
            "userList": [receiver for receiver in receivers if isinstance(receiver, int)],
            "body": {"module_id": message.module, "command": message.command, "params": message.params},
            "expiry": EXPIRY_S,
        }
        channels = [receiver.text for receiver in receivers if isinstance(receiver, PublicChannel)]
        if channels:
            call["channelList"] = channels
        try:
            async with asyncio.timeout(timeout_s):
                await self._call("publish", call)
        except CallRefused as error:
            raise PublishRefused(f"{part}: {error.args[0]}", code=error.code) from None
        except (CallTimeout, ConnectionLost) as error:
            raise OutcomeUnknown(f"{part}: {error.args[0]}") from error
        except TimeoutError:
            raise OutcomeUnknown(f"{part}: no answer within {timeout_s:.2g} s") from None
