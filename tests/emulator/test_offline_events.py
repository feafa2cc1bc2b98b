"""The portal's own events, bound offline: queue, licences, connectors, announcements (protocol §10)."""

import json
from typing import Any

import pytest
from websockets.asyncio.client import connect

from bitrix_pull.emulator import Emulator
from bitrix_pull.wire import push_pb2
from bitrix_pull.wire.formats import WireFormat
from tests.emulator.conftest import Call, Clock, Launch, channel_ids, frame, subscribe

UPDATE = "ONCRMDEALUPDATE"
DEAL_7 = {"FIELDS": {"ID": "7"}}


async def bound(call: Call, *events: str, **params: Any) -> None:
    for event in events:
        status, answer = await call("event.bind", event=event, event_type="offline", **params)
        assert (status, answer["result"]) == (200, True)


async def listed(call: Call, **params: Any) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = (await call("event.offline.list", **params))[1]["result"]
    return result


async def taken(call: Call, **params: Any) -> tuple[str | None, list[str]]:
    """Take records: the process, and the deals that they are about."""
    result = (await call("event.offline.get", **params))[1]["result"]
    return result["process_id"], [event["EVENT_DATA"]["FIELDS"]["ID"] for event in result["events"]]


# -- binding ------------------------------------------------------------------------


async def test_events_of_the_scope_can_be_bound(emulator: Emulator, call: Call) -> None:
    emulator.portal.application_scope = {"pull", "task"}
    _, answer = await call("events")
    assert {"ONTASKADD", "ONAPPUPDATE"} < set(answer["result"])
    assert UPDATE not in answer["result"]
    assert UPDATE in (await call("events", FULL=True))[1]["result"]
    assert UPDATE in (await call("events", SCOPE="crm"))[1]["result"]
    status, answer = await call("event.bind", event=UPDATE, event_type="offline")
    assert (status, answer["error"]) == (400, "ERROR_EVENT_NOT_FOUND")


async def test_binding_the_same_again_is_an_error(call: Call) -> None:
    await bound(call, "OnCrmDealUpdate")
    status, answer = await call("event.bind", EVENT=UPDATE, EVENT_TYPE="offline")
    assert (status, answer["error"]) == (400, "ERROR_CORE")
    assert answer["error_description"] == "Unable to set event handler: Handler already binded"
    await bound(call, UPDATE, auth_connector="sync")
    assert (await call("event.get"))[1]["result"] == [
        {"event": UPDATE, "connector_id": "", "offline": 1},
        {"event": UPDATE, "connector_id": "sync", "offline": 1},
    ]
    assert (await call("event.unbind", event=UPDATE, event_type="offline"))[1]["result"] == {"count": 1}
    assert (await call("event.unbind", event=UPDATE, event_type="offline"))[1]["result"] == {"count": 0}


METHODS: dict[str, dict[str, Any]] = {
    "event.offline.list": {},
    "event.offline.get": {},
    "event.offline.clear": {"process_id": "x"},
    "event.offline.error": {"process_id": "x", "message_id": []},
    "event.bind": {"event": UPDATE, "event_type": "offline"},
}


@pytest.mark.parametrize("method", METHODS)
async def test_only_administrators_through_an_application(
    emulator: Emulator, call: Call, call_webhook: Call, method: str
) -> None:
    status, answer = await call_webhook(method, **METHODS[method])
    assert (status, answer["error"]) == (403, "WRONG_AUTH_TYPE")
    status, answer = await call(method, token=emulator.portal.issue_token(5), **METHODS[method])
    assert (status, answer["error"]) == (403, "ACCESS_DENIED")


# -- the queue ----------------------------------------------------------------------


async def test_what_is_not_bound_is_not_queued(emulator: Emulator, call: Call) -> None:
    emulator.portal.change(UPDATE, DEAL_7)
    assert await listed(call) == []


