"""What stands around a handler, held against the same handler alone: dispatch without a network."""

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial

from bitrix_pull.dispatch.dependencies import Supply
from bitrix_pull.dispatch.dispatcher import Dispatcher
from bitrix_pull.dispatch.inbox import Inbox
from bitrix_pull.dispatch.registry import CallNext, Context
from bitrix_pull.dispatch.router import Router, registry_of
from bitrix_pull.dispatch.tasks import TaskSet
from bitrix_pull.events import BACKEND_SENDER, Event, PullEvent
from tests.benchmarks.comparison import Comparison, Figures

_EVENTS = 400_000
_AT_ONCE = 20

Register = Callable[[Router], None]


def comparisons(scale: float) -> Iterable[Comparison]:
    """Dependencies, middleware, a filter and error handlers, each against a plain handler."""
    count = max(int(_EVENTS * scale), _AT_ONCE)
    dressed: dict[str, Register] = {
        "three dependencies and two middlewares": with_all,
        "three dependencies": with_dependencies,
        "two middlewares": with_middleware,
        "a filter": with_filter,
        "an error handler": with_error_handler,
        "nothing (the noise)": plain,
    }
    for name, register in dressed.items():
        yield Comparison(
            f"{count:,} events, {name}", partial(run, register, count), partial(run, plain, count)
        )


def run(register: Register, count: int) -> Figures:
    """Dispatch events to what is registered."""
    return asyncio.run(_run(register, count))


async def _run(register: Register, count: int) -> Figures:
    router = Router()
    register(router)
    inbox = Inbox[PullEvent](max_events=10_000, max_bytes=1 << 30)
    dispatcher = Dispatcher(PullEvent, registry_of(router), inbox, lambda notice: None)
    dispatcher.prepare(Supply({"db": object(), "cache": object(), "settings": object()}))
    tasks = TaskSet()
    dispatcher.begin(tasks)
    events: list[PullEvent] = [
        PullEvent(f"{n:026}", "application", "x", {}, {}, BACKEND_SENDER, "server") for n in range(_AT_ONCE)
    ]
    began_s = time.process_time()
    for _ in range(count // _AT_ONCE):
        dispatcher.put(events)
        await dispatcher.idle()
    used_s = time.process_time() - began_s
    dispatcher.end()
    await tasks.close()
    return {"cpu_us": used_s / (count // _AT_ONCE * _AT_ONCE) * 1e6}


def plain(router: Router) -> None:
    """Register a handler of the event alone."""

    @router.on("x")
    async def handle(event: PullEvent) -> None: ...


def with_dependencies(router: Router) -> None:
    """Register one that asks for three things more."""

    @router.on("x")
    async def handle(event: PullEvent, db: object, cache: object, *, settings: object) -> None: ...


def with_middleware(router: Router) -> None:
    """Register one within two middlewares."""
    plain(router)
    _surround(router)


def with_all(router: Router) -> None:
    """Register one that asks for three things, within two middlewares."""
    with_dependencies(router)
    _surround(router)


def with_filter(router: Router) -> None:
    """Register one that wants every event after a look."""

    @router.on("x", where=lambda event: event.kind == "server")
    async def handle(event: PullEvent) -> None: ...


def with_error_handler(router: Router) -> None:
    """Register one whose errors somebody takes."""
    plain(router)

    @router.on_error(Exception)
    async def oops(event: Event, error: Exception) -> None: ...


def _surround(router: Router) -> None:
    @router.middleware
    async def outer(event: Event, call_next: CallNext, context: Context) -> object:
        return await call_next(event)

    @router.middleware
    async def inner(event: Event, call_next: CallNext, context: Context) -> object:
        return await call_next(event)
