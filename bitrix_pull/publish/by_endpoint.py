"""Publishing by the endpoint of a push server of version 4: many messages a request, confirmed."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache

from bitrix_pull.errors import (
    AnswerTooLarge,
    OutcomeUnknown,
    PublishBusy,
    PublishError,
    PublishTooLarge,
    PullError,
    Unreachable,
)
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.answers import retry_after_s
from bitrix_pull.portal.auth import Mode
from bitrix_pull.portal.http import HttpAnswer, HttpSession
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.publish.message import Message
from bitrix_pull.publish.packing import Request
from bitrix_pull.publish.routes import Addresses, Plan, RouteName, check_endpoint, looking_up
from bitrix_pull.wire.close_codes import ServerClose, read_refusal, refusal
from bitrix_pull.wire.protobuf import encode_publications
from bitrix_pull.wire.urls import publication_url

_address = lru_cache(maxsize=256)(publication_url)
"""For as long as a client's channels live it is the same one."""


class EndpointRoute:
    """One HTTP request for up to 100 messages."""

    name: RouteName = "endpoint"
    confirms = True
    isolates: frozenset[int] = frozenset(
        {
            # A server whose limits were set lower than usual takes parts.
            ServerClose.TOO_MANY_MESSAGES,
            ServerClose.TOO_MANY_CHANNELS,
            ServerClose.INVALID_CHANNEL,
            ServerClose.PRIVATE_RECEIVER,
            ServerClose.INVALID_SIGNATURE,
        }
    )
    pipelined = False

    def __init__(
        self,
        http: HttpSession,
        mode: Mode,
        addresses: Addresses,
        config: Callable[[], Awaitable[PullConfig]],
        options: PullOptions,
    ) -> None:
        """Post to the endpoint that ``config`` names."""
        self._http = http
        self._mode: Mode = mode
        self._addresses = addresses
        self._config = config
        self._options = options

    async def plan(self, messages: Sequence[Message]) -> Plan:
        """See ``Route``."""
        check_endpoint(await self._config(), self._options, self._mode)
        return await self._addresses.plan(messages)

    async def send(self, request: Request, timeout_s: float) -> None:
        """See ``Route``."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        # Of a long publish call the channels may have ended, and the portal may be slow.
        async with looking_up(deadline):
            config = await self._config()
        left_s = deadline - asyncio.get_running_loop().time()
        url = self._http.destinations.admit(config.server, "publish")
        body = encode_publications([part.publication for part in request.parts])
        try:
            answer = await self._http.request(
                "POST",
                _address(url, config.channel_ids, client_id=config.client_id),
                body=body,
                timeout_s=min(left_s, self._options.rest_timeout_s),
                max_bytes=self._options.max_rest_bytes,
            )
        except (Unreachable, AnswerTooLarge) as error:
            if isinstance(error, Unreachable) and error.unsent:
                raise
            raise OutcomeUnknown(f"{request}: {error.args[0]}") from error
        if answer.status != 200:
            raise _refused(answer, request, len(body))


def _refused(answer: HttpAnswer, request: Request, size: int) -> PullError:
    """Return what an answer means that is not 200."""
    code = read_refusal(answer.body) if answer.status == 400 else None
    if code is not None:
        return refusal(code, str(request))
    what = f"{request}: the push server answered with status {answer.status}"
    if answer.status == 413:
        return PublishTooLarge(f"{what} to {size} bytes")
    if answer.status in (429, 503) and (waits_s := retry_after_s(answer, datetime.now(UTC))):
        return PublishBusy(what, retry_after_s=max(0.0, *waits_s))
    # Who answered 5xx may have done before what it was asked to do.
    return OutcomeUnknown(what) if answer.status >= 500 else PublishError(what)
