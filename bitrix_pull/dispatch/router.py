"""``Router``: where users register what they want to be called for."""

from collections.abc import Callable, Collection, Coroutine, Hashable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, overload

from bitrix_pull.dispatch.dependencies import check_names
from bitrix_pull.dispatch.patterns import Pattern, PortalPattern, wanted
from bitrix_pull.dispatch.policy import RETRY_DELAY_S, Ack, DeadLetter, Policy
from bitrix_pull.dispatch.registry import (
    AnyCallback,
    ErrorHandler,
    Handler,
    Middleware,
    Registry,
)
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import PortalEvent, PullEvent, adapter_of

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from bitrix_pull.catalogue.base import PortalModel

M = TypeVar("M")
C = TypeVar("C", bound="PortalModel")
G = TypeVar("G")
S = TypeVar("S")
X = TypeVar("X", bound=Exception)
R = TypeVar("R")
P = ParamSpec("P")
CallbackT = TypeVar("CallbackT", bound=AnyCallback)
MiddlewareT = TypeVar("MiddlewareT", bound=Callable[..., Coroutine[Any, Any, object]])


class Registrar(Protocol[G]):
    """Registers a function, or a method in the body of its class, whose event is of some type."""

    @overload
    def __call__(self, callback: Callable[Concatenate[G, P], R], /) -> Callable[Concatenate[G, P], R]: ...
    @overload
    def __call__(
        self, callback: Callable[Concatenate[S, G, P], R], /
    ) -> Callable[Concatenate[S, G, P], R]: ...


