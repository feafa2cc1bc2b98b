"""Figures are read on the client's event loop, once a collection, whoever collects."""

import asyncio
import gc
import threading
import time
from typing import Any

import pytest

from bitrix_pull import AccessToken, Health, PullClient
from bitrix_pull.emulator import Emulator
from bitrix_pull.otel import reading
from tests.otel.sdk import Sdk, until


class Watched(PullClient):
    """A client that knows who has asked for its health."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.asked_by: list[int] = []

    def health(self) -> Health:
        self.asked_by.append(threading.get_ident())
        return super().health()


async def test_a_collection_in_another_thread_reads_once_on_the_loop(sdk: Sdk) -> None:
    async with Emulator() as emu:
        pull = Watched(AccessToken(emu.portal_url, emu.token), name="acme")
        sdk.telemetry().watch(pull)
        async with pull:
            emu.portal.send("x")
            await until(lambda: pull.health().received == 1)
            for collect in (asyncio.to_thread(sdk.points), at_once(sdk)):
                pull.asked_by.clear()
                points = await collect
                assert points["messaging.client.consumed.messages"][0][1] == 1
                assert points["bitrix_pull.live"][0][1] == 1
                assert pull.asked_by == [threading.get_ident()]


async def at_once(sdk: Sdk) -> dict[str, Any]:
    return sdk.points()


async def test_a_loop_that_is_busy_keeps_no_collection_waiting(
    sdk: Sdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    read_on = reading._read_on  # pyright: ignore[reportPrivateUsage]

    def ask(*arguments: Any) -> None:
        asked.append(arguments)
        read_on(*arguments)

    monkeypatch.setattr(reading, "_WAIT_S", 0.5)
    monkeypatch.setattr(reading, "_GOOD_FOR_S", 0.4)
    monkeypatch.setattr(reading, "_read_on", ask)
    async with Emulator() as emu:
        pull = PullClient(AccessToken(emu.portal_url, emu.token), name="acme")
        sdk.telemetry().watch(pull)
        async with pull:
            emu.portal.send("x")
            await until(lambda: sdk.value("messaging.client.consumed.messages") == 1)
            collected: list[Any] = []
            thread = threading.Thread(target=lambda: collected.append(sdk.points()))
            thread.start()
            # This is what must not be done on an event loop.
            while thread.is_alive():
                time.sleep(0.01)  # noqa: ASYNC251
    # It has what was read before, and has not waited for each metric.
    assert len(asked) <= 2
    assert collected[0]["messaging.client.consumed.messages"][0][1] == 1


async def test_a_last_collection_finds_what_a_client_had_when_it_was_closed(
    sdk: Sdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As where an SDK is shut down at the end of a coroutine: the loop waits for the thread.
    monkeypatch.setattr(reading, "_WAIT_S", 60.0)
    async with Emulator() as emu:
        pull = PullClient(AccessToken(emu.portal_url, emu.token))
        sdk.telemetry().watch(pull)
        async with pull:
            emu.portal.send("x")
            await until(lambda: pull.health().received == 1)
        collected: list[Any] = []
        thread = threading.Thread(target=lambda: collected.append(sdk.points()))
        thread.start()
        thread.join(50)
    assert collected[0]["messaging.client.consumed.messages"][0][1] == 1


async def test_what_only_grows_goes_on_when_a_client_begins_anew(sdk: Sdk) -> None:
    async with Emulator() as emu:
        pull = PullClient(AccessToken(emu.portal_url, emu.token), name="acme")
        sdk.telemetry().watch(pull)
        for run in range(1, 4):
            async with pull:
                emu.portal.send("x")
                await until(lambda: pull.health().received == 1)
            assert sdk.value("messaging.client.consumed.messages") == run
            assert sdk.value("bitrix_pull.connects") == run


async def test_what_was_counted_before_it_was_watched_is_left_out(sdk: Sdk) -> None:
    async with Emulator() as emu:
        pull = PullClient(AccessToken(emu.portal_url, emu.token))
        handled: list[Any] = []
        pull.on("x")(handled.append)
        async with pull:
            emu.portal.send("x")
            await until(lambda: len(handled) == 1)
            sdk.telemetry().watch(pull)
            emu.portal.send("x")
            await until(lambda: len(handled) == 2)
            assert sdk.value("messaging.client.consumed.messages") == 1
            # Handlers are watched at once, also of a client that runs.
            assert sdk.value("bitrix_pull.handler.calls") == 1


async def test_a_client_that_is_gone_is_read_no_more(sdk: Sdk) -> None:
    telemetry = sdk.telemetry()
    telemetry.watch(PullClient(AccessToken("acme.bitrix24.com", "a-token-of-nobody")))
    gc.collect()
    assert "bitrix_pull.live" not in sdk.points()
