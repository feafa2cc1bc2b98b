"""``PullClient``: what users call. Most meet no other class."""

import asyncio
import contextlib
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Coroutine,
    Iterable,
    Mapping,
)
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, get_args, overload

import aiohttp

from bitrix_pull.connection.checkpointer import Start
from bitrix_pull.connection.states import Lifecycle
from bitrix_pull.connection.stores import ResumeStore, as_store
from bitrix_pull.dispatch.dependencies import Supply, checked_context
from bitrix_pull.dispatch.patterns import PortalPattern, wanted
from bitrix_pull.dispatch.router import C, M, Router
from bitrix_pull.dispatch.subscription import Subscription
from bitrix_pull.doctor.findings import Diagnosis
from bitrix_pull.errors import InvalidArgument, NotRunning
from bitrix_pull.events import Notice, Origin, State
from bitrix_pull.health import Health
from bitrix_pull.options import PullOptions, check_number
from bitrix_pull.portal.auth import Caller, Credentials, Mode
from bitrix_pull.portal.batches import call_batch, pages
from bitrix_pull.portal.rest import RestClient, check_params
from bitrix_pull.portal.user_ids import check_user_ids
from bitrix_pull.portal_events.binding import Bindings
from bitrix_pull.portal_events.feed import PortalEvents
from bitrix_pull.presence.extension import check_tags, extend_watch
from bitrix_pull.presence.status import Presence
from bitrix_pull.presence.watch import CHANGE_COMMAND, CHANGE_MODULE, PresenceWatch, watch_presence
from bitrix_pull.publish.batch import Batch
from bitrix_pull.publish.message import Message, Params
from bitrix_pull.publish.notifications import notify
from bitrix_pull.publish.publisher import Route
from bitrix_pull.publish.receipt import Receipt
from bitrix_pull.publish.retrying import Retry
from bitrix_pull.reception import Reception
from bitrix_pull.redaction import naming
from bitrix_pull.running import Block
from bitrix_pull.runs import Runs
from bitrix_pull.shared import Shared
from bitrix_pull.wire.channel_ids import PublicChannel

if TYPE_CHECKING:
    from pydantic import TypeAdapter


