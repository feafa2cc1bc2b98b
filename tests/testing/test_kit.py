"""A user's suite, as one would write it: the same tests without a network, and against the emulator."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from bitrix_pull import (
    Continuity,
    Gap,
    HandlerFailed,
    OutcomeUnknown,
    PullEvent,
    Router,
    Sender,
    SenderType,
    State,
)
from bitrix_pull.errors import AccessDenied, InvalidArgument, NoChannel, PortalUnavailable
from bitrix_pull.testing import TestClient, make_event
from tests.testing import shop
from tests.testing.shop import Warehouse, router


@pytest.fixture
def warehouse() -> Warehouse:
    shop.parked.clear()
    return Warehouse()


@pytest.fixture(params=[False, True], ids=["in-process", "emulator"])
async def client(request: pytest.FixtureRequest, warehouse: Warehouse) -> AsyncIterator[TestClient]:
    context = {"warehouse": warehouse}
    async with TestClient(router, context=context, emulator=request.param, timeout=20) as client:
        yield client


# -- handlers ---------------------------------------------------------------------------------


async def test_a_paid_order_is_packed(client: TestClient, warehouse: Warehouse) -> None:
    result = await client.deliver("order_update", {"id": 7, "status": "paid"})

    assert result.handled == ("pack",)
    assert result.acked
    assert result["pack"].returned == "packed"
    assert warehouse.packed == [7]


async def test_an_unpaid_order_is_not(client: TestClient, warehouse: Warehouse) -> None:
    result = await client.deliver("order_update", {"id": 7})

    assert (result.handled, result.skipped, warehouse.packed) == ((), ("pack",), [])


async def test_what_fits_no_model_fails_at_once(client: TestClient) -> None:
    result = await client.deliver("order_update", {"id": "seven"})

    assert "int_parsing" in str(result.failed["pack"]) or "integer" in str(result.failed["pack"])
    assert result["pack"].attempts == 0


async def test_nobody_wants_another_module(client: TestClient) -> None:
    result = await client.deliver("order_update", {"id": 7}, module="im")

    assert result.handlings == ()
    assert result.acked


async def test_middleware_is_around_handlers(client: TestClient, warehouse: Warehouse) -> None:
    await client.deliver("order_update", {"id": 7, "status": "paid"})

    assert warehouse.timings == ["application.order_update"]


@pytest.mark.parametrize("emulator", [False, True])
async def test_an_event_has_what_events_have(emulator: bool) -> None:
    seen: list[PullEvent] = []
    router = Router()
    router.on("x")(seen.append)
    async with TestClient(router, emulator=emulator) as client:
        await client.deliver("x", {"a": [1]})
        await client.deliver("x", sender=Sender(SenderType.CLIENT, "ab" * 16))

    first, second = seen
    assert (first.kind, first.module_id, first.params) == ("server", "application", {"a": [1]})
    assert first.mid < second.mid
    assert first.created is not None
    assert (second.kind, second.sender.id, second.params) == ("client", "ab" * 16, {})


async def test_events_of_one_album_keep_their_order(client: TestClient, warehouse: Warehouse) -> None:
    for number in range(5):
        await client.deliver("album", {"id": number, "album": "summer"})

    assert warehouse.packed == [0, 1, 2, 3, 4]


async def test_many_at_once(client: TestClient, warehouse: Warehouse) -> None:
    orders = [client.deliver("order_update", {"id": n, "status": "paid"}) for n in range(20)]
    results = await asyncio.gather(*orders)

    assert warehouse.packed == list(range(20))
    assert all(result.handled for result in results)


# -- failures, retries, time ---------------------------------------------------------------------


async def test_an_error_handler_deals_with_it(client: TestClient, warehouse: Warehouse) -> None:
    result = await client.deliver("mistake")

    assert result.handled == ("mistake",)
    assert str(result["mistake"].errors[0]) == "no such order"
    assert warehouse.parked == ["no such order"]


async def test_what_fails_is_told(client: TestClient, warehouse: Warehouse) -> None:
    warehouse.failures = 1
    result = await client.deliver("order_update", {"id": 7, "status": "paid"})

    with pytest.raises(OSError, match="does not answer"):
        result.raise_for_failures()
    assert result.acked
    (failed,) = [notice for notice in client.notices if isinstance(notice, HandlerFailed)]
    assert failed.handler == "pack"


async def test_a_bill_is_booked_at_the_third_attempt(client: TestClient, warehouse: Warehouse) -> None:
    warehouse.failures = 2
    result = await client.deliver("invoice", {"id": 7})

    assert result.handled == ("book",)
    assert result.retried == {"book": 2}
    assert result.took_s >= 30 + 50  # The second wait is cut to 60 s, jitter included.
    assert warehouse.packed == [7]
    assert shop.parked == []


async def test_a_dead_letter_is_parked(client: TestClient, warehouse: Warehouse) -> None:
    warehouse.failures = 4
    result = await client.deliver("invoice", {"id": 7})

    assert list(result.failed) == ["book"]
    assert result["book"].attempts == 4
    assert shop.parked == [(7, "the warehouse does not answer")]


async def test_a_handler_is_given_thirty_seconds(client: TestClient) -> None:
    result = await client.deliver("photo", advance=31)

    assert isinstance(result.failed["develop"], TimeoutError)


async def test_others_are_handled_meanwhile(client: TestClient, warehouse: Warehouse) -> None:
    photo = asyncio.create_task(client.deliver("photo"))
    order = asyncio.create_task(client.deliver("order_update", {"id": 7, "status": "paid"}))
    await client.advance(1)
    assert warehouse.packed == [7]
    await client.advance(30)

    assert (await photo).failed
    assert (await order).handled


async def test_a_payment_is_acknowledged_by_hand(client: TestClient, warehouse: Warehouse) -> None:
    result = await client.deliver("payment", {"id": 7})

    assert (result.handled, result.acked, warehouse.packed) == (("pay",), True, [7])


async def test_a_payment_that_is_given_back_comes_again(client: TestClient, warehouse: Warehouse) -> None:
    result = await client.deliver("payment", {"id": 7, "later": True})

    assert (result.handled, result.retried, warehouse.packed) == (("pay",), {"pay": 1}, [7])
    assert result.took_s >= 60


async def test_a_payment_without_a_word_stays_unsettled(client: TestClient) -> None:
    result = await client.deliver("payment", {"id": 7, "forget": True})

    assert not result.acked
    assert result.handled == ()


# -- publishing -----------------------------------------------------------------------------------


async def test_what_is_shipped_is_announced(client: TestClient, warehouse: Warehouse) -> None:
    await client.deliver("ship", {"id": 7})

    (published,) = client.published
    assert (published.command, published.params, published.users) == ("order_packed", {"id": 7}, ())
    assert published.receipt.route == "rest"
    assert published.error is None
    # Who publishes to the shared channel hears it too.
    assert warehouse.parked == [("server", {"id": 7})]


async def test_a_refusal_is_tried_again(client: TestClient) -> None:
    client.refuse(PortalUnavailable("the portal has a break", status=503))
    result = await client.deliver("ship", {"id": 7})

    assert result.retried == {"ship": 1}
    assert [item.fate.outcome for item in client.published] == ["refused", "accepted"]


async def test_each_message_has_a_fate(client: TestClient) -> None:
    client.refuse(NoChannel("user 7 was dismissed"))
    client.refuse(OutcomeUnknown("the connection broke"))
    result = await client.deliver("tell", {"users": [7, 8, 9]})

    assert result["tell"].returned == ["refused", "unknown"]
    assert [item.users for item in client.published if item.error is None] == [(9,)]


async def test_only_one_command_is_refused(client: TestClient) -> None:
    client.refuse(AccessDenied("only an administrator may"), command="order_packed")
    await client.pull.publish("other", users=5)

    assert await shop.publish_or_say_why(client.pull) == "portal: " + str(client.published[-1].error)
    assert await shop.publish_or_say_why(client.pull) == "published"


# -- the portal ------------------------------------------------------------------------------------


async def test_a_deal_is_mirrored(client: TestClient, warehouse: Warehouse) -> None:
    client.answer("crm.deal.get", lambda params: {"ID": str(params["id"]), "STAGE_ID": "WON"})
    result = await client.deliver_portal_event("ONCRMDEALUPDATE", id=7)

    assert result.handled == ("deal_changed",)
    assert warehouse.deals == {7: "WON"}
    assert [(call.method, call.params["id"]) for call in client.calls] == [("crm.deal.get", 7)]


async def test_a_portal_that_fails_is_asked_again(client: TestClient, warehouse: Warehouse) -> None:
    client.answer("crm.deal.get", {"STAGE_ID": "NEW"})
    client.answer("crm.deal.get", PortalUnavailable("maintenance", status=503), times=2)
    result = await client.deliver_portal_event("ONCRMDEALUPDATE", id=7)

    assert (result.handled, result.retried) == (("deal_changed",), {"deal_changed": 2})
    assert warehouse.deals == {7: "NEW"}


async def test_a_deal_that_cannot_be_mirrored_has_failed(client: TestClient, warehouse: Warehouse) -> None:
    client.answer("crm.deal.get", {"STAGE_ID": "NEW"})
    warehouse.failures = 3
    result = await client.deliver_portal_event("ONCRMDEALUPDATE", id=7)

    assert isinstance(result.failed["deal_changed"], OSError)


async def test_fields_of_a_portal_event(client: TestClient, warehouse: Warehouse) -> None:
    await client.deliver_portal_event("ONTASKADD", id=3, fields={"FOR": 12}, user_id=5)

    assert warehouse.packed == [12]


async def test_one_deal_after_the_other(client: TestClient, warehouse: Warehouse) -> None:
    client.answer("crm.deal.get", {"STAGE_ID": "WON"})
    for deal in (1, 2, 1):
        await client.deliver_portal_event("ONCRMDEALUPDATE", id=deal)

    assert warehouse.packed == [1, 2, 1]


async def test_an_answer_that_nobody_would_await_is_refused(client: TestClient) -> None:
    async def answer(params: object) -> object:
        return {}

    with pytest.raises(InvalidArgument, match="plain function"):
        client.answer("crm.deal.get", answer)


async def test_several_calls_in_one(client: TestClient) -> None:
    client.answer("crm.deal.get", lambda params: {"ID": params["id"]})
    client.answer("crm.lead.get", InvalidArgument("never sent"), times=1)
    client.answer("crm.lead.get", AccessDenied("not yours", code="ACCESS_DENIED", status=403))
    deal, lead = await client.pull.batch_call([("crm.deal.get", {"id": 7}), ("crm.lead.get", {"id": 8})])

    assert deal == {"ID": "7"}
    assert isinstance(lead, AccessDenied)


async def test_a_list_comes_whole(client: TestClient) -> None:
    client.answer("crm.deal.list", [{"ID": str(n)} for n in range(120)])

    assert len([deal async for deal in client.pull.fetch_all("crm.deal.list")]) == 120


# -- the connection ----------------------------------------------------------------------------------


async def test_what_was_missed_comes_after_a_cut(client: TestClient, warehouse: Warehouse) -> None:
    await client.deliver("order_update", {"id": 1, "status": "paid"})
    missed = [make_event("order_update", {"id": n, "status": "paid"}) for n in (2, 3)]
    results = await client.cut(missed)

    assert warehouse.packed == [1, 2, 3]
    assert [result.event.replayed for result in results] == [True, True]
    (told,) = [notice for notice in client.notices if isinstance(notice, Continuity)]
    assert (told.recovered, told.replayed) == ("yes", 2)
    assert client.pull.state is State.LIVE


async def test_a_gap_makes_it_fetch_everything_anew(client: TestClient, warehouse: Warehouse) -> None:
    fetched: list[str] = []

    async def fetch() -> None:
        fetched.append("everything")

    watching = asyncio.create_task(shop.resync(client.pull, fetch))
    await client.deliver("order_update", {"id": 1, "status": "paid"})
    await client.gap()
    result = await client.deliver("order_update", {"id": 2, "status": "paid"})

    assert fetched == ["everything"]
    assert any(isinstance(notice, Gap) for notice in client.notices)
    assert result.handled == ("pack",)
    watching.cancel()


async def test_half_a_day_passes(client: TestClient, warehouse: Warehouse) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await client.advance(hours=12, minutes=30)
    result = await client.deliver("order_update", {"id": 1, "status": "paid"})

    assert 12.5 * 3600 <= loop.time() - began < 12.6 * 3600
    assert result.handled == ("pack",)
    assert not [notice for notice in client.notices if isinstance(notice, Gap)]
