"""What handlers publish: written down, and refused where a test says so."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bitrix_pull.errors import InvalidArgument, PullError, RouteUnavailable
from bitrix_pull.events import BACKEND_SENDER, Sender, SenderType
from bitrix_pull.portal.auth import Mode
from bitrix_pull.publish.message import Message
from bitrix_pull.publish.packing import Part, Request, Target
from bitrix_pull.publish.publisher import Publishing, Route, checked
from bitrix_pull.publish.receipt import Fate, Ledger, Receipt
from bitrix_pull.publish.retrying import Retry
from bitrix_pull.publish.routes import no_shared_channel
from bitrix_pull.wire.channel_ids import PublicChannel

OWN_USER = 1
"""The user behind the credentials of a test, an administrator."""

_CLIENT = Sender(SenderType.CLIENT)


@dataclass(slots=True, frozen=True)
class Published:
    """One message that a handler published, or tried to.

    Attributes:
        message: The message.
        fate: What became of it.
        receipt: That of the call that it was part of.
    """

    message: Message
    fate: Fate
    receipt: Receipt

    @property
    def command(self) -> str:
        """The kind of event."""
        return self.message.command

    @property
    def module(self) -> str:
        """The module that sends it."""
        return self.message.module

    @property
    def params(self) -> dict[str, Any]:
        """The payload as JSON values."""
        return self.message.params

    @property
    def users(self) -> tuple[int, ...]:
        """The users who get it."""
        return self.message.users

    @property
    def channels(self) -> tuple[PublicChannel, ...]:
        """The public channels that get it."""
        return self.message.channels

    @property
    def error(self) -> PullError | None:
        """Why it was not accepted; None if it was."""
        return self.fate.error


class Post:
    """Takes what is published; what is to be refused goes no further."""

    def __init__(self) -> None:
        """Begin with nothing published, and nothing to refuse."""
        self.published: list[Published] = []
        """What was published, the oldest first."""
        self._refusals: list[_Refusal] = []

    def refuse(self, error: PullError, command: str | None, times: int) -> None:
        """Refuse the next messages, of a command or any.

        Raises:
            InvalidArgument: It is no error, or would be no times.
        """
        if not isinstance(error, PullError):
            raise InvalidArgument(
                f"refuse takes the error that publishing shall fail with, not {type(error).__name__}",
                advice='Write client.refuse(NoChannel("user 7 has no channel")).',
            )
        if times < 1:
            raise InvalidArgument("times must be 1 or more")
        self._refusals.append(_Refusal(error, command, times))

    def refusal_of(self, message: Message) -> PullError | None:
        """Return what a message is refused with, if it is."""
        for refusal in self._refusals:
            if refusal.command in (None, message.command):
                refusal.times -= 1
                if not refusal.times:
                    self._refusals.remove(refusal)
                return refusal.error
        return None

    def write_down(self, receipt: Receipt) -> None:
        """Take note of a call."""
        self.published += [Published(fate.message, fate, receipt) for fate in receipt.fates]


@dataclass(slots=True)
class _Refusal:
    error: PullError
    command: str | None
    times: int


class Passing:
    """Publishes what is not refused by somebody else."""

    def __init__(self, post: Post, inner: Publishing) -> None:
        """Go on to ``inner``."""
        self._post = post
        self._inner = inner

    async def publish(
        self, messages: Iterable[Message], *, route: Route, retry: Retry, timeout_s: float | None
    ) -> Receipt:
        """See ``Publishing``."""
        messages = checked(messages, route, retry, timeout_s)
        refused = [self._post.refusal_of(message) for message in messages]
        passing = [message for message, error in zip(messages, refused, strict=True) if error is None]
        receipt = await self._inner.publish(passing, route=route, retry=retry, timeout_s=timeout_s)
        places = [place for place, error in enumerate(refused) if error is None]
        failed = {places[place]: fate for place, fate in receipt.failed.items()}
        for place, error in enumerate(refused):
            if error is not None:
                failed[place] = _refused(messages[place], error)
        receipt = Receipt(
            receipt.route,
            receipt.messages,
            receipt.requests,
            receipt.confirmed and not any(refused),
            messages,
            failed,
        )
        self._post.write_down(receipt)
        return receipt


class Keeping:
    """Accepts what is not refused, as a portal would, and brings back what is for ourselves."""

    def __init__(self, post: Post, mode: Mode, bring: Callable[[Message, Sender], None]) -> None:
        """Keep what is published.

        Args:
            post: Writes it down.
            mode: Whose channels the client follows.
            bring: Takes what is published to ourselves, and as whom.
        """
        self._post = post
        self._mode: Mode = mode
        self._bring = bring

    async def publish(
        self, messages: Iterable[Message], *, route: Route, retry: Retry, timeout_s: float | None
    ) -> Receipt:
        """See ``Publishing``."""
        messages = checked(messages, route, retry, timeout_s)
        if route == "auto":
            needs_channels = self._mode == "user" or any(message.channels for message in messages)
            route = "endpoint" if needs_channels else "rest"
        if route == "rest" and self._mode == "user":
            raise RouteUnavailable(
                "a webhook has no application whose events it could publish over REST",
                advice='Use route="endpoint".',
            )
        ledger = Ledger(messages)
        for position, message in enumerate(messages):
            part = Part(position, message, _targets(message))
            ledger.requests += 1
            error = self._post.refusal_of(message) or self._impossible(message, route)
            if error is not None:
                ledger.failed([part], error)
                continue
            ledger.accepted(Request([part]))
            if message.to_everybody or message.to_self or OWN_USER in message.users:
                self._bring(message, BACKEND_SENDER if route == "rest" else _CLIENT)
        receipt = ledger.receipt(route, confirms=route != "socket")
        self._post.write_down(receipt)
        return receipt

    def _impossible(self, message: Message, route: str) -> PullError | None:
        if route == "rest" and message.channels:
            return RouteUnavailable("REST cannot address channels", advice='Use route="endpoint".')
        if route != "rest" and message.to_everybody:
            return no_shared_channel(self._mode)
        return None


def _targets(message: Message) -> Sequence[Target]:
    return [*map(Target, message.users), *(Target(channel, channel) for channel in message.channels)]


def _refused(message: Message, error: PullError) -> Fate:
    ledger = Ledger([message])
    ledger.failed([Part(0, message, _targets(message))], error)
    return ledger.receipt("", confirms=False).fates[0]
