"""Fetching the configuration."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from bitrix_pull.errors import InvalidConfig, NotConfigured, WrongAuthType
from bitrix_pull.portal.auth import AccessToken, Mode, Webhook
from bitrix_pull.portal.config import ConfigFetcher
from bitrix_pull.portal.models import read_config
from bitrix_pull.portal.rest import RestClient

from .conftest import StubPortal, answer, refusal

REFERENCE = Path(__file__).parents[1] / "reference"
LIVE: Any = orjson.loads((REFERENCE / "config_v4_live.json").read_bytes())


@pytest.fixture
async def rest(portal: StubPortal) -> AsyncIterator[RestClient]:
    rest = RestClient(AccessToken(portal.url, "my-token"))
    yield rest
    await rest.close()


@pytest.mark.parametrize(
    ("mode", "method"), [("application", "pull.application.config.get"), ("user", "pull.config.get")]
)
async def test_the_mode_chooses_the_method(portal: StubPortal, mode: Mode, method: str) -> None:
    portal.reply(answer(LIVE))
    rest = RestClient(Webhook(portal.webhook))
    fetcher = ConfigFetcher(rest, mode)
    config = await fetcher.fetch()
    await fetcher.fetch(cache=False)
    await rest.close()
    assert config.channel_ids == read_config(LIVE["result"]).channel_ids
    assert [call.path for call in portal.calls] == [f"/rest/1/abcdefgh12345678/{method}.json"] * 2
    assert [call.body for call in portal.calls] == [{"CACHE": "Y"}, {"CACHE": "N"}]


async def test_the_portals_clock_comes_from_the_config_or_the_answer(
    portal: StubPortal, rest: RestClient
) -> None:
    portal.reply(answer(LIVE))
    config = await ConfigFetcher(rest).fetch()
    assert config.server_time == datetime.fromtimestamp(LIVE["time"]["finish"], UTC)
    portal.reply(answer({**LIVE, "result": {**LIVE["result"], "serverTime": "2026-03-31T17:00:00+02:00"}}))
    config = await ConfigFetcher(rest).fetch()
    assert config.server_time == datetime(2026, 3, 31, 15, 0, tzinfo=UTC)


async def test_what_is_wrong_with_it_is_said_with_the_method(portal: StubPortal, rest: RestClient) -> None:
    fetcher = ConfigFetcher(rest)
    portal.reply(answer({"result": {"server": {"version": "four"}}}))
    with pytest.raises(InvalidConfig, match=r"server\.version") as caught:
        await fetcher.fetch()
    assert caught.value.method == "pull.application.config.get"
    portal.reply(answer({"result": {**LIVE["result"], "server": {"server_enabled": "N"}}}))
    with pytest.raises(NotConfigured, match="An administrator must enable"):
        await fetcher.fetch()
    portal.reply(refusal("WRONG_AUTH_TYPE", 403))
    with pytest.raises(WrongAuthType, match='mode="user"'):
        await fetcher.fetch()