async def test_a_record(emulator: Emulator, call: Call, clock: Clock) -> None:
    await bound(call, UPDATE, "ONUSERADD")
    emulator.portal.change(UPDATE, DEAL_7, user_id=5)
    emulator.portal.change("ONUSERADD", user_id=None)
    first, second = await listed(call)
    message_id = first.pop("MESSAGE_ID")
    assert len(message_id) == 32
    assert first == {
        "ID": "1",
        "TIMESTAMP_X": "2027-01-15T11:00:00+03:00",
        "EVENT_NAME": UPDATE,
        "EVENT_DATA": DEAL_7,
        "EVENT_ADDITIONAL": {"user_id": "5"},
        "PROCESS_ID": "",
        "ERROR": "0",
    }
    assert (second["EVENT_DATA"], second["EVENT_ADDITIONAL"]) == (False, False)


async def test_a_second_change_moves_the_time_of_the_record_that_waits(
    emulator: Emulator, call: Call, clock: Clock
) -> None:
    await bound(call, UPDATE)
    emulator.portal.change(UPDATE, DEAL_7)
    before = await listed(call)
    clock.now += 10
    emulator.portal.change(UPDATE, DEAL_7, user_id=5)
    (after,) = await listed(call)
    assert after["TIMESTAMP_X"] == "2027-01-15T11:00:10+03:00"
    assert (after["ID"], after["EVENT_ADDITIONAL"]) == (before[0]["ID"], {"user_id": "5"})


async def test_reserved_records_are_hidden_and_can_be_asked_for_again(emulator: Emulator, call: Call) -> None:
    await bound(call, UPDATE)
    emulator.portal.change(UPDATE, DEAL_7)
    process, deals = await taken(call, clear=0)
    assert (process is not None and len(process), deals) == (32, ["7"])
    assert (await taken(call, clear=0))[1] == []
    assert await taken(call, clear=0, process_id=process) == (process, ["7"])
    # A change meanwhile is a record beside it.
    emulator.portal.change(UPDATE, DEAL_7)
    assert [row["PROCESS_ID"] for row in await listed(call)] == [process, ""]
    assert (await call("event.offline.clear", process_id=process, id=[2]))[1]["result"] is True
    assert len(await listed(call)) == 2
    await call("event.offline.clear", process_id=process)
    assert [row["PROCESS_ID"] for row in await listed(call)] == [""]


async def test_get_clears_by_default(emulator: Emulator, call: Call) -> None:
    await bound(call, UPDATE)
    for deal in range(60):
        emulator.portal.change(UPDATE, {"FIELDS": {"ID": str(deal)}})
    process, deals = await taken(call)
    assert process is None
    assert deals == [str(deal) for deal in range(50)]
    assert (await taken(call, limit=3))[1] == ["50", "51", "52"]
    assert len(await listed(call)) == 7


async def test_selecting(emulator: Emulator, call: Call, clock: Clock) -> None:
    await bound(call, UPDATE)
    for deal in ("1", "2", "3"):
        emulator.portal.change(UPDATE, {"FIELDS": {"ID": deal}})
        clock.now += 1
    emulator.portal.change(UPDATE, {"FIELDS": {"ID": "1"}})
    rows = await listed(call)
    assert [row["ID"] for row in await listed(call, order={"TIMESTAMP_X": "DESC"})] == ["1", "3", "2"]
    assert [row["ID"] for row in await listed(call, filter={">ID": 1, "=ERROR": 0})] == ["2", "3"]
    assert await listed(call, filter={">PROCESS_ID": ""}) == []
    # It has changed since it was looked at.
    assert await taken(call, filter={"=ID": "1", "<=TIMESTAMP_X": rows[1]["TIMESTAMP_X"]}) == (None, [])
    assert await taken(call, filter={"=ID": "1", "<=TIMESTAMP_X": rows[0]["TIMESTAMP_X"]}) == (None, ["1"])


@pytest.mark.parametrize(
    "params",
    [
        {"filter": {"!ID": 1}},
        {"filter": {"=PROCESS_ID": ""}},
        {"filter": {"=ID": [1]}},
        {"filter": "x"},
        {"filter": {"=TIMESTAMP_X": "soon"}},
        {"order": {"NAME": "ASC"}},
        {"order": {"ID": "UP"}},
        {"limit": 0},
    ],
)
async def test_what_cannot_be_selected(call: Call, params: dict[str, Any]) -> None:
    status, answer = await call("event.offline.get", **params)
    assert (status, answer["error"]) == (400, "ERROR_ARGUMENT")


