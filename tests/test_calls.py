"""Any REST method through the client: alone, in batches, page by page."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest

from bitrix_pull import AccessToken, PullClient, PullError, PullOptions
from bitrix_pull.emulator import Emulator
from bitrix_pull.errors import InvalidArgument, MethodNotFound, PortalError, WrongLicense


@pytest.fixture
async def emu() -> AsyncIterator[Emulator]:
    async with Emulator() as emu:
        yield emu


@pytest.fixture
async def pull(emu: Emulator) -> AsyncIterator[PullClient]:
    pull = PullClient(AccessToken(emu.portal_url, emu.token))
    yield pull
    await pull.close()


async def test_call(emu: Emulator, pull: PullClient) -> None:
    assert await pull.call("crm.deal.add", {"fields": {"TITLE": "Chairs"}}) == 1
    assert (await pull.call("crm.deal.get", {"id": 1}))["TITLE"] == "Chairs"


async def test_call_tells_what_is_wrong(pull: PullClient) -> None:
    with pytest.raises(MethodNotFound):
        await pull.call("crm.nothing")
    with pytest.raises(PortalError, match=r"^crm\.deal\.get: Not found \(HTTP 400\)$"):
        await pull.call("crm.deal.get", {"id": 7})
    with pytest.raises(InvalidArgument, match="named by letters"):
        await pull.call("crm.deal.get?id=7")


async def test_batch_call(emu: Emulator, pull: PullClient) -> None:
    title = "a&b=c [d] +ж\n100%"
    added, none, got, unknown, deals = await pull.batch_call(
        [
            ("crm.deal.add", {"fields": {"TITLE": title, "OPPORTUNITY": 5, "CLOSED": True, "X": None}}),
            ("crm.deal.get", {"id": 7}),
            ("crm.deal.get", {"id": 1}),
            ("crm.nothing", {}),
            ("crm.deal.list", {"filter": {"=ID": 1}, "select": ["TITLE", "X"]}),
        ]
    )
    assert added == 1
    assert isinstance(none, PullError)
    assert "Not found" in str(none)
    assert (got["TITLE"], got["OPPORTUNITY"], got["CLOSED"]) == (title, "5", "1")
    assert isinstance(unknown, MethodNotFound)
    assert deals == [{"ID": "1", "TITLE": title}]
    assert emu.portal.calls == {"batch": 1}


async def test_a_batch_of_results_by_number_that_php_writes_as_a_map(pull: PullClient) -> None:
    results = await pull.batch_call([("crm.deal.get", {"id": 1}), ("server.time", {})])
    assert isinstance(results[0], PortalError)
    assert isinstance(results[1], str)


async def test_an_empty_batch_calls_nothing(emu: Emulator, pull: PullClient) -> None:
    assert await pull.batch_call([]) == []
    assert not emu.portal.calls


@pytest.mark.parametrize(
    "calls", [[("server.time", {})] * 51, [("server time", {})], [("server.time", {"at": object()})]]
)
async def test_a_batch_that_cannot_be_sent(emu: Emulator, pull: PullClient, calls: list[Any]) -> None:
    with pytest.raises(InvalidArgument):
        await pull.batch_call(calls)
    assert not emu.portal.calls


@pytest.mark.parametrize("connector", [None, "sync"])
@pytest.mark.parametrize("params", ["id=7", 7, [("id", 7)], {1, 2}])
async def test_params_that_are_no_map_are_refused(emu: Emulator, params: Any, connector: str | None) -> None:
    options = PullOptions(connector=connector) if connector else None
    pull = PullClient(AccessToken(emu.portal_url, emu.token), options=options)
    with pytest.raises(InvalidArgument, match="params must be a mapping"):
        await pull.call("crm.deal.get", params)
    with pytest.raises(InvalidArgument, match="params must be a mapping"):
        await anext(pull.fetch_all("crm.deal.list", params))
    with pytest.raises(InvalidArgument, match="params must be a mapping"):
        await pull.batch_call([("crm.deal.get", params)])
    assert not emu.portal.calls
    await pull.close()


@pytest.mark.parametrize("calls", [["crm.deal.get"], [("crm.deal.get",)], [7], "crm.deal.get"])
async def test_a_batch_is_one_of_pairs(pull: PullClient, calls: Any) -> None:
    with pytest.raises(InvalidArgument, match="pairs of method and params"):
        await pull.batch_call(calls)


async def test_fetch_all(emu: Emulator, pull: PullClient) -> None:
    for number in range(120):
        emu.portal.deals.add({"TITLE": f"Deal {number}"})
    titles = [deal["TITLE"] async for deal in pull.fetch_all("crm.deal.list", {"select": ["TITLE"]})]
    assert titles == [f"Deal {number}" for number in range(120)]
    assert emu.portal.calls["crm.deal.list"] == 3


async def test_fetch_all_through_a_client_of_the_users_own(emu: Emulator) -> None:
    class Own:
        async def call(self, method: str, params: Mapping[str, Any]) -> Any:
            url = f"{emu.portal_url}/rest/{method}.json"
            async with (
                aiohttp.ClientSession() as session,
                session.post(url, json={**params, "auth": emu.token}) as answer,
            ):
                return (await answer.json())["result"]

    for number in range(100):
        emu.portal.deals.add({"TITLE": f"Deal {number}"})
    pull = PullClient(Own())
    assert len([deal async for deal in pull.fetch_all("crm.deal.list")]) == 100
    await pull.close()


async def test_fetch_all_of_what_is_no_list(pull: PullClient) -> None:
    with pytest.raises(InvalidArgument, match="answers no list"):
        [row async for row in pull.fetch_all("server.time")]


async def test_calls_go_through_the_connector(emu: Emulator) -> None:
    pull = PullClient(AccessToken(emu.portal_url, emu.token), options=PullOptions(connector="sync"))
    emu.portal.offline.bindings += [("ONCRMDEALADD", "sync"), ("ONCRMDEALADD", "")]
    await pull.call("crm.deal.add", {"fields": {}})
    await pull.batch_call([("crm.deal.add", {"fields": {"TITLE": "x"}})])
    assert {record.connector for record in emu.portal.offline.records} == {""}
    assert len([deal async for deal in pull.fetch_all("crm.deal.list")]) == 2
    await pull.call("crm.deal.add", {"fields": {}, "auth_connector": "other"})
    assert {record.connector for record in emu.portal.offline.records} == {"", "sync"}
    emu.portal.features["rest_auth_connector"] = "N"
    with pytest.raises(WrongLicense, match="auth_connector"):
        await pull.call("server.time")
    await pull.close()


@pytest.mark.parametrize("connector", [None, 1, "a b", "ж", "x" * 101])
def test_what_names_no_connector(connector: Any) -> None:
    with pytest.raises(InvalidArgument, match="connector must be text"):
        PullOptions(connector=connector)
