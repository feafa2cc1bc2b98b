"""The page's stream and its buttons, without a browser."""

import asyncio
import json
import time
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bitrix_pull import AccessToken, PullClient, PullEvent, Webhook
from bitrix_pull.emulator import Emulator
from bitrix_pull.inspector import Inspector
from bitrix_pull.inspector.stream import Streams
from bitrix_pull.inspector.tape import EVENTS_MAX, Tapes
from tests.inspector.conftest import Inspected, inspecting


async def test_events_come_with_what_is_known_of_them(emulator: Emulator, inspected: Inspected) -> None:
    before = time.time()
    mid = emulator.portal.send("order_update", {"id": 7, "for": "Юрий"})
    await inspected.pull.publish("chat_message", {"text": "hi"}, to_self=True, route="endpoint")

    first, second = await inspected.events(2)
    assert (first["module"], first["command"], first["mid"]) == ("application", "order_update", mid)
    assert json.loads(first["params"]) == {"id": 7, "for": "Юрий"}
    assert before <= first["at"] <= time.time()
    assert (first["sender"], second["sender"], second["kind"]) == ("backend", "client", "client")


async def test_handlers_of_the_users_get_their_events_as_ever(emulator: Emulator) -> None:
    pull = PullClient(AccessToken(emulator.portal_url, emulator.token))
    got: list[Any] = []

    @pull.on("order_update")
    async def handle(event: PullEvent[Any]) -> None:
        got.append(event.params)

    async with inspecting(emulator, pull) as inspected:
        for number in range(3):
            emulator.portal.send("order_update", {"id": number})
        await inspected.events(3)
        async with asyncio.timeout(10):
            while len(got) < 3:
                await asyncio.sleep(0.01)
    assert got == [{"id": 0}, {"id": 1}, {"id": 2}]


async def test_a_page_goes_on_where_it_was(emulator: Emulator, inspected: Inspected) -> None:
    emulator.portal.send("first")
    await inspected.events(1)
    ids = [id_ async for topic, id_, _ in _until(inspected, "events")]
    emulator.portal.send("second")
    await inspected.events(2)
    async for topic, _, content in inspected.stream(after=ids[-1]):
        if topic == "events":
            assert [event["command"] for event in content["entries"]] == ["second"]
            assert (content["first"], content["missed"]) == (1, 0)
            break


async def _until(inspected: Inspected, wanted: str) -> Any:
    async for topic, id_, content in inspected.stream():
        yield topic, id_, content
        if topic == wanted:
            return


@pytest.mark.parametrize("strange", ["0", "a-b-c", "-1-0-0", "9" * 30, "0-0-0-0", "999999-999999-999999"])
async def test_a_strange_place_to_go_on_at_is_no_harm(inspected: Inspected, strange: str) -> None:
    async for topic, _, content in inspected.stream(after=strange):
        assert content["missed"] == 0
        if topic == "looks":
            break


async def test_what_befalls_the_connection_is_told(emulator: Emulator, inspected: Inspected) -> None:
    emulator.portal.send("before")
    await inspected.events(1)
    await emulator.push.disconnect_all()
    emulator.portal.send("meanwhile")
    (_, meanwhile) = await inspected.events(2)
    assert meanwhile["replayed"] or meanwhile["healed"]

    told: list[str] = []
    async for topic, _, content in inspected.stream():
        if topic == "notices":
            told += [notice["text"] for notice in content["entries"]]
        if topic == "looks":
            look = content["entries"][-1]
            assert look["connects"] == 2
            assert look["received"] == 2
            assert (look["state"], look["transport"], look["server_version"]) == ("live", "websocket", 4)
            break
    assert told.count("Live.") == 2
    assert any(text.startswith("Not connected: ") for text in told)
    assert any(text.startswith("Back after ") for text in told)


async def test_a_client_that_fails_for_good_leaves_the_page_to_say_why(emulator: Emulator) -> None:
    pull = PullClient(AccessToken(emulator.portal_url, "of_nobody_who_is_known_here"))
    async with (
        Inspector(pull) as inspector,
        pull.serving(),
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http,
    ):
        async with http.get(inspector.url) as response:
            assert response.status == 200
        inspected = Inspected(pull, inspector, http)
        async for topic, _, content in inspected.stream():
            if topic == "notices" and content["entries"][-1].get("state") == "failed":
                assert content["entries"][-1]["level"] == "bad"
                break
        status, answer = await inspected.press("diagnose")
        assert status == 200
        assert answer["level"] == "fail"