class ErrorRegistrar(Protocol[X]):
    """Registers a function, or a method in the body of its class, for errors of some class."""

    @overload
    def __call__(
        self, callback: Callable[Concatenate[Any, X, P], R], /
    ) -> Callable[Concatenate[Any, X, P], R]: ...
    @overload
    def __call__(
        self, callback: Callable[Concatenate[S, Any, X, P], R], /
    ) -> Callable[Concatenate[S, Any, X, P], R]: ...


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
        self._name = ""

    @overload
    def on(
        self,
        model: type[C],
        /,
        *,
        where: Callable[[PullEvent[C]], object] | None = ...,
        ack: Ack = ...,
        retries: int = ...,
        retry_delay: float = ...,
        timeout: float | None = ...,
        on_dead_letter: DeadLetter | None = ...,
        concurrency: int = ...,
        key: Callable[[PullEvent[C]], Hashable] | None = ...,
    ) -> Registrar[PullEvent[C]]: ...
    @overload
    def on(
        self,
        *commands: str | None,
        module: str | None = ...,
        model: "type[M] | TypeAdapter[M]",
        where: Callable[[PullEvent[M]], object] | None = ...,
        ack: Ack = ...,
        retries: int = ...,
        retry_delay: float = ...,
        timeout: float | None = ...,
        on_dead_letter: DeadLetter | None = ...,
        concurrency: int = ...,
        key: Callable[[PullEvent[M]], Hashable] | None = ...,
    ) -> Registrar[PullEvent[M]]: ...
    @overload
    def on(
        self,
        *commands: str | None,
        module: str | None = ...,
        model: None = ...,
        where: Callable[[PullEvent[Any]], object] | None = ...,
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
        *commands: object,
        module: str | None = None,
        model: object = None,
        where: Callable[[PullEvent[Any]], object] | None = None,
        ack: Ack = "auto",
        retries: int = 0,
        retry_delay: float = RETRY_DELAY_S,
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

        What other arguments it has are looked for when the client starts: by name in the
        client's ``context`` and in what middleware provides, and the client itself by its
        type, ``PullClient``. Those with a default may be missing there.

        In the body of a class it registers a method: include the router of an instance, as in
        ``pull.include(bot.router)``.

        A handler fails on an event when it raises, is cancelled from within, or exceeds its
        timeout. While an event waits for its next attempt, the handler goes on with the
        others, so that event comes late; give a ``key`` where that is not allowed. An event
        that fails for good is reported once, as a ``HandlerFailed`` notice and in the log,
        and is settled: it is not delivered again. What is not settled when the client is
        closed comes again in the next run, as far as the server still keeps it.

        Args:
            commands: The commands to take; none, or None, for every one. One that ends in ``*``
                stands for all that begin so: ``on("order_*")``. In their place a model of the
                catalogue may stand, ``on(im.NewMessage)``, which says module and model too.
            module: The module to take; None means the router's own, or else
                "application" if a command is given and every module if not.
            model: What ``event.params`` are turned into: a pydantic model, a dataclass, a
                ``TypedDict``, or whatever else a ``TypeAdapter`` takes. Params that do not fit
                fail for good at once. Handlers with the same model share what is made of an
                event; ``event.raw`` is what came.
            where: Returns whether the function wants an event; it gets it as the function does.
                A plain function, quick and without effects. An event that is not wanted is
                settled; one on which it raises has failed for good.
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
        pattern, model = wanted(commands, module, model, self._module)
        policy = Policy(
            ack=ack,
            retries=retries,
            retry_delay_s=retry_delay,
            timeout_s=timeout,
            on_dead_letter=on_dead_letter,
            concurrency=concurrency,
            key=key,
        )
        return self._registrar(pattern, model, policy, where)

    @overload
    def on_portal_event(
        self,
        *names: str,
        model: "type[M] | TypeAdapter[M]",
        where: Callable[[PortalEvent[M]], object] | None = ...,
        ack: Ack = ...,
        retries: int = ...,
        retry_delay: float = ...,
        timeout: float | None = ...,
        on_dead_letter: DeadLetter | None = ...,
        concurrency: int = ...,
        key: Callable[[PortalEvent[M]], Hashable] | None = ...,
    ) -> Registrar[PortalEvent[M]]: ...
    @overload
    def on_portal_event(
        self,
        *names: str,
        model: None = ...,
        where: Callable[[PortalEvent[Any]], object] | None = ...,
        ack: Ack = ...,
        retries: int = ...,
        retry_delay: float = ...,
        timeout: float | None = ...,
        on_dead_letter: DeadLetter | None = ...,
        concurrency: int = ...,
        key: Callable[[PortalEvent[Any]], Hashable] | None = ...,
    ) -> Callable[[CallbackT], CallbackT]: ...
    def on_portal_event(
        self,
        *names: str,
        model: object = None,
        where: Callable[[PortalEvent[Any]], object] | None = None,
        ack: Ack = "auto",
        retries: int = 0,
        retry_delay: float = RETRY_DELAY_S,
        timeout: float | None = None,
        on_dead_letter: DeadLetter | None = None,
        concurrency: int = 1,
        key: Callable[[PortalEvent[Any]], Hashable] | None = None,
    ) -> Callable[[Any], Any]:
        """Register the decorated function for what happens on the portal: to deals, tasks, calls and more.

        The portal queues them for the application and says so on the stream, so no public URL
        is needed and nothing is polled. They are bound when the client starts, and stay bound
        until ``unbind_portal_events``: what happens while the client is down waits in the queue,
        for a month. It takes an application's token (``OAuth`` or ``AccessToken``) of an
        administrator. Every event is handled at least once, after it has happened.

        What the portal allows decides what else is promised, and is found out:

        - Where it reserves records (on-premise, and larger plans of the cloud), each is taken by
          one process, handled at once, and then deleted. What a killed process was handling is
          handled by the next one that starts, some seconds later, or by another one that runs.
        - Where it does not, records are read, handled when the second of their last change is
          over, about a second later, and deleted if they have not changed since. Several
          processes of one application all handle everything.

        The portal merges: one event, however often a record was changed before it was taken.
        So it tells what has changed and not how often: fetch the present state.

        Example:
            @pull.on_portal_event("ONCRMDEALADD", "ONCRMDEALUPDATE")
            async def deal_changed(event: PortalEvent) -> None:
                deal = await pull.call("crm.deal.get", {"id": event.id})

        Args:
            names: The portal's names, in any case; ``bitrix-pull events`` lists them.
            model: What ``event.data`` is turned into; see ``on``.
            where: See ``on``. What is not wanted is deleted from the portal's queue.
            ack: See ``on``. An event that is not settled stays in the portal's queue, or
                reserved there for this process.
            retries: See ``on``.
            retry_delay: See ``on``.
            timeout: See ``on``.
            on_dead_letter: See ``on``. An event that has failed for good is marked as failed in
                the portal's queue. It is attempted once more at the next start, and when the
                record changes again.
            concurrency: See ``on``.
            key: See ``on``; None: ``event.entity``, so that what happens to one record is handled
                in order, its addition before its updates.

        Raises:
            InvalidArgument: One of the names can be none, the function cannot be called with
                one event, or another argument cannot work.

        When the client starts, or the function is registered later, the portal may refuse:
        ``EventNotFound`` names what it does not know, ``AccessDenied`` says that the token is no
        administrator's, ``WrongAuthType`` that it is no application's.
        """
        pattern = PortalPattern.of(names)
        policy = Policy(
            ack=ack,
            retries=retries,
            retry_delay_s=retry_delay,
            timeout_s=timeout,
            on_dead_letter=on_dead_letter,
            concurrency=concurrency,
            key=key if key is not None else _entity,
        )
        return self._registrar(pattern, model, policy, where)

    def off(self, callback: Callable[..., object]) -> None:
        """Take back all that a function was registered for on this router.

        It gets no event that it has not begun with; those count as settled. What it has in
        hand, it finishes, without further attempts.

        Raises:
            InvalidArgument: It is not registered here.
        """
        self._registry.remove(callback)

    @overload
    def middleware(self, callback: MiddlewareT, /) -> MiddlewareT: ...
    @overload
    def middleware(
        self, callback: None = None, /, *, provides: Collection[str]
    ) -> Callable[[MiddlewareT], MiddlewareT]: ...
    def middleware(self, callback: Any = None, /, *, provides: Collection[str] = ()) -> Any:
        """Register the decorated function around all handlers of this router, and those that it includes.

        It is an ``async def`` over the event, ``call_next`` and ``context``, is called for each
        event of each handler, and calls ``await call_next(event)`` once: that returns what the
        handler returns, and raises what it raises. What comes out counts for the handler:
        retries, timeout and error handlers are around the middleware. One registered earlier is
        around those registered later, the client's are around its routers'.

        It may hand on another event, such as ``dataclasses.replace(event, params=…)``, which
        stands for the first one in all that follows. If it returns without calling
        ``call_next``, the event is settled, and the handler never sees it. Iterators of
        ``subscribe`` see no middleware.

        Example:
            @router.middleware(provides=["session"])
            async def with_session(event: Event, call_next: CallNext, context: Context) -> object:
                async with context["db"].session() as context["session"]:
                    return await call_next(event)

        Args:
            callback: The function.
            provides: What it puts into ``context`` for handlers, which may then ask for arguments
                of these names. The context is a dict of this event and this handler, and begins
                as the client's own; what else is put there is for other middleware.

        Raises:
            InvalidArgument: The function is not async, or does not take these three.
        """
        names = check_names("provides", provides)

        def register(callback: MiddlewareT) -> MiddlewareT:
            self._registry.surround(Middleware(callback, names))
            return callback

        return register if callback is None else register(callback)

    def on_error(self, kind: type[X]) -> ErrorRegistrar[X]:
        """Register the decorated function for errors that handlers have failed with for good.

        It takes the event, as it came, and the error; it may be async, and ask for other
        arguments as a handler does, but for those of middleware. It is called after the last
        attempt, and before ``on_dead_letter``. If it returns, the error is dealt with: there
        is no ``HandlerFailed`` and no dead letter, and the event counts as handled. What it
        raises takes the error's place.

        The nearest router comes first, the handler's own, and there the nearest class of the
        error; what that raises goes to the next router around it, at last the client.

        Args:
            kind: The class of errors, with its subclasses.

        Raises:
            InvalidArgument: This is no class of exceptions, this router has a function for it,
                or the function does not take an event and an error.
        """
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise InvalidArgument(
                f"on_error is for a class of exceptions, not {kind!r:.80}: write @router.on_error(Exception)"
            )

        def register(callback: Any) -> Any:
            self._registry.catch(kind, ErrorHandler(callback))
            return callback

        return register

    def include(self, router: "Router") -> None:
        """Take in another router's handlers, also those that it gets later.

        Raises:
            InvalidArgument: The router would include itself; or this client runs, and cannot
                give its handlers what they ask for.
        """
        self._registry.include(router._registry)

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> Self:
        """Return the router for an instance of the class in whose body it stands.

        Its handlers that are methods are those of the instance.
        """
        # One with more to it, such as a client, is no part of a class's instances.
        if instance is None or type(self) is not Router or not self._registry.has_methods:
            return self
        made = type(self)(module=self._module)
        made._registry = self._registry.of(instance)
        # The next time it is found there, so an instance has one router.
        instance.__dict__[self._name] = made
        return made

    def _registrar(
        self,
        pattern: Pattern,
        model: Any,
        policy: Policy,
        where: Callable[[Any], object] | None = None,
    ) -> Callable[[Any], Any]:
        """Return the decorator that registers a function for these events."""
        adapter = adapter_of(model) if model is not None else None

        def register(callback: AnyCallback) -> AnyCallback:
            self._registry.add(Handler(callback, pattern, adapter, policy, where))
            return callback

        return register


_entity: Callable[[PortalEvent[Any]], Hashable] = attrgetter("entity")


def registry_of(router: Router) -> Registry:
    """Return what is registered with a router."""
    return router._registry  # pyright: ignore[reportPrivateUsage]  # It is this module's own.