class PullClient(Router):
    """A client of one portal's realtime stream.

    It is a router too: register handlers with ``on``, take in routers with ``include``.
    Use it as a context manager, or let ``run()`` serve until cancelled; after ``close()``
    it can be started again. It may be created outside a running event loop, and used in one
    after another: ``close()`` it before.

    Example:
        pull = PullClient(AccessToken("acme.bitrix24.com", "…"))

        @pull.on("order_update")
        async def handle(event: PullEvent) -> None:
            print(event.params)

        async with pull:
            await pull.publish("order_update", {"id": 7})
    """

    def __init__(
        self,
        auth: Credentials | Caller,
        *,
        mode: Mode | None = None,
        resume: str | os.PathLike[str] | ResumeStore | None = None,
        start: Start = "resume",
        options: PullOptions | None = None,
        http: aiohttp.ClientSession | None = None,
        name: str | None = None,
        context: Mapping[str, Any] | None = None,
        shared: Shared | None = None,
    ) -> None:
        """Create a client; nothing is sent yet.

        Args:
            auth: ``OAuth``, ``AccessToken``, ``Webhook``, or any object with an
                ``async def call(method, params)`` that returns the REST method's result.
            mode: "application" for the channels of an installed application, "user" for
                those of the webhook's user. The default is what ``auth`` allows.
            resume: Where to write down how far everything is handled, so that a restart of
                the process misses nothing: the path of a file, or a store; None: in memory.
            start: "resume" goes on where ``resume`` says, and begins now where it says
                nothing; "latest" begins now, "earliest" with all that the server still has.
            options: Timeouts, limits and policies.
            http: A session to use for REST and publishing; it is not closed.
            name: What to call the portal in notices and log records; None: by its host.
            context: What handlers may ask for by the names of their arguments; see ``context``.
            shared: What it has together with other clients; a ``Hub`` gives it to its own.

        Raises:
            InvalidArgument: An argument cannot work; the text says why.
        """
        super().__init__()
        if mode not in (None, "application", "user"):
            raise InvalidArgument(f'mode must be "application" or "user", not {mode!r:.40}')
        if start not in get_args(Start):
            raise InvalidArgument(f"start must be one of {get_args(Start)}, not {start!r:.40}")
        if options is not None and not isinstance(options, PullOptions):
            raise InvalidArgument(f"options must be PullOptions, not {type(options).__name__}")
        if http is not None and not isinstance(http, aiohttp.ClientSession):
            raise InvalidArgument(f"http must be an aiohttp.ClientSession, not {type(http).__name__}")
        if name is not None and not (isinstance(name, str) and name):
            raise InvalidArgument("name must be text that names the portal")
        self.context: dict[str, Any] = checked_context(context)
        """What handlers may ask for by name, such as a database. What stands here when the client
        starts counts until it is closed."""
        options = options or PullOptions()
        rest = RestClient(auth, options=options, http=http or (None if shared is None else shared.http))
        portal = name or rest.portal
        reception = Reception(self._registry, options, Origin(portal, self), shared)
        self._runs = Runs(
            portal=portal,
            rest=rest,
            mode=mode or rest.default_mode,
            options=options,
            reception=reception,
            lifecycle=Lifecycle(reception.notices.post),
            store=None if resume is None else as_store(resume),
            start=start,
            shared=shared,
        )
        self._block: Block | None = None

    # -- life -----------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Connect, and return when live.

        Should the client fail for good later on, the block is cancelled and the error raised
        in its place, as a ``TaskGroup`` does.

        Raises:
            PullError: It cannot become live: what a person must change, or what kept
                failing until ``options.start_timeout_s`` (as the cause of a StartTimeout).
        """
        serving = self._start()
        try:
            await self._runs.run.wait_live(self._runs.options.start_timeout_s)
        except BaseException:
            await self.close(drain=0)
            raise
        self._block = Block(serving)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the client; what was received is still handled for ``options.close_drain_s``."""
        block, self._block = self._block, None
        assert block is not None
        failure = block.leave(exc_value)
        await self.close()
        if failure is not None:
            # Not in the context of the cancellation, which only brought us here.
            raise failure from failure.__cause__

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncGenerator[Self]:
        """Serve in the background of a block, and close at its end. For the life of a web service.

        Unlike ``async with pull``, it does not wait until the client is live, so an outage of
        the portal keeps no service from starting; and a client that fails for good leaves the
        block alone: an ``ERROR`` record, a notice and ``health().alive`` tell.

        Example:
            @contextlib.asynccontextmanager
            async def lifespan(app: FastAPI):
                async with pull.serving():
                    yield

        Raises:
            PullError: Before the block: the resume store cannot be used.
            RuntimeError: The client is running already.
        """
        self._start()
        try:
            await self._runs.run.opened()
            yield self
        finally:
            await self.close()

    async def run(self) -> None:
        """Serve until cancelled or closed, through every outage. For a background task.

        Raises:
            PullError: Only a person can help; the error says how.
            RuntimeError: The client is running already.
        """
        serving = self._start()
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            # Either this call was cancelled, or close() ended the serving task.
            if not serving.cancelled():
                raise
        finally:
            # FAILED stays to be seen; everything else was let go of by then.
            if self.state is not State.FAILED:
                await self.close(drain=0)

    async def close(self, drain: float | None = None) -> None:
        """End the connection and stop. May be called at any time, and again.

        A handler may call it too: it then returns when the handler is cancelled, and drains
        nothing, as the handler would wait for itself.

        Args:
            drain: Seconds for handlers to finish what was already received; None:
                ``options.close_drain_s``. What they do not finish comes again with the next
                start.
        """
        await self._runs.close(self._runs.options.close_drain_s if drain is None else drain)

    def _start(self) -> "asyncio.Task[None]":
        return self._runs.start(Supply(checked_context(self.context), {PullClient: self}))

    # -- state ----------------------------------------------------------------

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._runs.portal}, {self.state})"

    @property
    def portal(self) -> str:
        """What the portal is called in notices and log records: ``name``, or else its host."""
        return self._runs.portal

    @property
    def mode(self) -> Mode:
        """Whose channels it follows: "application" or "user"."""
        return self._runs.mode

    @property
    def state(self) -> State:
        """Where the connection is in its life."""
        return self._runs.lifecycle.state

    async def wait_live(self, timeout: float | None = None) -> None:
        """Wait until the client is live.

        Args:
            timeout: Seconds to wait; None: as long as it takes.

        Raises:
            NotRunning: The client is not started, or was closed.
            StartTimeout: It was not live in time; the cause is the last failure.
            PullError: It failed for good.
        """
        # Whoever has just created a task of run() means that one.
        await asyncio.sleep(0)
        if not self._runs.run.serving:
            raise self._runs.lifecycle.failure or NotRunning("the client is not running")
        await self._runs.run.wait_live(timeout)

    def health(self) -> Health:
        """Return how the client is doing."""
        return self._runs.run.health()

    async def diagnose(self, *, publish: bool = False) -> Diagnosis:
        """Find out why no events come, or none can be published; for people, not for probes.

        Checks are made in order: the portal's address, credentials, rights, mode,
        configuration, clocks, the ways to the push server, the portal's queue and limits, over
        connections of their own. A client that runs is not disturbed, and one that does
        not is not started. Takes some seconds.

        Example:
            diagnosis = await pull.diagnose()
            print(diagnosis.cause or "all is well")

        Args:
            publish: True to publish an event to oneself by each way that there is, and to see
                that the push server keeps a history. The event is
                ``application.bitrix_pull.diagnosis``; handlers for all commands get it too.

        Returns:
            What each check found; its ``cause`` is what to look at first.
        """
        from bitrix_pull.doctor.examination import examine
        from bitrix_pull.doctor.patient import Patient

        rest = self._runs.rest.sibling()
        try:
            with naming(self._runs.portal):
                patient = Patient(self._runs.portal, rest, self._runs.mode, self._runs.options)
                return await examine(patient, publish=publish)
        finally:
            await rest.close()

    def notices(self) -> AsyncIterator[Notice]:
        """Return an iterator over what happens to the connection, from its first step on.

        It ends when the client is closed, or has failed for good. A consumer that falls
        1,000 notices behind loses the oldest.
        """
        return self._runs.reception.notices.listen()

    # -- receiving ------------------------------------------------------------

    @overload
    def subscribe(self, model: type[C], /) -> Subscription[C]: ...
    @overload
    def subscribe(
        self, *commands: str | None, module: str | None = ..., model: "type[M] | TypeAdapter[M]"
    ) -> Subscription[M]: ...
    @overload
    def subscribe(
        self, *commands: str | None, module: str | None = ..., model: None = ...
    ) -> Subscription[Any]: ...
    def subscribe(
        self, *commands: object, module: str | None = None, model: object = None
    ) -> Subscription[Any]:
        """Return events as an async iterator; the arguments mean what they mean to ``on``.

        Example:
            async with pull.subscribe("order_update") as events:
                async for event in events:
                    ...
        """
        pattern, model = wanted(commands, module, model, None)
        return Subscription(self._runs.reception.stream, pattern, model)

    @overload
    def portal_events(self, *names: str, model: "type[M] | TypeAdapter[M]") -> PortalEvents[M]: ...
    @overload
    def portal_events(self, *names: str, model: None = ...) -> PortalEvents[Any]: ...
    def portal_events(self, *names: str, model: Any = None) -> PortalEvents[Any]:
        """Return events of the portal itself as an async iterator; see ``on_portal_event``.

        Example:
            async with pull.portal_events("ONCRMDEALUPDATE") as events:
                async for event in events:
                    ...

        Args:
            names: The portal's names, in any case. They are bound when the context is entered,
                or when the client starts after that.
            model: What ``event.data`` is turned into; see ``on``.

        Raises:
            InvalidArgument: One of the names can be none.
        """
        return PortalEvents(self._runs.reception.portal_feed, PortalPattern.of(names), model)

    async def unbind_portal_events(self, *names: str) -> int:
        """Let the portal queue events no more for this application and ``options.connector``.

        Nothing is unbound by itself: what happens while no client runs waits for the next one.
        What is queued already stays. Works on a client that is not started too.

        Args:
            names: The portal's names, in any case; none: all that are bound.

        Returns:
            How many were bound.

        Raises:
            InvalidArgument: One of the names can be none.
            PullError: The portal refused it, or could not be asked.
        """
        self._runs.joined()
        bindings = Bindings(self._runs.rest, self._runs.mode, self._runs.options.connector)
        with naming(self._runs.portal):
            return await bindings.unbind(PortalPattern.of(names).events if names else await bindings.fetch())

    # -- publishing -----------------------------------------------------------

    async def publish(
        self,
        command: str,
        params: Params | None = None,
        *,
        module: str = "application",
        users: int | Iterable[int] | None = None,
        channels: str | PublicChannel | Iterable[str | PublicChannel] | None = None,
        to_self: bool = False,
        route: Route = "auto",
        retry: Retry = "never",
        timeout: float | None = None,
    ) -> Receipt:
        """Publish an event.

        Works on a client that is not started too, but for the socket. ``asyncio.run(pull.publish(…))``
        leaves nothing open; in a loop that goes on, ``close()`` the client after the last one.

        Everybody who is named gets it; where nobody is, the application's shared channel does,
        which only REST reaches.

        Args:
            command: Letters, digits and ``_ : | . -``.
            params: The payload: a mapping, pydantic model or dataclass; see ``Message``.
            module: Lower-case letters, digits, dots and underscores.
            users: User ids whose private channels get it. Other users than oneself take an
                administrator over REST, and the right to ask for their channels otherwise.
            channels: Public channels, as ``PUB.SIG`` texts or ``PublicChannel``. Not over REST.
            to_self: Whether the user behind the credentials gets it.
            route: The way to go.

                - "rest": ``pull.application.event.add``. Application mode, every server, one
                  call a message, and the portal takes 2 calls a second for long.
                - "endpoint": the push server's own, version 4: up to 100 messages a request.
                  Receivers see a "client" event.
                - "socket": the open connection, version 4 or newer. Version 4 answers
                  nothing; a refusal ends the connection, which is then opened anew. While
                  a full inbox stops the reading (``overflow="pause"``), it learns nothing:
                  handlers of many events better publish by another route.
                - "auto": REST in application mode, as every portal has it, it is confirmed
                  and reaches everybody; where channels are named, which REST cannot, and in
                  user mode, which has no REST method for it: the endpoint, and the socket
                  from version 5 on.
            retry: "never" tries once: what a cut or an outage makes fail is told at once,
                and whether it was never sent (``Unreachable``) or nobody knows
                (``OutcomeUnknown``). "safe", if receivers can bear the event twice, repeats
                either within the timeout.
            timeout: Seconds for all of it; None: ``options.rest_timeout_s`` for each request.
                Until then it waits for a portal or push server that is there but wants to
                be asked later, whatever ``retry`` is: such a server has published nothing.

        Returns:
            How it went. Accepted does not mean delivered.

        Raises:
            InvalidArgument: The message can be no event; nothing was sent.
            RouteUnavailable: This portal cannot serve the route; the text names one it can.
            NotRunning: The socket was asked for, and the client is not started.
            PublishError: The push server refused it; ``OutcomeUnknown``: it was sent, and
                nobody knows whether it was published.
            PortalError: The portal refused it.
            Unreachable: It was never sent, so it may be repeated.

        Over 100 receivers take several requests past REST, of which some may fail: the error
        is then that of one, and ``publish_many`` tells who missed it. The same holds for
        ``NoChannel``: of several users those who are inactive miss it, and the others get it.
        """
        message = Message(command, params, module=module, users=users, channels=channels, to_self=to_self)
        receipt = await self.publish_many([message], route=route, retry=retry, timeout=timeout)
        return receipt.raise_for_failures()

    async def publish_many(
        self,
        messages: Iterable[Message],
        *,
        route: Route = "auto",
        retry: Retry = "never",
        timeout: float | None = None,
    ) -> Receipt:
        """Publish events in as few requests as the route allows.

        Each receiver gets them in the order in which they are given; requests that have no
        receiver in common are sent at the same time. What becomes of one message keeps no
        other from being sent.

        Args:
            messages: The events and their receivers.
            route: See ``publish``; one way for all. For many events "endpoint" takes a
                hundredth of the requests that "rest" does.
            retry: See ``publish``.
            timeout: See ``publish``; what has not been sent by then is not.

        Returns:
            What became of each message: see ``Receipt.failures``, and
            ``Receipt.raise_for_failures`` where nothing may fail. Those whose error is
            ``Unreachable`` were never sent, as the rest after a cut of the socket.

        Raises:
            InvalidArgument: An argument cannot work.
            RouteUnavailable: This portal cannot serve the route.
            NotRunning: The socket was asked for, and the client is not started.
            PullError: The portal did not tell where to publish to. Nothing was sent.
        """
        with naming(self._runs.portal):
            publisher, around = self._runs.joined().publisher, self._runs.around_publishing
            if around is None:
                return await publisher.publish(messages, route=route, retry=retry, timeout_s=timeout)
            with around(route) as tell:
                receipt = await publisher.publish(messages, route=route, retry=retry, timeout_s=timeout)
                tell(receipt)
                return receipt

    def batch(self, *, route: Route = "auto", retry: Retry = "never", timeout: float | None = None) -> Batch:
        """Return a batch: it collects events in an ``async with`` block and sends them at its end.

        The arguments are those of ``publish_many``; its receipt is ``batch.receipt``. An
        exception in the block sends nothing.

        Example:
            async with pull.batch() as batch:
                batch.publish("order_update", {"id": 7}, users=[1, 5])
                batch.publish("order_update", {"id": 8}, users=[1])
            batch.receipt.raise_for_failures()
        """
        return Batch(lambda messages: self.publish_many(messages, route=route, retry=retry, timeout=timeout))

    async def notify(self, users: int | Iterable[int], text: str, *, avatar: str | None = None) -> None:
        """Send a notification to users' mobile phones (``pull.application.push.add``).

        Needs an administrator's token of an application; works on a client that is not
        started too.

        Args:
            users: One user id or several.
            text: What it says.
            avatar: The http(s) address of a picture beside it.

        Raises:
            InvalidArgument: An argument cannot work; nothing was sent.
            RouteUnavailable: The client is in user mode, which has no such method.
            PortalError: The portal refused it: AccessDenied, EmptyAppName, …
            Unreachable: Nothing answered; its ``unsent`` says whether it was sent.
        """
        self._runs.joined()
        with naming(self._runs.portal):
            await notify(self._runs.rest, self._runs.mode, users, text, avatar)

    # -- any REST method ------------------------------------------------------

    async def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout: float | None = None
    ) -> Any:
        """Call any REST method, and return what stands under ``result``.

        With this client's credentials, whose expired token is refreshed, within the limits
        of the portal, and through ``options.connector``: what it changes does not come back
        as an event of the portal. Works on a client that is not started too; ``close()`` it
        after the last call. No call is repeated whose answer was lost.

        Example:
            deal = await pull.call("crm.deal.get", {"id": 7})

        Args:
            method: As in "crm.deal.get".
            params: JSON values.
            timeout: Seconds for all of it; None: ``options.rest_timeout_s``.

        Raises:
            InvalidArgument: It cannot be sent; nothing was.
            PortalError: The portal refused it; see its subclasses.
            Unreachable: Nothing answered; its ``unsent`` says whether the call left.
        """
        self._runs.joined()
        with naming(self._runs.portal):
            return await self._runs.rest.call(method, self._through_connector(params), timeout_s=timeout)

    async def batch_call(
        self, calls: Iterable[tuple[str, Mapping[str, Any]]], *, timeout: float | None = None
    ) -> list[Any]:
        """Make up to 50 calls in one request (``batch``): one after the other, whatever becomes of each.

        Example:
            calls = [("crm.deal.get", {"id": id}) for id in (7, 8)]
            for deal in await pull.batch_call(calls):
                if isinstance(deal, PullError):
                    ...

        Args:
            calls: Method and parameters of each.
            timeout: See ``call``.

        Returns:
            What each gave, in order: what stands under its ``result``, or its error as a
            ``PortalError``, which is not raised.

        Raises:
            InvalidArgument: They are too many, or one cannot be sent; nothing was.
            PullError: The request as a whole failed, as ``call`` may.
        """
        self._runs.joined()
        with naming(self._runs.portal):
            return await call_batch(self._runs.rest, calls, self._through_connector(None), timeout_s=timeout)

    async def fetch_all(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout: float | None = None
    ) -> AsyncGenerator[Any]:
        """Yield every row of a list, asking for its pages as they are needed.

        Rows that come and go meanwhile move the pages, so one may come twice or not at all;
        an order by ID makes that rare.

        Example:
            async for deal in pull.fetch_all("crm.deal.list", {"select": ["ID", "TITLE"]}):
                ...

        Args:
            method: One whose answers hold a list, and ``next`` where the next page begins.
            params: See ``call``.
            timeout: Seconds for each page; see ``call``.

        Raises:
            InvalidArgument: The method answers no list.
            PullError: As ``call`` may.
        """
        self._runs.joined()
        found = pages(self._runs.rest, method, self._through_connector(params), timeout_s=timeout)
        while True:
            # Not around what the caller does between two rows.
            with naming(self._runs.portal):
                page = await anext(found, None)
            if page is None:
                return
            for row in page:
                yield row

    def _through_connector(self, params: Mapping[str, Any] | None) -> Mapping[str, Any]:
        connector = self._runs.options.connector
        given = check_params(params)
        return {"auth_connector": connector, **given} if connector else given

    # -- presence -------------------------------------------------------------

    async def online(self, users: int | Iterable[int]) -> dict[int, Presence]:
        """Ask the push server which users are online, over the open connection.

        Online is who is connected to the channels that this client uses: those of the
        application in application mode, those of the whole portal in user mode.

        A server of version 5 knows its users, and the portal is asked about those whom it has
        not seen. One of version 4 knows public channels, which
        the portal tells with the scope "pull_channel", and is asked over a WebSocket in
        protobuf (the default); it does not tell when somebody was last seen. Older ones
        tell nothing.

        Args:
            users: One user id or several.

        Returns:
            What is known of each; who does not exist is not online.

        Raises:
            InvalidArgument: These are no user ids.
            NotRunning: The client is not started.
            PresenceUnavailable: This server, or this connection, does not tell; the text
                says what does.
            Unreachable: There is no connection just now.
            ConnectionLost: It broke before the answer came.
            CallTimeout: No answer came within 5 s.
        """
        with naming(self._runs.portal):
            return await self._runs.joined().presence.of_users(check_user_ids(users))

    def watch_online(
        self, users: int | Iterable[int], *, interval_s: float = 60.0
    ) -> AbstractAsyncContextManager[PresenceWatch]:
        """Return a context that follows who of some users is online.

        Entering it asks for the present state, as ``online`` does. A server of version 5
        then tells changes at once; one of version 4 is asked at intervals. All are asked
        again after a reconnect, so nothing that changed meanwhile stays unnoticed.

        Example:
            async with pull.watch_online([1, 5]) as watch:
                print(watch.online)  # {1: True, 5: False}
                async for change in watch:
                    print(change.user, change.online)

        Args:
            users: One user id or several.
            interval_s: Seconds between two questions for the state of all: how late a
                change is noticed with version 4. With version 5 it is a safeguard only.

        Raises:
            InvalidArgument: An argument cannot work.
            PullError: On entering, as ``online`` does.
        """
        check_number("interval_s", interval_s)
        return watch_presence(
            check_user_ids(users),
            lambda: self._runs.run.presence,
            events=self.subscribe(CHANGE_COMMAND, module=CHANGE_MODULE),
            spawn=self._spawn,
            interval_s=interval_s,
        )

    def extend_watch(self, tags: Iterable[str]) -> AbstractAsyncContextManager[None]:
        """Return a context that keeps watches on the portal alive (``pull.watch.extend``).

        They are extended on entering it and every 29 minutes, since the portal drops them
        after 30, until the context is left or the client closed. What fails is logged and
        repeated after some seconds.

        Example:
            async with pull, pull.extend_watch(["CRM_DEAL"]):
                await asyncio.sleep(86_400)

        Args:
            tags: What the watches are for.

        Raises:
            InvalidArgument: These are no tags.
            PullError: On entering, where only a person can help.
        """
        return extend_watch(check_tags(tags), self._runs.rest, spawn=self._spawn)

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Run what a context of the user's needs, until the run ends."""
        return self._runs.joined().companions.spawn(coroutine, name)


def runs_of(client: PullClient) -> Runs:
    """Return what a client consists of, for who watches it."""
    return client._runs  # pyright: ignore[reportPrivateUsage]  # It is this module's own.


def give_runs(client: PullClient, runs: Runs) -> None:
    """Let a client consist of something else."""
    client._runs = runs  # pyright: ignore[reportPrivateUsage]  # As above.
