"""Publishing by ``pull.application.event.add``: confirmed, and the way to the shared channel."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from bitrix_pull.errors import (
    AnswerTooLarge,
    CallerFailed,
    NotAPortal,
    OutcomeUnknown,
    PortalUnavailable,
    PublishError,
    PullError,
    RouteUnavailable,
    Unreachable,
)
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.auth import Mode
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.portal.public_channels import Own, PublicChannels
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.publish.message import Message
from bitrix_pull.publish.packing import Part, Request, Target
from bitrix_pull.publish.routes import Plan, RouteName, check_rest, own_user, unaddressed, way_past_rest

METHOD = "pull.application.event.add"


class RestRoute:
    """One call for each message."""

    name: RouteName = "rest"
    confirms = True
    isolates: frozenset[int] = frozenset()
    pipelined = False

    def __init__(
        self,
        rest: RestClient,
        mode: Mode,
        channels: PublicChannels,
        config: Callable[[], Awaitable[PullConfig]],
        options: PullOptions,
    ) -> None:
        """Call through ``rest``; ``channels`` says who oneself is, ``config`` what else would work."""
        self._rest = rest
        self._mode: Mode = mode
        self._channels = channels
        self._config = config
        self._options = options

    async def plan(self, messages: Sequence[Message]) -> Plan:
        """See ``Route``."""
        if self._mode == "user":
            check_rest(await self._config(), self._options, self._mode)
        other = ""
        if any(message.channels for message in messages):
            other = way_past_rest(await self._config(), self._options)
        own = await self._channels.own() if any(message.to_self for message in messages) else None
        plan = Plan()
        requests: list[Request] = []
        for position, message in enumerate(messages):
            try:
                requests.append(Request([Part(position, message, _targets(message, own, other))]))
            except PullError as error:
                plan.failed.append((unaddressed(position, message), error))
        plan.requests = requests
        # Whoever listens to the shared channel may be any of the other receivers too.
        plan.in_turn = any(message.to_everybody for message in messages)
        return plan

    async def send(self, request: Request, timeout_s: float) -> None:
        """See ``Route``."""
        (part,) = request.parts
        message = part.message
        call: dict[str, Any] = {
            "COMMAND": message.command,
            "PARAMS": message.params,
            "MODULE_ID": message.module,
        }
        users = [target.receiver for target in part.targets]
        if users:
            # The portal compares a single id with `===` to text (protocol §2).
            call["USER_ID"] = str(users[0]) if len(users) == 1 else users
        try:
            result = await self._rest.call(METHOD, call, timeout_s=timeout_s)
        except (Unreachable, PortalUnavailable, NotAPortal, CallerFailed, AnswerTooLarge) as error:
            if _surely_not_published(error):
                raise
            raise OutcomeUnknown(f"{part}: {error.args[0]}") from error
        if result is False:
            raise PublishError(f"{part}: the portal answered false")


def _surely_not_published(error: PullError) -> bool:
    match error:
        case Unreachable():
            return error.unsent
        case NotAPortal():
            # A page instead of an answer: with 200, the portal may have stumbled over its own words.
            return error.status >= 400
        case _:
            return False


def _targets(message: Message, own: Own | None, other_way: str) -> list[Target]:
    if message.channels:
        raise RouteUnavailable("REST cannot address channels", advice=other_way)
    users = list(message.users)
    if message.to_self and own is not None:
        users.append(own_user(own))
    return [Target(user) for user in dict.fromkeys(users)]
