"""Routers in the bodies of classes, whose handlers are methods of an instance."""

from typing import Any

import pytest

from bitrix_pull import AccessToken, PullClient
from bitrix_pull.dispatch.dependencies import Supply
from bitrix_pull.dispatch.registry import CallNext, Context
from bitrix_pull.dispatch.router import Router
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import Event, PullEvent
from tests.dispatch.rig import event, mids, running


class Bot:
    router = Router(module="chat")

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[str] = []

    @router.middleware
    async def around(self, event: Event, call_next: CallNext, context: Context) -> object:
        self.seen.append(f"{self.name} before")
        return await call_next(event)

    @router.on("message")
    async def asked(self, event: PullEvent, db: str) -> None:
        self.seen.append(f"{self.name} {db} {event.mid[-1]}")
        raise ValueError("no")

    @router.on_error(ValueError)
    def oops(self, event: PullEvent, error: ValueError) -> None:
        self.seen.append(f"{self.name} oops")


async def test_each_instance_has_a_router_of_its_own_with_its_methods() -> None:
    bots = [Bot("a"), Bot("b")]
    top = Router()
    for bot in bots:
        top.include(bot.router)
        assert bot.router is bot.router
    async with running(top, supply=Supply({"db": "db"})) as rig:
        rig.put(event(1, "message", "chat"), event(2, "message"))
        await rig.idle()
        bots[0].router.off(bots[0].asked)
        rig.put(event(3, "message", "chat"))
        await rig.idle()
        assert rig.failures == []
        assert sorted(rig.settled) == mids(1, 2, 3)
    assert bots[0].seen == ["a before", "a db 1", "a oops"]
    assert bots[1].seen == ["b before", "b db 1", "b oops", "b before", "b db 3", "b oops"]


async def test_the_methods_stay_what_they_are() -> None:
    bot = Bot("a")
    with pytest.raises(ValueError, match="no"):
        await bot.asked(event(1), "db")
    assert bot.seen == ["a db 1"]


class OnMethod:
    router = Router()

    @router.on("x")
    def method(self, event: PullEvent) -> None: ...


class MiddlewareMethod:
    router = Router()

    @router.middleware
    async def method(self, event: Event, call_next: CallNext, context: Context) -> object:
        return await call_next(event)


class ErrorMethod:
    router = Router()

    @router.on_error(ValueError)
    def method(self, event: Event, error: ValueError) -> None: ...


@pytest.mark.parametrize("part", [OnMethod, MiddlewareMethod, ErrorMethod])
async def test_the_router_of_the_class_itself_cannot_be_used(part: Any) -> None:
    part.router.on("y")(lambda event: None)
    with pytest.raises(InvalidArgument, match=r"\.method is a method, and of no instance") as caught:
        async with running(part.router):
            pass
    assert "instance.router" in str(caught.value)
    async with running(part().router) as rig:
        rig.put(event(1, "y"))
        await rig.idle()


def test_what_is_no_method_leaves_the_router_as_it_is() -> None:
    class Holder:
        pull = PullClient(AccessToken("acme.bitrix24.com", "token"))
        router = Router()

        @staticmethod
        def plain(event: PullEvent) -> None: ...

        @pull.on("x")
        def method(self, event: PullEvent) -> None: ...

    Holder.router.on("x")(Holder.plain)
    holder = Holder()
    assert holder.router is Holder.router
    assert holder.pull is Holder.pull
