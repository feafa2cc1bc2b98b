"""What a type checker makes of handlers and subscriptions; mypy reads this file too."""

from collections.abc import Callable, Coroutine
from typing import Any, assert_type

from pydantic import BaseModel

from bitrix_pull import AccessToken, PullClient, PullEvent, Router, Subscription
from bitrix_pull.dispatch.router import registry_of
from bitrix_pull.events import adapter_of


class Order(BaseModel):
    id: int


class Message(BaseModel):
    text: str


def client() -> PullClient:
    return PullClient(AccessToken("acme.bitrix24.com", "token"))


def test_a_model_types_the_handlers_params() -> None:
    router = Router()

    @router.on("order_update", model=Order)
    async def typed(event: PullEvent[Order]) -> None:
        assert_type(event.params, Order)
        assert_type(event.params.id, int)

    assert_type(typed, Callable[[PullEvent[Order]], Coroutine[Any, Any, None]])

    @router.on("order_update", model=Order)
    def plain_function(event: PullEvent[Order]) -> None:
        assert_type(event.params, Order)

    def of_message(event: PullEvent[Message]) -> None:
        assert_type(event.params.text, str)

    router.on("order_update", model=Order)(of_message)  # type: ignore[arg-type]
    assert [handler.model for handler in registry_of(router).handlers()] == [adapter_of(Order)] * 3


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