async def test_a_page_that_does_not_read_is_told_what_it_missed_and_costs_nothing_more() -> None:
    """Its place is a number; what is kept for all is bounded."""
    tapes = Tapes()
    streams = Streams(tapes)
    app = web.Application()
    app.router.add_get("/stream", streams.serve)
    total = 4 * EVENTS_MAX
    async with TestServer(app) as server, asyncio.TaskGroup() as tasks:
        tasks.create_task(streams.spread_news())
        reader, writer = await asyncio.open_connection(server.host, server.port, limit=1024)
        writer.write(b"GET /stream HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 0-0-0\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        for number in range(total):
            tapes.events.append(b'"%s"' % (b"x" * 4_000))
            if number % 100 == 0:
                await asyncio.sleep(0)
        assert tapes.events.size <= 16 * 1024 * 1024
        numbers, missed = await _read_on(reader, total)
        tapes.end()
        writer.close()
    assert missed > 0
    assert len(numbers) + missed == total
    assert numbers == sorted(numbers)
    assert numbers[-1] == total - 1


async def _read_on(reader: asyncio.StreamReader, total: int) -> tuple[list[int], int]:
    numbers: list[int] = []
    missed = 0
    text = b""
    async with asyncio.timeout(60):
        while len(numbers) + missed < total:
            size = int(await reader.readline(), 16)
            text += await reader.readexactly(size)
            await reader.readexactly(2)
            *whole, text = text.split(b"\n\n")
            for message in whole:
                _, found, data = message.partition(b"data: ")
                if found:
                    content = json.loads(data)
                    missed += content["missed"]
                    numbers += range(content["first"], content["first"] + len(content["entries"]))
    return numbers, missed


async def test_publishing_tells_the_outcome(emulator: Emulator, inspected: Inspected) -> None:
    form = {"command": "order_update", "params": '{"id": 7}', "to": "users", "users": "1", "route": "rest"}
    status, answer = await inspected.press("publish", **form)
    assert status == 200
    assert (answer["route"], answer["confirmed"]) == ("rest", True)
    assert answer["took_s"] > 0
    (event,) = await inspected.events(1)
    assert json.loads(event["params"]) == {"id": 7}

    status, answer = await inspected.press("publish", **{**form, "route": "socket", "to": "myself"})
    assert (status, answer["confirmed"]) == (200, False)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"command": "not allowed!"}, "command"),
        ({"command": "a", "params": "{nope"}, "the params are no JSON"),
        ({"command": "a", "params": "[" * 100_000}, "the params are no JSON"),
        ({"command": "a", "params": "[1]"}, "must be a JSON object"),
        ({"command": "a", "to": "users", "users": "one"}, "no user ids"),
        ({"command": "a", "to": "users", "users": ""}, "no user ids"),
        ({"command": "a", "route": "pigeon"}, "route"),
        ({"command": "a", "colour": "red"}, "colour"),
        ({}, "command"),
    ],
)
async def test_what_cannot_be_published_says_why(
    inspected: Inspected, form: dict[str, Any], words: str
) -> None:
    status, answer = await inspected.press("publish", **form)
    assert status == 422
    assert words in answer["error"]


async def test_presence(emulator: Emulator, inspected: Inspected) -> None:
    other = PullClient(AccessToken(emulator.portal_url, emulator.portal.issue_token(2)))
    async with other:
        status, answer = await inspected.press("online", users="1, 2 3")
    assert status == 200
    assert [(user["id"], user["online"]) for user in answer["users"]] == [(1, True), (2, True), (3, False)]


async def test_the_queue_is_looked_at_and_left_as_it_is(emulator: Emulator, inspected: Inspected) -> None:
    status, answer = await inspected.press("queue")
    assert (status, answer["bound"], answer["records"]) == (200, [], [])

    await inspected.pull.call("event.bind", {"event": "ONCRMDEALADD", "event_type": "offline"})
    for _ in range(60):
        emulator.portal.deals.add({"TITLE": "Chairs"})
    await inspected.pull.call("event.offline.get", {"clear": 0, "limit": 10})
    for _ in range(2):
        status, answer = await inspected.press("queue")
        assert answer["bound"] == [{"event": "ONCRMDEALADD", "connector": ""}]
        assert answer["counts"] == {"waiting": 50, "reserved": 10, "failed": 0}
        assert len(answer["records"]) == 50
        assert json.loads(answer["records"][0]["data"]) == {"FIELDS": {"ID": "60"}}


async def test_a_webhook_has_no_queue_and_the_page_says_so(emulator: Emulator) -> None:
    async with inspecting(emulator, PullClient(Webhook(emulator.webhook_url))) as inspected:
        status, answer = await inspected.press("queue")
    assert status == 422
    assert answer["error"]


async def test_the_doctor_is_asked(inspected: Inspected) -> None:
    status, answer = await inspected.press("diagnose", publish=False)
    assert (status, answer["level"]) == (200, "ok")
    assert {finding["check"] for finding in answer["findings"]} >= {"portal", "credentials", "websocket"}


async def test_an_event_that_is_not_kept_is_no_test(inspected: Inspected) -> None:
    status, answer = await inspected.get("events/0/test")
    assert status == 410
    assert "too old" in answer["error"]


async def test_nothing_of_it_is_left_when_it_is_closed(emulator: Emulator) -> None:
    pull = PullClient(AccessToken(emulator.portal_url, emulator.token))
    async with aiohttp.ClientSession() as http, Inspector(pull) as inspector, pull:
        url = inspector.url.replace("/?", "/stream?")
        async with http.get(url) as response:
            await response.content.readany()
            reading = asyncio.create_task(response.content.read())
            await asyncio.sleep(0.2)
            async with asyncio.timeout(10):
                # An open stream does not hold it up, and ends.
                await pull.close()
                await inspector.__aexit__(None, None, None)
                await reading
    assert not [task for task in asyncio.all_tasks() if "inspector" in task.get_name()]


async def test_it_is_entered_once(emulator: Emulator) -> None:
    inspector = Inspector(PullClient(AccessToken(emulator.portal_url, emulator.token)))
    async with inspector:
        pass
    with pytest.raises(RuntimeError, match="create another one"):
        await inspector.__aenter__()


async def test_a_port_that_is_taken_is_an_error_and_leaves_nothing(emulator: Emulator) -> None:
    async with inspecting(emulator) as inspected:
        port = int(inspected.url.rstrip("/").rpartition(":")[2])
        other = Inspector(PullClient(AccessToken(emulator.portal_url, emulator.token)), port=port)
        with pytest.raises(OSError, match="address"):
            await other.__aenter__()
