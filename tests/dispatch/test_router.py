"""Which handlers want which events."""

import functools
import math
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, cast

import pytest
from pydantic import BaseModel, TypeAdapter
from typing_extensions import TypedDict

from bitrix_pull.dispatch.patterns import StreamPattern
from bitrix_pull.dispatch.policy import Policy
from bitrix_pull.dispatch.router import Router, registry_of
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import PullEvent


class Order(BaseModel):
    id: int


@dataclass
class Line:
    id: int


class TypedOrder(TypedDict):
    id: int


class Unknown:
    """What pydantic knows nothing of."""


def handle(event: PullEvent) -> None:
    raise AssertionError("never called here")


def on(router: Router, commands: tuple[Any, ...] = (), **wish: Any) -> Any:
    return router.on(*commands, **wish)


def names(router: Router) -> list[str]:
    return [handler.name for handler in registry_of(router).handlers()]


def named(name: str) -> Any:
    def callback(event: PullEvent) -> None:
        raise AssertionError("never called here")

    callback.__qualname__ = name
    return callback


ROWS = [
    # the router's module, what on() is given, module of an event, its command, wanted
    (None, {}, "application", "x", True),
    (None, {}, "crm", "y", True),
    (None, {"commands": ("x",)}, "application", "x", True),
    (None, {"commands": ("x",)}, "application", "X", False),
    (None, {"commands": ("x",)}, "application", "y", False),
    (None, {"commands": ("x",)}, "crm", "x", False),
    (None, {"commands": ("x", "y")}, "application", "y", True),
    (None, {"commands": ("x", "y")}, "application", "z", False),
    (None, {"commands": ("x", "y")}, "crm", "y", False),
    (None, {"commands": ("order_*",)}, "application", "order_update", True),
    (None, {"commands": ("order_*",)}, "application", "order_", True),
    (None, {"commands": ("order_*",)}, "application", "order", False),
    (None, {"commands": ("order_*", "x")}, "application", "x", True),
    (None, {"commands": ("*",)}, "application", "x", True),
    (None, {"commands": ("*",)}, "crm", "x", False),
    (None, {"commands": (None,)}, "crm", "x", True),
    (None, {"module": "crm"}, "crm", "anything", True),
    (None, {"module": "CRM"}, "crm", "anything", True),
    (None, {"module": "crm"}, "application", "x", False),
    (None, {"commands": ("x",), "module": "crm"}, "crm", "x", True),
    (None, {"commands": ("x",), "module": "crm"}, "crm", "y", False),
    ("crm", {}, "crm", "x", True),
    ("crm", {}, "application", "x", False),
    ("CRM", {"commands": ("x",)}, "crm", "x", True),
    ("crm", {"commands": ("x",)}, "application", "x", False),
    ("crm", {"commands": ("x",), "module": "im"}, "im", "x", True),
    ("crm", {"commands": ("x",), "module": "im"}, "crm", "x", False),
]


@pytest.mark.parametrize(("own", "wish", "module", "command", "wanted"), ROWS)
def test_patterns(own: str | None, wish: dict[str, Any], module: str, command: str, wanted: bool) -> None:
    router = Router(module=own)
    on(router, **wish)(handle)
    (handler,) = registry_of(router).handlers()
    assert handler.pattern.matches((module, command)) is wanted


def test_the_function_is_returned_unchanged() -> None:
    assert Router().on("x")(handle) is handle


def test_a_function_can_be_registered_twice() -> None:
    router = Router()
    router.on("x")(router.on("y")(handle))
    assert [handler.pattern for handler in registry_of(router).handlers()] == [
        StreamPattern.of([command], None, None) for command in ("y", "x")
    ]


def test_handlers_come_in_order_with_those_of_included_routers_behind() -> None:
    top, middle, bottom = Router(), Router(), Router()
    bottom.on("x")(named("bottom"))
    top.include(middle)
    middle.include(bottom)
    middle.on("x")(named("middle"))
    top.on("x")(named("top"))
    assert names(top) == ["top", "middle", "bottom"]
    assert names(middle) == ["middle", "bottom"]


def test_a_router_keeps_its_own_default_module_when_included() -> None:
    crm = Router(module="crm")
    top = Router(module="im")
    top.include(crm)
    crm.on("x")(handle)
    assert [handler.pattern for handler in registry_of(top).handlers()] == [
        StreamPattern.of(["x"], "crm", None)
    ]


