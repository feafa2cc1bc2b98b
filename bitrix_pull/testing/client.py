"""``TestClient``: events for your handlers, and what they did with them."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from bitrix_pull.dispatch.dependencies import checked_context
from bitrix_pull.dispatch.router import Router
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import BACKEND_SENDER, Notice, PortalEvent, PullEvent, Sender
from bitrix_pull.options import check_number
from bitrix_pull.reception import Reception
from bitrix_pull.testing.awaited import Awaited
from bitrix_pull.testing.clock import ON_ITS_WAY_S, Clock, Restless
from bitrix_pull.testing.events import make_event, make_portal_event
from bitrix_pull.testing.grounds import Ground, Outside
from bitrix_pull.testing.in_process import InProcess
from bitrix_pull.testing.outcomes import Delivered, Handling, Watch

if TYPE_CHECKING:
    from bitrix_pull.client import PullClient
    from bitrix_pull.emulator import Emulator
    from bitrix_pull.errors import PullError
    from bitrix_pull.testing.answers import Call
    from bitrix_pull.testing.post import Published

T = TypeVar("T")

_PATIENCE_S = 0.02
"""How long sockets on loopback may take before time is put forward for what is waited for."""


class NotSettled(AssertionError):  # noqa: N818 - reads as what a test finds
    """Handlers did not come to an end with an event in time; the text says who, and what to do."""


class TestClient:
    """Runs the handlers of a router or client without a network, by the very dispatcher of a client.

    Models, filters, middleware, dependencies, retries, timeouts, error handlers, dead letters and
    acknowledgement are what they are in service. Of a client, nothing is sent, and tokens are not
    looked at. With ``emulator=True`` the same test runs over sockets, against an emulated portal and
    push server on loopback, which is slower and closer to life.

    The event loop's clock is the test's: waits between attempts take no time, and ``advance`` puts
    it forward for all else that waits. See ``Clock`` for what else moves with it.

    Example:
        async with TestClient(router, context={"db": db}) as client:
            result = await client.deliver("order_update", {"id": 7})
        assert result.handled == ("pack",)

    Args:
        target: A ``Router``, or a ``PullClient`` that is not started.
        emulator: True for an emulated portal, or one of your own, such as ``bitrix_portal``.
        context: What handlers may ask for by name, beside what the client itself has.
        timeout: Seconds of real time that handlers may take over a call of this.

    Raises:
        InvalidArgument: An argument cannot work.
    """

    __test__ = False  # For pytest, which takes classes of such names for tests.

    def __init__(
        self,
        target: Router,
        *,
        emulator: "bool | Emulator" = False,
        context: Mapping[str, Any] | None = None,
        timeout: float = 5.0,
    ) -> None:
        if not isinstance(target, Router):
            raise InvalidArgument(f"TestClient takes a Router or a PullClient, not {type(target).__name__}")
        check_number("timeout", timeout)
        self._target = target
        self._emulator = emulator
        self._context = checked_context(context)
        self._timeout_s = timeout
        self._outside = Outside()
        self._ground: Ground | None = None
        self._clock: Clock | None = None
        self._owns_clock = False
        self._changed = asyncio.Event()
        self._stream: Watch[PullEvent[Any]] = Watch(self._changed.set)
        self._portal: Watch[PortalEvent[Any]] = Watch(self._changed.set)
        self._unawaited: set[Awaited[Any]] = set()
        self.notices: list[Notice] = []
        """What the client has said: ``StateChanged``, ``HandlerFailed``, ``Continuity``, ``Gap``, …"""

    # -- life -----------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Start the handlers.

        Raises:
            InvalidArgument: A handler asks for what nothing provides.
            RuntimeError: The client is in use; or this event loop's clock cannot be moved.
            NotSettled: The emulated portal was not reached in time.
        """
        if self._ground is not None:
            raise RuntimeError("this TestClient is entered already: create another one")
        clock = Clock.of_running_loop()
        if clock is None:
            clock = await Clock().__aenter__()
            self._owns_clock = True
        clock.limit_s = self._timeout_s
        self._clock = clock
        self._ground = self._new_ground(clock)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._ground.open(self._look_on)
            await clock.calm()
        except TimeoutError:
            await self._close()
            raise NotSettled(
                f"the client was not live on the emulated portal within {self._timeout_s:g} s:"
                f" {self.notices[-1] if self.notices else 'it has said nothing'}"
            ) from None
        except BaseException:
            await self._close()
            raise
        return self

    def _new_ground(self, clock: Clock) -> Ground:
        if self._emulator is False:
            return InProcess(self._target, self._outside, self._context)
        from bitrix_pull.testing.over_sockets import OverSockets

        clock.patience_s = ON_ITS_WAY_S
        emulator = None if isinstance(self._emulator, bool) else self._emulator
        return OverSockets(
            self._target, self._outside, self._context, emulator, until=self._until, notices=self.notices
        )

    def _look_on(self, reception: Reception) -> None:
        reception.stream.observer = self._stream
        reception.portal_feed.dispatcher.observer = self._portal
        reception.notices.taps.append(self._hear)
        self._reception = reception

    def _hear(self, notice: Notice) -> None:
        self.notices.append(notice)
        self._stream.heard(notice)
        self._portal.heard(notice)
        self._changed.set()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the handlers; what they have in hand is cancelled.

        Raises:
            RuntimeError: Something of this client was called and never awaited.
        """
        forgotten = [step.close_unawaited() for step in list(self._unawaited)]
        await self._close()
        if forgotten and exc is None:
            raise RuntimeError(f"{forgotten[0]} was called and never awaited: write `await {forgotten[0]}`")

    async def _close(self) -> None:
        assert self._ground is not None
        try:
            await self._ground.close()
        finally:
            # A clock that is not given back would be that of all that comes after.
            if (reception := getattr(self, "_reception", None)) is not None:
                reception.stream.observer = reception.portal_feed.dispatcher.observer = None
                reception.notices.taps.remove(self._hear)
            self._ground = None
            if self._owns_clock and self._clock is not None:
                await self._clock.__aexit__(None, None, None)

    # -- events -----------------------------------------------------------------------------

    def deliver(
        self,
        event: PullEvent[Any] | str,
        params: Any = None,
        *,
        module: str = "application",
        sender: Sender = BACKEND_SENDER,
        created: datetime | float | None = None,
        advance: float = 0.0,
    ) -> "Coroutine[Any, Any, Delivered[PullEvent[Any]]]":
        """Let an event come by the stream, and wait until handlers are through with it.

        Waits between attempts take no time: the clock is put forward for them. What a handler itself
        waits for, such as its ``timeout=`` or ``asyncio.sleep``, takes the time that it takes, but for
        the seconds of ``advance``.

        An event of a handler with ``ack="manual"`` that says neither ``ack`` nor ``nack`` is not
        waited for: ``acked`` is then False, and may become True later.

        Args:
            event: Its command; or an event, as ``make_event`` makes it. Over sockets its mid and
                time are those that the push server gives.
            params: See ``make_event``, as for the rest.
            module: The module that has sent it.
            sender: Who has.
            created: When.
            advance: Seconds to put the clock forward once handlers are at work.

        Returns:
            What each handler did.

        Raises:
            NotSettled: They took longer than the real time that they may.
            InvalidArgument: The params are no JSON.
        """
        return self._step(
            f'client.deliver("{event if isinstance(event, str) else event.command}", …)',
            partial(self._deliver, _event(event, params, module, sender, created), advance),
        )

    def deliver_portal_event(
        self,
        event: PortalEvent[Any] | str,
        *,
        id: int | None = None,
        fields: Mapping[str, Any] | None = None,
        data: Any = None,
        user_id: int | None = 1,
        advance: float = 0.0,
    ) -> "Coroutine[Any, Any, Delivered[PortalEvent[Any]]]":
        """Let something have happened on the portal, and wait until handlers are through with it.

        Over sockets it goes through the portal's queue: it is bound, announced, reserved and deleted.

        Example:
            await client.deliver_portal_event("ONCRMDEALUPDATE", id=7)

        Args:
            event: Its name, or an event, as ``make_portal_event`` makes it.
            id: See ``make_portal_event``, as for the rest.
            fields: What stands beside it under ``FIELDS``.
            data: All of what the portal says, in their place.
            user_id: Who did it.
            advance: See ``deliver``.

        Returns:
            What each handler did.

        Raises:
            NotSettled: They took longer than the real time that they may.
            InvalidArgument: No handler is registered for it; or the data is no JSON.
        """
        made = event if isinstance(event, PortalEvent) else None
        if isinstance(event, str):
            made = make_portal_event(event, id=id, fields=fields, data=data, user_id=user_id)
        if made is None:
            raise InvalidArgument(
                f"deliver_portal_event takes a name or a PortalEvent, not {type(event).__name__}"
            )
        return self._step(
            f'client.deliver_portal_event("{made.name}", …)',
            partial(self._deliver_portal_event, made, advance),
        )

    async def _deliver(self, event: PullEvent[Any], advance: float) -> Delivered[PullEvent[Any]]:
        ground, clock = self._on()
        began, seen = asyncio.get_running_loop().time(), len(self._stream.deliveries)
        mid = await ground.send(event)
        found = await self._arrived(self._stream, seen, partial(_has_mid, mid), event.label)
        await clock.advance(advance)
        await self._rest()
        found.took_s = asyncio.get_running_loop().time() - began
        return found

    async def _deliver_portal_event(
        self, event: PortalEvent[Any], advance: float
    ) -> Delivered[PortalEvent[Any]]:
        ground, clock = self._on()
        wanted = self._reception.portal_feed.wanted()
        if event.name not in wanted:
            raise InvalidArgument(
                f"no handler is registered for {event.name}, so the portal would not queue it",
                advice=f"Registered are: {', '.join(sorted(wanted)) or 'none'}.",
            )
        began, seen = asyncio.get_running_loop().time(), len(self._portal.deliveries)
        await ground.change(event)
        found = await self._arrived(
            self._portal, seen, lambda came: (came.name, came.data) == (event.name, event.data), event.label
        )
        await clock.advance(advance)
        await self._rest()
        if found.acked:
            await self._until(lambda: ground.is_told(found.event), "the portal to be told")
        found.took_s = asyncio.get_running_loop().time() - began
        return found

    # -- the connection ---------------------------------------------------------------------

    def cut(
        self, missed: Sequence[PullEvent[Any]] = ()
    ) -> "Coroutine[Any, Any, list[Delivered[PullEvent[Any]]]]":
        """Cut the connection and let it come back, which a ``Continuity`` notice tells.

        Args:
            missed: Events that come meanwhile: they are delivered then, with ``replayed``.

        Returns:
            What handlers did with each.

        Raises:
            NotSettled: They took longer than the real time that they may.
        """
        return self._step("client.cut(…)", partial(self._cut, missed))

    async def _cut(self, missed: Sequence[PullEvent[Any]]) -> list[Delivered[PullEvent[Any]]]:
        ground, _ = self._on()
        seen = len(self._stream.deliveries)
        mids = await ground.cut(missed)
        found: list[Delivered[PullEvent[Any]]] = []
        for mid, event in zip(mids, missed, strict=True):
            is_it = partial(_has_mid, mid)
            found.append(await self._arrived(self._stream, seen, is_it, event.label))
        await self._rest()
        return found

    def gap(self) -> "Coroutine[Any, Any, None]":
        """Cut the connection, and let the push server have lost its history, which a ``Gap`` notice tells.

        Raises:
            RuntimeError: Nothing was delivered before: a client that knows nothing misses nothing.
            NotSettled: It was not said in time.
        """
        return self._step("client.gap()", self._gap)

    async def _gap(self) -> None:
        ground, _ = self._on()
        if not self._stream.deliveries:
            raise RuntimeError("deliver an event before the gap: a client that knows nothing misses nothing")
        await ground.lose_history()
        await self._rest()

    # -- time -------------------------------------------------------------------------------

    def advance(
        self, seconds: float = 0.0, *, minutes: float = 0.0, hours: float = 0.0, days: float = 0.0
    ) -> "Coroutine[Any, Any, None]":
        """Put the clock forward, and wait until everything is done that is due by then.

        Over sockets it is that of the emulated portal too: channels and tokens end, and are renewed.
        """
        return self._step("client.advance(…)", partial(self._advance, seconds, minutes, hours, days))

    async def _advance(self, seconds: float, minutes: float, hours: float, days: float) -> None:
        _, clock = self._on()
        await clock.advance(seconds, minutes=minutes, hours=hours, days=days)

    # -- what handlers do to the world --------------------------------------------------------

    @property
    def pull(self) -> "PullClient":
        """The client under test, or that of the router under test: what ``event.client`` is."""
        return self._on()[0].pull

    @property
    def emulator(self) -> "Emulator":
        """The emulated portal.

        Raises:
            RuntimeError: There is none.
        """
        emulator: Emulator | None = getattr(self._on()[0], "emulator", None)
        if emulator is None:
            raise RuntimeError("there is no portal without a network: TestClient(…, emulator=True) has one")
        return emulator

    @property
    def published(self) -> "list[Published]":
        """What handlers have published, the oldest first, refused messages included."""
        return self._outside.post.published

    def refuse(self, error: "PullError", *, command: str | None = None, times: int = 1) -> None:
        """Let the next messages that are published fail.

        ``OutcomeUnknown`` makes their fate "unknown", everything else "refused". What is refused
        goes no further, with ``retry="safe"`` neither.

        Args:
            error: What with.
            command: Only those of this command; None: any.
            times: How many.

        Raises:
            InvalidArgument: It is no error, or would be no times.
        """
        self._outside.post.refuse(error, command, times)

    @property
    def calls(self) -> "list[Call]":
        """The REST calls that handlers have made, the oldest first."""
        return self._outside.answers.calls

    def answer(self, method: str, result: Any, *, times: int | None = None) -> None:
        """Let a REST method answer, in the place of a portal.

        Without a network, a method that has no answer is ``MethodNotFound``; over sockets the
        emulated portal then answers what it can.

        Args:
            method: As in "crm.deal.get", in any case.
            result: What stands under ``result``; an exception to raise; or a function that
                returns either for the parameters of the call.
            times: For how many calls; then what was answered before counts again. None: for all.

        Raises:
            InvalidArgument: It would be no times, or the function is a coroutine function.
        """
        self._outside.answers.give(method, result, times)

    # -- waiting ----------------------------------------------------------------------------

    def _on(self) -> tuple[Ground, Clock]:
        if self._ground is None or self._clock is None:
            raise RuntimeError("enter the client first: `async with TestClient(…) as client:`")
        return self._ground, self._clock

    def _step(self, what: str, make: Callable[[], Coroutine[Any, Any, T]]) -> "Awaited[T]":
        """Return something to await, and remember it until it is."""
        self._on()
        return Awaited(_settled(make), what, self._unawaited)

    async def _arrived(
        self, watch: Watch[Any], seen: int, is_it: Callable[[Any], bool], label: str
    ) -> Delivered[Any]:
        """Wait until an event was given to its handlers."""

        def find() -> Delivered[Any] | None:
            return next((item for item in watch.deliveries[seen:] if is_it(item.event)), None)

        await self._until(lambda: find() is not None, f"{label} to arrive")
        found = find()
        assert found is not None
        return found

    async def _until(self, is_so: Callable[[], bool], what: str) -> None:
        """Wait until something is so; what takes time for it takes none."""
        _, clock = self._on()
        began = time.perf_counter()
        patient_until = began + _PATIENCE_S
        while not is_so():
            await clock.calm()
            if is_so():
                return
            if time.perf_counter() - began > self._timeout_s:
                raise NotSettled(
                    f"waited {self._timeout_s:g} s for {what}, in vain: the client is {self.pull.state}"
                )
            if time.perf_counter() < patient_until:
                await asyncio.sleep(0.001)
            else:
                await clock.step()

    async def _rest(self) -> None:
        """Wait until no handler will do any more by itself."""
        _, clock = self._on()
        began = time.perf_counter()
        while True:
            self._changed.clear()
            await clock.calm()
            left_s = self._timeout_s - (time.perf_counter() - began)
            busy: list[tuple[Handling, Delivered[Any]]] = [*self._stream.busy, *self._portal.busy]
            due = self._next_attempt_at()
            if not busy and due is None:
                return
            if left_s <= 0:
                raise NotSettled(_complaint(busy, self._timeout_s))
            if busy:
                try:
                    async with asyncio.timeout(left_s):
                        await self._changed.wait()
                except TimeoutError:
                    continue
            elif due is not None:
                await clock.advance(max(due - asyncio.get_running_loop().time(), 0.0))

    def _next_attempt_at(self) -> float | None:
        dispatchers = (self._reception.stream, self._reception.portal_feed.dispatcher)
        return min((at for each in dispatchers if (at := each.next_attempt_at) is not None), default=None)


async def _settled(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    try:
        return await make()
    except Restless as error:
        raise NotSettled(
            f"{error}: does a handler give its event back again and again, by nack() without a delay?"
        ) from None


def _has_mid(mid: str, event: PullEvent[Any]) -> bool:
    return event.mid == mid


def _event(
    event: PullEvent[Any] | str,
    params: Any,
    module: str,
    sender: Sender,
    created: datetime | float | None,
) -> PullEvent[Any]:
    if isinstance(event, PullEvent):
        if params is not None:
            raise InvalidArgument("an event has its own params: give its command, or the event alone")
        return event
    if not isinstance(event, str):
        raise InvalidArgument(f"deliver takes a command or a PullEvent, not {type(event).__name__}")
    return make_event(event, params, module=module, sender=sender, created=created)


def _complaint(busy: Sequence[tuple[Handling, Delivered[Any]]], timeout_s: float) -> str:
    if not busy:
        return (
            f'handlers have asked for events again for {timeout_s:g} s: with ack="manual" and without'
            " retries=, nack() is good for any number of attempts"
        )
    handling, delivered = busy[0]
    others = f" (and {len(busy) - 1} more)" if len(busy) > 1 else ""
    return (
        f"handler {handling.handler} has been at {delivered.event.label} for {timeout_s:g} s, in attempt"
        f" {handling.attempts}, and has not returned{others}: look at what it awaits. If that is time, let it"
        " pass: deliver(…, advance=SECONDS); if it is slow, give it more: TestClient(…, timeout=SECONDS)"
    )