async def test_pages(emulator: Emulator, call: Call) -> None:
    await bound(call, UPDATE)
    for deal in range(120):
        emulator.portal.change(UPDATE, {"FIELDS": {"ID": str(deal)}})
    _, first = await call("event.offline.list")
    assert (len(first["result"]), first["next"], first["total"]) == (50, 50, 120)
    _, last = await call("event.offline.list", start=100)
    assert (len(last["result"]), last["total"]) == (20, 120)
    assert "next" not in last


async def test_failed_records_come_only_when_asked_for(emulator: Emulator, call: Call, clock: Clock) -> None:
    await bound(call, UPDATE)
    emulator.portal.change(UPDATE, DEAL_7)
    process, _ = await taken(call, clear=0)
    (row,) = await listed(call)
    await call("event.offline.error", process_id=process, message_id=[row["MESSAGE_ID"]])
    (row,) = await listed(call)
    assert (row["PROCESS_ID"], row["ERROR"]) == ("", "1")
    assert (await taken(call, clear=0))[1] == []
    # It is the record that waits: a later change goes into it, and it stays failed.
    clock.now += 5
    emulator.portal.change(UPDATE, DEAL_7)
    (row,) = await listed(call)
    assert (row["TIMESTAMP_X"], row["ERROR"]) == ("2027-01-15T11:00:05+03:00", "1")
    assert (await taken(call, error=1))[1] == ["7"]
    assert await listed(call) == []


async def test_marking_as_failed_deletes_what_else_is_queued_of_it(emulator: Emulator, call: Call) -> None:
    await bound(call, UPDATE)
    emulator.portal.change(UPDATE, DEAL_7)
    process, _ = await taken(call, clear=0)
    emulator.portal.change(UPDATE, DEAL_7)
    first, _ = await listed(call)
    await call("event.offline.error", process_id=process, message_id=[first["MESSAGE_ID"]])
    assert [(row["ID"], row["ERROR"]) for row in await listed(call)] == [("1", "1")]


# -- licences and connectors --------------------------------------------------------


async def test_a_plan_without_reservation(emulator: Emulator, call: Call) -> None:
    assert (await call("feature.get", CODE="rest_offline_extended"))[1]["result"] == {"value": "Y"}
    emulator.portal.features["rest_offline_extended"] = "N"
    assert (await call("feature.get", CODE="rest_offline_extended"))[1]["result"] == {"value": "N"}
    status, answer = await call("event.offline.get", clear=0)
    assert (status, answer["error"]) == (403, "WRONG_LICENSE")
    assert (await call("event.offline.get"))[0] == 200
    # What a box says, where it is always possible.
    emulator.portal.features["rest_offline_extended"] = ""
    assert (await call("event.offline.get", clear=0))[0] == 200


async def test_a_plan_without_connectors(emulator: Emulator, call: Call) -> None:
    emulator.portal.features["rest_auth_connector"] = "N"
    status, answer = await call("event.offline.list", auth_connector="sync")
    assert (status, answer["error"]) == (403, "WRONG_LICENSE")


async def test_own_changes_reach_only_other_connectors(emulator: Emulator, call: Call) -> None:
    await bound(call, UPDATE)
    await bound(call, UPDATE, auth_connector="sync")
    deal = (await call("crm.deal.add", fields={"TITLE": "Chairs"}))[1]["result"]
    await call("crm.deal.update", id=deal, fields={"TITLE": "Tables"}, auth_connector="sync")
    assert len(await listed(call)) == 1
    assert await listed(call, auth_connector="sync") == []
    await call("crm.deal.update", id=deal, fields={"TITLE": "Lamps"})
    assert len(await listed(call)) == 1
    assert len(await listed(call, auth_connector="sync")) == 1


async def test_what_a_webhook_changes_is_queued(emulator: Emulator, call: Call, call_webhook: Call) -> None:
    await bound(call, "ONCRMDEALADD")
    emulator.portal.webhook_scope.add("crm")
    await call_webhook("crm.deal.add", fields={"TITLE": "Chairs"})
    assert len(await listed(call)) == 1


# -- the announcement ---------------------------------------------------------------


def announced(body: bytes) -> list[Any]:
    batch = push_pb2.ResponseBatch.FromString(body)
    return [
        json.loads(message.body)
        for response in batch.responses
        for message in response.outgoingMessages.messages
    ]