def test_every_router_above_hears_of_a_late_handler() -> None:
    top, middle, bottom = Router(), Router(), Router()
    heard: list[str] = []
    registry_of(top).watch(lambda: heard.append("top"))
    top.include(middle)
    middle.include(bottom)
    heard.clear()
    bottom.on("x")(handle)
    assert heard == ["top"]


def test_a_router_cannot_include_itself_over_any_distance() -> None:
    top, middle, bottom = Router(), Router(), Router()
    top.include(middle)
    middle.include(bottom)
    for router in (top, middle, bottom):
        with pytest.raises(InvalidArgument, match="itself"):
            bottom.include(router)
    assert list(registry_of(bottom).handlers()) == []


def test_a_router_is_included_once() -> None:
    top, other = Router(), Router()
    top.include(other)
    with pytest.raises(InvalidArgument, match="included already"):
        top.include(other)


# -- what is checked at registration ----------------------------------------------


class Callable0:
    def __call__(self) -> None: ...


class Callable1:
    def __call__(self, event: PullEvent) -> None: ...

    def method(self, event: PullEvent) -> None: ...

    @staticmethod
    def static(event: PullEvent) -> None: ...

    @classmethod
    def of_class(cls, event: PullEvent) -> None: ...


def two(first: PullEvent, second: int) -> None: ...


def with_default(event: PullEvent, more: str = "") -> None: ...


def keyword_only(*, event: PullEvent) -> None: ...


def by_position_only(event: PullEvent, db: object, /) -> None: ...


def another_event(message: PullEvent, event: object) -> None: ...


def any_arguments(*arguments: object) -> None: ...


@pytest.mark.parametrize(
    "callback",
    [
        handle,
        two,
        with_default,
        any_arguments,
        lambda event: None,
        functools.partial(two, second=1),
        Callable1(),
        Callable1().method,
        Callable1.static,
        Callable1.of_class,
        print,
    ],
)
def test_whatever_takes_an_event_is_a_handler(callback: Any) -> None:
    router = Router()
    router.on("x")(callback)
    assert len(list(registry_of(router).handlers())) == 1


@pytest.mark.parametrize(
    "callback",
    [
        keyword_only,
        lambda: None,
        Callable0(),
        functools.partial(handle, cast("PullEvent", None)),
        by_position_only,
        another_event,
        7,
        None,
        "x",
    ],
)
def test_what_cannot_take_an_event_is_refused(callback: Any) -> None:
    router = Router()
    with pytest.raises(InvalidArgument, match="handler"):
        router.on("x")(callback)
    assert list(registry_of(router).handlers()) == []


def generator(event: PullEvent) -> Iterator[None]:
    yield


async def async_generator(event: PullEvent) -> AsyncIterator[None]:
    yield


class GeneratorCallable:
    def __call__(self, event: PullEvent) -> Iterator[None]:
        yield


@pytest.mark.parametrize(
    "callback",
    [generator, async_generator, functools.partial(async_generator), GeneratorCallable()],
)
def test_what_would_never_run_is_refused(callback: Any) -> None:
    """A call of a generator runs nothing of it: each event would count as handled."""
    router = Router()
    with pytest.raises(InvalidArgument, match=r"handler .* is a generator"):
        router.on("x")(callback)
    with pytest.raises(InvalidArgument, match=r"where .* is a generator"):
        router.on("x", where=callback)(handle)
    with pytest.raises(InvalidArgument, match=r"key .* is a generator"):
        router.on("x", key=callback)
    assert list(registry_of(router).handlers()) == []


def test_neither_is_one_that_is_called_with_an_error() -> None:
    async def park(event: PullEvent, error: Exception) -> AsyncIterator[None]:
        yield

    router = Router()
    with pytest.raises(InvalidArgument, match=r"on_dead_letter .* is a generator"):
        router.on("x", on_dead_letter=park)
    with pytest.raises(InvalidArgument, match=r"error handler .* is a generator"):
        router.on_error(ValueError)(park)


def test_forgotten_parentheses_are_noticed() -> None:
    with pytest.raises(InvalidArgument, match="parentheses"):
        Router().on(handle)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "wish", [{"commands": ("",)}, {"commands": (7,)}, {"module": ""}, {"module": b"crm"}]
)
def test_names_are_non_empty_text(wish: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="non-empty string"):
        on(Router(), **wish)


@pytest.mark.parametrize("command", ["*_update", "order_*_x", "**"])
def test_a_star_stands_at_the_end(command: str) -> None:
    with pytest.raises(InvalidArgument, match="not at its end"):
        Router().on(command)


