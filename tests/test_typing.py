"""What a type checker makes of handlers and subscriptions; mypy reads this file too."""

from typing import Any, assert_type

import pytest
from pydantic import BaseModel, TypeAdapter

from bitrix_pull import (
    AccessToken,
    CallNext,
    Context,
    Event,
    PullClient,
    PullEvent,
    Router,
    Subscription,
)
from bitrix_pull.catalogue import im
from bitrix_pull.dispatch.router import registry_of
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import adapter_of


class Order(BaseModel):
    id: int


class Message(BaseModel):
    text: str


class Pool:
    """A dependency."""


def client() -> PullClient:
    return PullClient(AccessToken("acme.bitrix24.com", "token"))


def test_a_model_types_the_handlers_params() -> None:
    router = Router()

    @router.on("order_update", model=Order)
    async def typed(event: PullEvent[Order]) -> None:
        assert_type(event.params, Order)
        assert_type(event.params.id, int)

    async def calls() -> None:
        assert_type(await typed(sender()), None)

    assert callable(calls)

    @router.on("order_update", model=Order)
    def plain_function(event: PullEvent[Order]) -> None:
        assert_type(event.params, Order)

    def of_message(event: PullEvent[Message]) -> None:
        assert_type(event.params.text, str)

    router.on("order_update", model=Order)(of_message)  # type: ignore[arg-type]
    assert [handler.model for handler in registry_of(router).handlers()] == [adapter_of(Order)] * 3


def test_a_model_of_the_catalogue_types_the_params_by_itself() -> None:
    pull = client()

    @pull.on(im.NewMessage, where=lambda event: event.params.chat_id == 3)
    async def hello(event: PullEvent[im.NewMessage], db: Pool, *, limit: int = 3) -> str:
        assert_type(event.params.message.text, str | None)
        assert_type(event.params.users, dict[str, im.User])
        assert_type(event.client, PullClient)
        return "hello"

    def of_message(event: PullEvent[Message]) -> None: ...

    pull.on(im.NewMessage)(of_message)  # type: ignore[arg-type]
    assert_type(pull.subscribe(im.Typing), Subscription[im.Typing])
    assert callable(hello)

    async def calls() -> None:
        assert_type(await hello(sender(), Pool(), limit=5), str)
        await hello(sender(), "no pool")  # type: ignore[arg-type]
        await hello(sender())  # type: ignore[call-arg]

    assert callable(calls)


def test_handlers_with_more_arguments_keep_their_types() -> None:
    router = Router()

    @router.on("order_update", "order_new", model=Order, key=lambda event: event.params.id)
    async def typed(event: PullEvent[Order], db: Pool, pull: PullClient) -> int:
        return event.params.id

    async def calls() -> None:
        assert_type(await typed(sender(), Pool(), pull=client()), int)
        await typed(sender(), client(), client())  # type: ignore[arg-type]

    assert callable(calls)

    @router.on(model=TypeAdapter(Order | Message))
    def either(event: PullEvent[Order | Message], db: Pool) -> None: ...

    @router.on("plain")
    async def plain(event: PullEvent, db: Pool) -> int:
        return 1

    assert callable(either)
    assert callable(plain)


class Bot:
    router = Router()

    @router.on("message", model=Message)
    async def asked(self, event: PullEvent[Message], db: Pool) -> str:
        return event.params.text

    @router.on(im.Typing)
    def typing(self, event: PullEvent[im.Typing]) -> None: ...

    @router.on_error(ValueError)
    async def oops(self, event: Event, error: ValueError) -> None: ...


def test_methods_are_typed_as_methods() -> None:
    bot = Bot()
    assert_type(bot.router, Router)

    async def calls() -> None:
        assert_type(await bot.asked(sender(), Pool()), str)

    assert callable(calls)


def test_middleware_and_error_handlers() -> None:
    router = Router()

    @router.middleware
    async def timing(event: Event, call_next: CallNext, context: Context) -> object:
        assert_type(event.portal, str)
        return await call_next(event)

    @router.middleware(provides=["session"])
    async def with_session(event: PullEvent, call_next: CallNext, context: Context) -> object:
        context["session"] = 1
        return await call_next(event)

    def plain(event: Event, call_next: CallNext, context: Context) -> object: ...

    with pytest.raises(InvalidArgument):
        router.middleware(plain)  # type: ignore[type-var]

    @router.on_error(ValueError)
    async def oops(event: PullEvent, error: ValueError, db: Pool) -> None: ...

    @router.on_error(LookupError)
    def any_error(event: Event, error: Exception) -> None: ...

    def of_key_error(event: Event, error: KeyError) -> None: ...

    router.on_error(OSError)(of_key_error)  # type: ignore[arg-type]
    assert callable(timing)
    assert callable(with_session)
    assert callable(oops)
    assert callable(any_error)


def test_without_a_model_a_handler_keeps_its_own_type() -> None:
    router = Router()

    @router.on("order_update")
    async def handle(event: PullEvent) -> int:
        assert_type(event.params, Any)
        return 1

    @router.on()
    def count(event: PullEvent) -> int:
        return 2

    event: PullEvent = PullEvent("", "", "", {}, {}, sender(), "server")
    assert_type(count(event), int)
    assert count(event) == 2
    assert [item.callback for item in registry_of(router).handlers()] == [handle, count]


def sender() -> Any:
    return None


def test_subscriptions_are_typed_by_their_model() -> None:
    pull = client()
    typed = pull.subscribe("order_update", model=Order)
    plain = pull.subscribe("order_update", module="crm")
    assert_type(typed, Subscription[Order])
    assert_type(plain, Subscription[Any])
    assert isinstance(typed, Subscription)
    assert isinstance(plain, Subscription)

    async def consume() -> None:
        async with typed as events:
            async for event in events:
                assert_type(event, PullEvent[Order])
                assert_type(event.params.id, int)
                event.params.text  # type: ignore[attr-defined]  # noqa: B018

    assert callable(consume)


def test_parse_returns_the_model() -> None:
    event: PullEvent = PullEvent("", "", "", {"id": 7}, {}, sender(), "server")
    order = event.parse(Order)
    assert_type(order, Order)
    assert order == Order(id=7)


def test_a_client_is_a_router() -> None:
    pull = client()

    @pull.on("order_update", model=Order)
    async def typed(event: PullEvent[Order]) -> None:
        assert_type(event.params, Order)

    assert [item.callback for item in registry_of(pull).handlers()] == [typed]