async def test_the_announcement(emulator: Emulator, call: Call) -> None:
    await bound(call, UPDATE, "ONCRMDEALADD")
    async with subscribe(emulator, channel_ids(emulator)[1:]) as websocket:
        emulator.portal.change(UPDATE, DEAL_7)
        (message,) = announced(await frame(websocket))
        assert (message["module_id"], message["command"]) == ("rest", "event_offline")
        assert message["params"] == [{"connector_id": "", "count": 1}]
        # Nothing is queued, so nothing is said.
        await call("crm.deal.add", fields={})
        emulator.portal.faults.lose_announcements = True
        emulator.portal.change(UPDATE, DEAL_7)
        emulator.portal.faults.lose_announcements = False
        await bound(call, UPDATE, auth_connector="sync")
        await call(
            "batch",
            cmd=["crm.deal.add?fields[TITLE]=A", "crm.deal.update?id=1&fields[TITLE]=B"],
            auth_connector="other",
        )
        (message,) = announced(await frame(websocket))
        assert message["params"] == [{"connector_id": "", "count": 2}, {"connector_id": "sync", "count": 1}]


@pytest.mark.parametrize(("version", "wire_format"), [(3, WireFormat.TEXT), (5, WireFormat.JSONRPC)])
async def test_the_announcement_in_other_versions(
    launch: Launch, version: int, wire_format: WireFormat
) -> None:
    emulator = await launch(version=version)
    emulator.portal.offline.bindings.append((UPDATE, ""))
    if version < 5:
        subscribed = subscribe(emulator, channel_ids(emulator)[1:], wire_format)
    else:
        token = emulator.portal.config("application", 1)["jwt"]
        subscribed = connect(f"{emulator.subws_url}?token={token}&jsonRpc=true")
    async with subscribed as websocket:
        emulator.portal.change(UPDATE, DEAL_7)
        assert b"event_offline" in await frame(websocket)


# -- deals and batches --------------------------------------------------------------


async def test_deals(emulator: Emulator, call: Call) -> None:
    for number in range(60):
        await call("crm.deal.add", fields={"title": f"Deal {number}", "OPPORTUNITY": number})
    _, got = await call("crm.deal.get", ID="60")
    assert (got["result"]["TITLE"], got["result"]["OPPORTUNITY"]) == ("Deal 59", "59")
    _, page = await call("crm.deal.list", start=50, select=["TITLE"])
    assert (page["total"], page["result"][0]) == (60, {"ID": "51", "TITLE": "Deal 50"})
    _, found = await call("crm.deal.list", filter={"TITLE": "Deal 7"})
    assert [deal["ID"] for deal in found["result"]] == ["8"]
    await call("crm.deal.delete", id=8)
    status, answer = await call("crm.deal.get", id=8)
    assert (status, answer["error_description"]) == (400, "Not found")
    assert (await call("crm.deal.get", id="x"))[0] == 400
    assert (await call("crm.deal.add"))[0] == 400


async def test_a_batch(emulator: Emulator, call: Call) -> None:
    _, answer = await call(
        "batch",
        cmd={
            "add": "crm.deal.add?fields%5BTITLE%5D=Chairs%20%26%20tables",
            "get": "crm.deal.get?id=1",
            "none": "crm.deal.get?id=2",
            "list": "crm.deal.list",
            "unknown": "crm.nothing",
            "nested": "batch?cmd[0]=server.time",
        },
    )
    result = answer["result"]
    assert result["result"]["add"] == 1
    assert result["result"]["get"]["TITLE"] == "Chairs & tables"
    assert result["result_total"] == {"list": 1}
    assert result["result_next"] == []
    assert {key: error["error"] for key, error in result["result_error"].items()} == {
        "none": "",
        "unknown": "ERROR_METHOD_NOT_FOUND",
        "nested": "ERROR_BATCH_METHOD_NOT_ALLOWED",
    }
    _, answer = await call("batch", halt=1, cmd=["crm.deal.get?id=2", "crm.deal.get?id=1"])
    assert answer["result"]["result"] == []
    status, answer = await call("batch", cmd=["server.time"] * 51)
    assert (status, answer["error"]) == (400, "ERROR_BATCH_LENGTH_EXCEEDED")