@pytest.mark.parametrize("model", [Order(id=1), "Order", 7, [Order], object(), BaseModel, Unknown])
def test_a_model_is_what_pydantic_can_validate(model: Any) -> None:
    with pytest.raises(InvalidArgument, match="pydantic"):
        Router().on("x", model=model)


@pytest.mark.parametrize(
    "model", [Order, Line, TypedOrder, dict[str, int], int | None, TypeAdapter(Order), Annotated[Order, "x"]]
)
def test_whatever_a_type_adapter_takes_is_a_model(model: Any) -> None:
    router = Router()
    on(router, ("x",), model=model)(handle)
    on(router, ("y",), model=model)(handle)
    first, second = (handler.model for handler in registry_of(router).handlers())
    assert isinstance(first, TypeAdapter)
    assert first is second


class Secretive:
    def __init__(self) -> None:
        self.token = "s3cret"

    def __repr__(self) -> str:
        return self.token

    def __call__(self, event: PullEvent, token: str = "") -> None: ...


@pytest.mark.parametrize(
    ("callback", "name"),
    [
        (handle, "handle"),
        (Callable1().method, "Callable1.method"),
        (Secretive(), "Secretive"),
        (functools.partial(with_default, more="s3cret"), "with_default"),
        (functools.partial(functools.partial(Secretive(), token="s3cret")), "Secretive"),
    ],
)
def test_a_handlers_name_shows_nothing_that_is_bound_to_it(callback: Any, name: str) -> None:
    router = Router()
    router.on("x")(callback)
    assert names(router) == [name]


def test_neither_does_the_error_of_a_wrong_signature() -> None:
    with pytest.raises(InvalidArgument) as caught:
        Router().on("x")(functools.partial(Secretive(), cast("PullEvent", None), "x"))
    assert "s3cret" not in str(caught.value)
    assert "Secretive" in str(caught.value)


# -- how events are settled ---------------------------------------------------------


def dead_letter(event: PullEvent, error: Exception) -> None: ...


async def async_key(event: PullEvent) -> int:
    return 1


def test_the_policy_is_what_on_was_told() -> None:
    router = Router()

    def key(event: PullEvent[Order]) -> int:
        return event.params.id

    router.on("x")(handle)
    router.on(
        "x",
        model=Order,
        ack="manual",
        retries=3,
        retry_delay=0.5,
        timeout=10,
        on_dead_letter=dead_letter,
        concurrency=4,
        key=key,
    )(handle)
    default, other = (handler.policy for handler in registry_of(router).handlers())
    assert default == Policy()
    assert other == Policy(
        ack="manual",
        retries=3,
        retry_delay_s=0.5,
        timeout_s=10,
        on_dead_letter=dead_letter,
        concurrency=4,
        key=key,
    )


@pytest.mark.parametrize(
    ("wish", "complaint"),
    [
        ({"ack": "never"}, "ack must be one of"),
        ({"ack": None}, "ack must be one of"),
        ({"retries": -1}, "retries must be a whole number of 0 or more"),
        ({"retries": 1.0}, "retries must be a whole number"),
        ({"retries": True}, "retries must be a whole number"),
        ({"retries": None}, "retries must be a whole number"),
        ({"concurrency": 0}, "concurrency must be a whole number of 1 or more"),
        ({"concurrency": "2"}, "concurrency must be a whole number"),
        ({"timeout": 0}, "timeout must be seconds greater than 0"),
        ({"timeout": math.nan}, "timeout must be seconds"),
        ({"timeout": math.inf}, "timeout must be finite"),
        ({"timeout": "5"}, "timeout must be seconds"),
        ({"timeout": True}, "timeout must be seconds"),
        ({"retry_delay": 0}, "retry_delay must be seconds greater than 0"),
        ({"retry_delay": 61}, "60 at most"),
        ({"retry_delay": None}, "retry_delay must be seconds"),
        ({"retry_delay": 5}, "no effect without retries=.*retries=5"),
        ({"on_dead_letter": 7}, "on_dead_letter must be callable"),
        ({"on_dead_letter": handle}, "must take two positional arguments: the event, the error"),
        ({"key": "id"}, "key must be callable"),
        ({"key": two}, "key two.* must take exactly one positional argument: the event"),
        ({"key": async_key}, "key must be a plain function"),
        ({"ack": "on_receive", "retries": 1}, "does not go with"),
    ],
)
def test_what_cannot_work_is_refused_at_once(wish: dict[str, Any], complaint: str) -> None:
    router = Router()
    with pytest.raises(InvalidArgument, match=complaint):
        router.on("x", **wish)
    assert list(registry_of(router).handlers()) == []
