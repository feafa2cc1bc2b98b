"""What became of the messages of a publish call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Literal, Self

from bitrix_pull.errors import OutcomeUnknown, PullError
from bitrix_pull.publish.message import Message
from bitrix_pull.publish.packing import Part, Receiver, Request

Outcome = Literal["accepted", "refused", "unknown"]


@dataclass(slots=True, frozen=True)
class Fate:
    """What became of one message.

    Attributes:
        message: The message.
        outcome: "accepted": all of its receivers' channels have it, as far as the route
            tells. "unknown": of some of them nobody knows. "refused": some surely do not
            have it, and all others do.
        error: Why it is not "accepted"; None if it is.
        missed: Receivers that surely did not get it: refused, or never sent.
        in_doubt: Receivers that may have got it or not.
    """

    message: Message
    outcome: Outcome
    error: PullError | None = None
    missed: tuple[Receiver, ...] = ()
    in_doubt: tuple[Receiver, ...] = ()


@dataclass(slots=True, frozen=True)
class Receipt:
    """What became of a publish call. Accepted does not mean delivered.

    Attributes:
        route: The way it went: "rest", "endpoint" or "socket".
        messages: Messages that got through; one with a long list of receivers takes several.
        requests: Requests that it took, repeated ones included.
        confirmed: True if the server said that it accepted everything. Over the socket of
            version 4 it never says so: a message counts as accepted when the server has
            read it and not refused it.
        given: The messages of the call.
        failed: The fates that are not "accepted", by the message's place among those.
    """

    route: str
    messages: int
    requests: int
    confirmed: bool
    given: Sequence[Message] = field(default=(), repr=False, compare=False)
    failed: Mapping[int, Fate] = field(default_factory=dict[int, Fate], repr=False, compare=False)

    @property
    def fates(self) -> tuple[Fate, ...]:
        """What became of each message, in the order in which they were given."""
        fates = [Fate(message, "accepted") for message in self.given]
        for position, fate in self.failed.items():
            fates[position] = fate
        return tuple(fates)

    @property
    def failures(self) -> tuple[Fate, ...]:
        """The fates that are not "accepted", in that order."""
        return tuple(fate for _, fate in sorted(self.failed.items(), key=itemgetter(0)))

    def raise_for_failures(self) -> Self:
        """Return the receipt if everything was accepted.

        Raises:
            PullError: It was not; this is the error of the first message that failed.
        """
        for fate in self.failures:
            assert fate.error is not None
            raise fate.error
        return self


class Ledger:
    """Writes down what becomes of the parts of messages, and makes a receipt of it."""

    def __init__(self, messages: Sequence[Message]) -> None:
        """Begin with nothing known."""
        self.requests = 0
        """Requests that were sent."""
        self.isolations = 0
        """Refused requests that were sent again in parts."""
        self._messages = messages
        self._accepted = 0
        self._failed: dict[int, list[tuple[Part, PullError]]] = {}

    def accepted(self, request: Request) -> None:
        """Write down that a request got through."""
        self._accepted += len(request.parts)

    def failed(self, parts: Sequence[Part], error: PullError) -> None:
        """Write down that parts did not get through, or that nobody knows."""
        for part in parts:
            self._failed.setdefault(part.position, []).append((part, error))

    def receipt(self, route: str, *, confirms: bool) -> Receipt:
        """Return what is written down."""
        return Receipt(
            route,
            messages=self._accepted,
            requests=self.requests,
            confirmed=confirms and not self._failed,
            given=self._messages,
            failed={
                position: _fate(self._messages[position], failed) for position, failed in self._failed.items()
            },
        )


def _fate(message: Message, failed: Sequence[tuple[Part, PullError]]) -> Fate:
    """Return what became of a message of which some parts failed."""
    missed = [part for part, error in failed if not isinstance(error, OutcomeUnknown)]
    in_doubt = [part for part, error in failed if isinstance(error, OutcomeUnknown)]
    # What is unknown is the more urgent of the two to know.
    errors = sorted((error for _, error in failed), key=lambda error: not isinstance(error, OutcomeUnknown))
    return Fate(
        message, "unknown" if in_doubt else "refused", errors[0], _receivers(missed), _receivers(in_doubt)
    )


def _receivers(parts: Sequence[Part]) -> tuple[Receiver, ...]:
    return tuple(target.receiver for part in parts for target in part.targets)
