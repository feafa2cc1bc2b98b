"""Portals as a product: their options, and the control API that drives them."""

import asyncio
import contextlib
import json
import random
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from pydantic import TypeAdapter, ValidationError
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bitrix_pull.emulator.channels import Owner
from bitrix_pull.emulator.control.operations import OPERATIONS
from bitrix_pull.emulator.orders import Faults, User
from bitrix_pull.emulator.stand import Setup, Stand
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.protobuf import read
from bitrix_pull.wire.urls import subscription_url
from tests.emulator.conftest import channel_ids, frame, mids, subscribe, until

Order = Callable[..., Awaitable[tuple[int, Any]]]


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with Stand(Setup(control_port=0, portals=2, gather_s=0.02)) as stand:
        yield stand


@pytest.fixture
async def order(stand: Stand) -> AsyncIterator[Order]:
    async with aiohttp.ClientSession() as session:

        async def order(verb: str, path: str, **body: Any) -> tuple[int, Any]:
            url = stand.control_url + path
            async with session.request(verb, url, json=body or None) as answer:
                return answer.status, await answer.json()

        yield order


# -- options ------------------------------------------------------------------------------


def two_free_ports() -> int:
    """Return the first of two neighbours that the system gives to nobody who names none."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as one, socket.socket() as other, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 1))
            return port


async def test_portals_are_told_apart_and_lasting() -> None:
    free = two_free_ports()
    setup = Setup(port=free, portals=2, security_key="key")
    async with Stand(setup) as first:
        described = first.described()
    async with Stand(setup) as second:
        assert second.described() == described
    (other,) = described["others"]
    assert other["portal"] == f"http://127.0.0.1:{free + 1}"
    assert other["token"] != described["token"]


async def test_what_is_set_is_so() -> None:
    setup = Setup(
        version=3,
        licence="basic",
        users=TypeAdapter(list[User]).validate_python([{"id": 2, "admin": True}, {"id": 3, "active": False}]),
        faults=Faults(maintenance="PORTAL_DELETED"),
        static={"User.Get": [{"ID": "1"}]},
        gather_s=0,
        rest_limit=(1, 0.001),
        channel_life_s=60,
    )
    async with Stand(setup) as stand, aiohttp.ClientSession() as session:
        (emulator,) = stand.emulators
        assert emulator.push.version == 3
        assert set(emulator.portal.features.values()) == {"N"}
        assert (emulator.portal.admins, emulator.portal.inactive) == ({1, 2}, {3})
        url = f"{emulator.portal_url}/rest/user.get"
        async with session.post(url, json={"auth": emulator.token}) as answer:
            assert (await answer.json())["error"] == "PORTAL_DELETED"
        emulator.portal.faults.maintenance = None
        async with session.post(url, json={"auth": emulator.token}) as answer:
            assert (await answer.json())["result"] == [{"ID": "1"}]
        async with session.post(url, json={"auth": emulator.token}) as answer:
            assert (await answer.json())["error"] == "QUERY_LIMIT_EXCEEDED"
        assert stand.control_url == ""


async def test_without_gathering_each_message_is_a_frame() -> None:
    async with Stand(Setup(gather_s=0)) as stand:
        (emulator,) = stand.emulators
        async with subscribe(emulator, channel_ids(emulator)) as websocket:
            await until(lambda: len(emulator.push.connections) == 1)
            sent = []
            for _ in range(5):
                sent.append(emulator.portal.send("c"))
                await asyncio.sleep(0.001)
            assert [(await mids(websocket))[0] for _ in range(5)] == sent


async def test_latency_puts_off_what_is_written_in_order_and_the_end_after_it() -> None:
    async with Stand(Setup(gather_s=0, latency_s=0.2)) as stand:
        (emulator,) = stand.emulators
        loop = asyncio.get_running_loop()
        async with subscribe(emulator, channel_ids(emulator)) as websocket:
            began = loop.time()
            sent = [emulator.portal.send("c")]
            await asyncio.sleep(0.05)
            sent.append(emulator.portal.send("c"))
            assert [await mids(websocket), await mids(websocket)] == [sent[:1], sent[1:]]
            assert loop.time() - began >= 0.24
            emulator.portal.send("last")
            await emulator.push.disconnect_all(1012)
            await frame(websocket)
            with pytest.raises(ConnectionClosed):
                await frame(websocket)


async def test_tls_is_trusted_by_who_trusts_its_authority() -> None:
    async with Stand(Setup(tls=True, control_port=0)) as stand, aiohttp.ClientSession() as session:
        (emulator,) = stand.emulators
        trusting = ssl.create_default_context(cadata=stand.authority)
        async with session.get(f"{stand.control_url}/ca.pem") as answer:
            assert await answer.text() == stand.authority
        assert emulator.portal_url.startswith("https://")
        url = f"{emulator.portal_url}/rest/pull.application.config.get"
        async with session.post(url, json={"auth": emulator.token}, ssl=trusting) as answer:
            server = (await answer.json())["result"]["server"]
        assert server["websocket_secure"] == emulator.subws_url
        assert server["websocket_secure"].startswith("wss://")
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.post(url)
        ids = channel_ids(emulator)
        async with connect(
            subscription_url(emulator.subws_url, ids, WireFormat.PROTOBUF), ssl=trusting
        ) as websocket:
            assert await mids_next(stand, websocket)


async def mids_next(stand: Stand, websocket: Any) -> bool:
    sent = stand.emulators[0].portal.send("c")
    return await mids(websocket) == [sent]


async def test_a_taken_port_leaves_nothing_behind() -> None:
    async with Stand(Setup(control_port=0)) as stand:
        taken = int(stand.control_url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            await Stand(Setup(control_port=taken)).__aenter__()


# -- the control API: what it says of itself ------------------------------------------------


async def test_every_operation_is_described(stand: Stand, order: Order) -> None:
    _, api = await order("GET", "/openapi.json")
    assert api["openapi"].startswith("3.1")
    described = {(verb.upper(), path) for path, verbs in api["paths"].items() for verb in verbs}
    assert described == {(operation.verb, operation.path) for operation in OPERATIONS}
    named = [item["operationId"] for verbs in api["paths"].values() for item in verbs.values()]
    assert len(set(named)) == len(named)
    referred = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(api)))
    assert referred == set(api["components"]["schemas"])


async def test_the_page_says_what_this_is(stand: Stand) -> None:
    async with aiohttp.ClientSession() as session, session.get(stand.control_url) as answer:
        assert answer.content_type == "text/html"
        page = await answer.text()
    assert f"curl {stand.control_url}/events" in page
    for emulator in stand.emulators:
        assert emulator.refresh_token in page


async def test_it_tells_all_that_a_client_needs(stand: Stand, order: Order) -> None:
    _, portals = await order("GET", "/portals")
    assert (await order("GET", "/portals/1"))[1] == portals[1]
    assert portals[0]["portal"] == stand.emulators[0].portal_url
    assert {"refresh_token", "client_id", "client_secret", "oauth", "member_id"} <= portals[0].keys()


@pytest.mark.parametrize(
    ("verb", "path", "body", "status", "words"),
    [
        ("POST", "/events", {}, 422, "command: Field required"),
        ("POST", "/events", {"command": "c", "usres": [1]}, 422, "usres"),
        ("PATCH", "/faults", {"delay_s": -1}, 422, "delay_s"),
        ("POST", "/events?portal=2", {"command": "c"}, 404, "no portal 2"),
        ("GET", "/portals/x", {}, 404, "no portal x"),
        ("PATCH", "/deals/7", {"fields": {}}, 404, "no record 7"),
    ],
)
async def test_what_is_wrong_is_said(
    order: Order, verb: str, path: str, body: Any, status: int, words: str
) -> None:
    answered, told = await order(verb, path, **body)
    assert answered == status
    assert words in told["error"]


async def test_pages_of_any_origin_may_drive_it(stand: Stand) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.options(f"{stand.control_url}/events") as preflight:
            assert preflight.headers["Access-Control-Allow-Origin"] == "*"
            assert "PATCH" in preflight.headers["Access-Control-Allow-Methods"]
        async with session.get(f"{stand.control_url}/deals") as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "*"


# -- the control API: what it does ------------------------------------------------------------


async def test_events_go_to_the_portal_that_is_named(stand: Stand, order: Order) -> None:
    first, second = stand.emulators
    async with subscribe(second, channel_ids(second)) as websocket:
        await order("POST", "/events?portal=1", command="order", params={"id": 7}, users=[1])
        (event,) = read(await frame(websocket))
        assert (event.command, event.params) == ("order", {"id": 7})  # type: ignore[union-attr]
    assert (first.push.counters.messages, second.push.counters.messages) == (0, 1)


async def test_records_change_and_are_announced(stand: Stand, order: Order) -> None:
    emulator = stand.emulators[0]
    emulator.portal.offline.bindings.extend([("ONCRMDEALUPDATE", ""), ("ONTASKADD", "")])
    async with subscribe(emulator, channel_ids(emulator)) as websocket:
        assert (await order("POST", "/deals", fields={"TITLE": "A"}))[1] == {"id": 1}
        assert (await order("PATCH", "/deals/1", fields={"TITLE": "B"}))[0] == 200
        await order("POST", "/changes", name="OnTaskAdd", data={"FIELDS": {"ID": "5"}})
        heard = [event for _ in range(2) for event in read(await frame(websocket))]
        assert [event.command for event in heard] == ["event_offline"] * 2  # type: ignore[union-attr]
    _, deals = await order("GET", "/deals")
    assert [deal["TITLE"] for deal in deals] == ["B"]
    assert (await order("DELETE", "/deals/1"))[0] == 200
    assert (await order("GET", "/deals"))[1] == []


async def test_tokens_expire_and_are_issued(stand: Stand, order: Order) -> None:
    tokens = stand.emulators[0].portal.tokens
    _, issued = await order("POST", "/tokens", user_id=5, expires_in_s=60)
    grant = tokens.open("access", issued["token"])
    assert grant is not None
    assert (grant.user_id, grant.expired) == (5, False)
    await order("POST", "/clock/advance", seconds=61)
    grant = tokens.open("access", issued["token"])
    assert grant is not None
    assert grant.expired
    await order("POST", "/tokens/expire")
    grant = tokens.open("access", stand.emulators[0].token)
    assert grant is not None
    assert grant.expired


@pytest.mark.parametrize("how", ["rotate", "expire", "remove"])
async def test_channels_come_to_their_end(stand: Stand, order: Order, how: str) -> None:
    emulator = stand.emulators[0]
    old = channel_ids(emulator)
    before = emulator.push.counters.messages
    await order("POST", f"/channels/{how}", owners=[{"user_id": 1}])
    assert emulator.push.counters.messages - before == (0 if how == "expire" else 1)
    new = channel_ids(emulator)
    assert (new[0] != old[0], new[1] == old[1]) == (True, True)
    assert emulator.portal.channels.current(Owner("application", 1)).id == new[0][:32]


@pytest.mark.parametrize(("how", "code"), [("close", 4029), ("fin", None), ("reset", None)])
async def test_connections_are_ended(stand: Stand, order: Order, how: str, code: int | None) -> None:
    emulator = stand.emulators[0]
    async with subscribe(emulator, channel_ids(emulator)) as one, subscribe(emulator, channel_ids(emulator)):
        await until(lambda: len(emulator.push.connections) == 2)
        _, connected = await order("GET", "/connections")
        numbers = [connection["number"] for connection in connected]
        _, ended = await order("POST", "/connections/end", how=how, code=4029, connections=numbers[:1])
        assert ended == {"connections": 1}
        with pytest.raises(ConnectionClosed) as closed:
            await frame(one)
        assert (closed.value.rcvd and closed.value.rcvd.code) == code
        await until(lambda: len(emulator.push.connections) == 1)
        assert [subscriber.number for subscriber in emulator.push.connections] == numbers[1:]


@pytest.mark.parametrize("how", ["silence", "stall"])
async def test_connections_stand_still(stand: Stand, order: Order, how: str) -> None:
    emulator = stand.emulators[0]
    async with subscribe(emulator, channel_ids(emulator)) as websocket:
        await until(lambda: len(emulator.push.connections) == 1)
        await order("POST", "/connections/end", how=how, stall_s=0.3)
        emulator.portal.send("c")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(websocket.recv(), 0.1)
        if how == "stall":
            assert await frame(websocket)
        websocket.transport.abort()


async def test_history_and_mids_are_lost(stand: Stand, order: Order) -> None:
    emulator = stand.emulators[0]
    first, second = emulator.portal.send("first"), emulator.portal.send("second")
    await order("POST", "/history/drop", until=first)
    async with subscribe(emulator, channel_ids(emulator), mid="0" * 26) as websocket:
        assert await mids(websocket) == [second]
    await order("POST", "/history/flush")
    assert emulator.portal.send("again") == first


async def test_servers_restart_and_move(stand: Stand, order: Order) -> None:
    emulator = stand.emulators[0]
    first = emulator.portal.send("c")
    assert (await order("POST", "/restart", keep_history=False))[0] == 200
    assert emulator.portal.send("c")[10:] == first[10:]
    before = emulator.subws_url
    _, described = await order("POST", "/push-server/move", epoch=5)
    assert described["subws"] == emulator.subws_url != before
    assert emulator.portal.send("c").startswith("0000000005")
    stamp = emulator.portal.config_timestamp
    await order("POST", "/push-server/settings-changed")
    assert emulator.portal.config_timestamp > stamp


async def test_faults_come_and_go(stand: Stand, order: Order) -> None:
    emulator = stand.emulators[0]
    ids = channel_ids(emulator)
    await order("PATCH", "/faults", websocket_refusal=403, locked_channels=["private"], delay_s=0.01)
    with pytest.raises(InvalidStatus):
        await subscribe(emulator, ids)
    await order("PATCH", "/faults", websocket_refusal={"code": 1008, "reason": "no"})
    async with subscribe(emulator, ids) as websocket:
        with pytest.raises(ConnectionClosed):
            await frame(websocket)
    assert set(emulator.portal.config("application", 1)["channels"]) == {"shared"}
    await order("PATCH", "/faults", websocket_refusal=None, locked_channels=[], connections={"garbled": 1})
    assert emulator.portal.faults.delay_s == 0.01, "what is not named stays"
    async with subscribe(emulator, ids) as websocket:
        emulator.portal.send("c")
        assert set(await frame(websocket)) == {0xFF}
    await order("PATCH", "/faults", seed=7)
    assert emulator.push.faults.script is not None
    await order("PATCH", "/faults", seed=None, polls={"bytes_per_s": 1000})
    assert emulator.push.faults.script is None
    assert emulator.push.faults.poll_script is not None
    await order("POST", "/failures", times=1, status=503, body="busy", content_type="text/plain")
    url = f"{emulator.portal_url}/rest/server.time"
    async with aiohttp.ClientSession() as session, session.post(url) as answer:
        assert (answer.status, await answer.text()) == (503, "busy")


async def test_settings_change_while_it_runs(stand: Stand, order: Order) -> None:
    emulator = stand.emulators[0]
    await order(
        "PATCH",
        "/settings",
        gather_s=0.5,
        channel_life_s=60,
        token_life_s=30,
        rest_burst=5,
        rest_per_s=1,
        application_scope=["pull"],
        features={"rest_offline_extended": "N"},
        static={"user.current": {"ID": "1"}},
    )
    portal = emulator.portal
    assert (emulator.push.gather_s, portal.channels.life_s, portal.token_life_s) == (0.5, 60, 30)
    assert (portal.limits.burst, portal.limits.per_s) == (5, 1)
    assert portal.application_scope == {"pull"}
    assert portal.features == {"rest_offline_extended": "N", "rest_auth_connector": "Y"}
    assert portal.static == {"user.current": {"ID": "1"}}
    await order("POST", "/users", id=1, active=False)
    assert (portal.admins, portal.inactive) == (set(), {1})


async def test_the_journal_tells_what_clients_did(stand: Stand, order: Order) -> None:
    emulator = stand.emulators[0]
    async with subscribe(emulator, channel_ids(emulator)):
        await until(lambda: len(emulator.push.connections) == 1)
    await until(lambda: not emulator.push.connections)
    _, entries = await order("GET", "/journal")
    assert [entry["kind"] for entry in entries] == ["subscribed", "ended"]
    assert (await order("GET", "/journal?kind=rest,ended"))[1] == entries[1:]
    assert (await order("GET", f"/journal?after={entries[0]['number']}"))[1] == entries[1:]
    await order("DELETE", "/journal")
    assert (await order("GET", "/journal"))[1] == []


def test_misspelt_faults_are_refused() -> None:
    with pytest.raises(ValidationError, match="webscoket_refusal"):
        Faults.model_validate({"webscoket_refusal": 403})
