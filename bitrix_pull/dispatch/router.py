"""``Router``: where users register what they want to be called for."""

from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar, overload

from pydantic import TypeAdapter

from bitrix_pull.dispatch.patterns import Pattern, StreamPattern
from bitrix_pull.dispatch.policy import Ack, DeadLetter, Policy
from bitrix_pull.dispatch.registry import AnyCallback, Handler, Registry
from bitrix_pull.events import PullEvent, adapter_of

M = TypeVar("M")
E = TypeVar("E", bound=PullEvent[Any])
Callback = Callable[[E], Awaitable[object] | object]
CallbackT = TypeVar("CallbackT", bound=Callable[[Any], Awaitable[object] | object])


class Router:
    """A set of handlers, so that they can live in files of their own.

    Include it in a client, or in another router, with ``include``.
    """

    def __init__(self, *, module: str | None = None) -> None:
        """Create a router.

        Args:
            module: The module that its handlers mean where they name none.
        """
        self._module = module
        self._registry = Registry()

    @overload
    def on(
        self,
        *commands: str | None,
        module: str | None = ...,
        model: type[M] | TypeAdapter[M],
        ack: Ack = ...,
        retries: int = ...,
        retry_delay: float = ...,
        timeout: float | None = ...,
        on_dead_letter: DeadLetter | None = ...,
        concurrency: int = ...,
        key: Callable[[PullEvent[M]], Hashable] | None = ...,
    ) -> Callable[[Callback[PullEvent[M]]], Callback[PullEvent[M]]]: ...
    @overload
    def on(
        self,
        *commands: str | None,
        module: str | None = ...,
        model: None = ...,
        ack: Ack = ...,
        retries: int = ...,
        retry_delay: float = ...,
        timeout: float | None = ...,
        on_dead_letter: DeadLetter | None = ...,
        concurrency: int = ...,
        key: Callable[[PullEvent[Any]], Hashable] | None = ...,
    ) -> Callable[[CallbackT], CallbackT]: ...
    def on(
        self,
        *commands: str | None,
        module: str | None = None,
        model: object = None,
        ack: Ack = "auto",
        retries: int = 0,
        retry_delay: float = 1.0,
        timeout: float | None = None,
        on_dead_letter: DeadLetter | None = None,
        concurrency: int = 1,
        key: Callable[[PullEvent[Any]], Hashable] | None = None,
    ) -> Callable[[Any], Any]:
        """Register the decorated function for events. It is returned unchanged.

        The function takes the event. It may be async, or a plain function that returns
        quickly: a plain one runs on the event loop, so one that blocks belongs into
        ``asyncio.to_thread``. Different handlers run beside each other. Events of one handler
        are begun in order, and one at a time unless ``concurrency`` says otherwise.

        A handler fails on an event when it raises, is cancelled from within, or exceeds its
        timeout. While an event waits for its next attempt, the handler goes on with the
        others, so that event comes late; give a ``key`` where that is not allowed. An event
        that fails for good is reported once, as a ``HandlerFailed`` notice and in the log,
        and is settled: it is not delivered again. What is not settled when the client is
        closed comes again in the next run, as far as the server still keeps it.

        Args:
            commands: The commands to take; none, or None, for every one. One that ends in ``*``
                stands for all that begin so: ``on("order_*")``.
            module: The module to take; None means the router's own, or else
                "application" if a command is given and every module if not.
            model: What ``event.params`` are turned into: a pydantic model, a dataclass, a
                ``TypedDict``, or whatever else a ``TypeAdapter`` takes. Params that do not fit
                fail for good at once. Handlers with the same model share what is made of an
                event; ``event.raw`` is what came.
            ack: When an event is settled. "auto": when the function has returned, or has
                failed for good. "on_receive": before the function is called, so at most
                once. "manual": when ``event.ack()`` is called, in the function or after it
                has returned; ``event.nack(delay)`` asks for the event again, and raising
                without either is a failure. An event with neither stays unsettled, and takes
                its place in the inbox.
            retries: How many more attempts to make after a failure; with "manual" also how
                many after a ``nack``, which is unlimited if this is 0.
            retry_delay: Seconds before the first retry; doubled for each further one up to
                60 s, with up to 20 % more at random.
            timeout: Seconds after which the function is cancelled. If it takes no notice, it
                is left running half a second later. A plain function cannot be cancelled.
            on_dead_letter: Called with the event, as it came, and the error, when the event
                has failed for good; async or plain. The event is settled when it has returned.
                What it raises is logged.
            concurrency: How many events the function may be handling at once. More than one
                means that no order is kept, but for what ``key`` says.
            key: Returns what an event belongs to, such as an order's number. Events of the same key
                are handled one by one in order of arrival, each after the one before is settled,
                retries included. It gets the event as the function does; a key that raises or is
                not hashable fails the event for good.

        Raises:
            InvalidArgument: The function cannot be called with one event, or another
                argument cannot work.
        """
        pattern = StreamPattern.of(commands, module, self._module)
        policy = Policy(
            ack=ack,
            retries=retries,
            retry_delay_s=retry_delay,
            timeout_s=timeout,
            on_dead_letter=on_dead_letter,
            concurrency=concurrency,
            key=key,
        )
        return self._registrar(pattern, model, policy)

    def include(self, router: "Router") -> None:
        """Take in another router's handlers, also those that it gets later.

        Raises:
            InvalidArgument: The router would include itself.
        """
        self._registry.include(router._registry)

    def _registrar(self, pattern: Pattern, model: Any, policy: Policy) -> Callable[[Any], Any]:
        """Return the decorator that registers a function for these events."""
        adapter = adapter_of(model) if model is not None else None

        def register(callback: AnyCallback) -> AnyCallback:
            self._registry.add(Handler(callback, pattern, adapter, policy))
            return callback

        return register


def registry_of(router: Router) -> Registry:
    """Return what is registered with a router."""
    return router._registry
