"""Configurations without channels: the portal could not lock its table (protocol §2)."""

import json
from typing import Any

import pytest

from bitrix_pull.emulator import Emulator
from tests.emulator.conftest import Call, Launch
from tests.emulator.test_methods import shape
from tests.emulator.test_rest import REFERENCE


async def configs(call: Call, count: int) -> list[Any]:
    return [(await call("pull.application.config.get"))[1]["result"] for _ in range(count)]


async def test_a_lock_that_fails_leaves_the_private_channel_out(emulator: Emulator, call: Call) -> None:
    emulator.portal.faults.fail_locks(1, "private")
    incomplete, complete = await configs(call, 2)
    recorded = json.loads((REFERENCE / "config_v4_incomplete.json").read_text())["result"]
    recorded["publicChannels"] = {"1": recorded["publicChannels"]["577"]}
    assert shape(incomplete) == shape(recorded)
    assert set(complete["channels"]) == {"shared", "private"}


async def test_locks_fail_as_often_as_told_and_then_for_as_long_as_told(
    emulator: Emulator, call: Call
) -> None:
    faults = emulator.portal.faults
    faults.fail_locks(1)
    faults.fail_locks(2, "shared")
    faults.locked_channels = frozenset({"private"})
    told = [set(config.get("channels", {})) for config in await configs(call, 5)]
    assert told == [set(), {"private"}, {"private"}, {"shared"}, {"shared"}]
    faults.locked_channels = frozenset()
    assert set((await configs(call, 1))[0]["channels"]) == {"shared", "private"}


@pytest.mark.parametrize("version", [3, 4, 5])
async def test_with_both_missing_there_are_no_channels_at_all(launch: Launch, version: int) -> None:
    emulator = await launch(version=version)
    emulator.portal.faults.fail_locks(1)
    config = emulator.portal.config("application", 1)
    assert "channels" not in config
    assert ("jwt" in config) is (version == 5)
