"""Figures and spans as an SDK gets them."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bitrix_pull import AccessToken, GrantRefused, InvalidArgument, OAuth, PullClient, PullEvent, State
from bitrix_pull.connection.stores import ResumeStore
from bitrix_pull.emulator import Emulator
from bitrix_pull.telemetry import METRICS
from tests.otel.sdk import Sdk, until

CANARY = "canary-of-a-customer"


async def test_what_happens_is_counted_and_traced(sdk: Sdk) -> None:
    async with Emulator() as emu:
        pull = PullClient(AccessToken(emu.portal_url, emu.token), name="acme")
        sdk.telemetry().watch(pull)
        attempts: list[int] = []

        @pull.on("order")
        async def order(event: PullEvent[Any]) -> None:
            await pull.publish("answer", {"text": CANARY})

        @pull.on("fails", retries=1, retry_delay=0.01)
        async def fails(event: PullEvent[Any]) -> None:
            attempts.append(event.attempts)
            raise ValueError(CANARY)

        async with pull:
            emu.portal.send("order", {"text": CANARY})
            emu.portal.send("fails", {"text": CANARY})
            emu.portal.send("nobody", {"text": CANARY})
            await until(lambda: len(attempts) == 2 and pull.health().received == 4)
            await asyncio.sleep(0.05)
            assert sdk.value("messaging.client.consumed.messages", server__address="acme") == 4
            assert sdk.value("bitrix_pull.live") == 1
            assert sdk.value("bitrix_pull.state", bitrix_pull__state="live") == 1
            assert sdk.value("bitrix_pull.state") == 1
            assert sdk.value("bitrix_pull.unrouted") == 2
            (failures,) = sdk.points()["bitrix_pull.handler.failures"]
            assert failures[1] == 1
            assert failures[0]["error.type"] == "ValueError"
            # By the name that its calls have, not by the shorter one of notices.
            assert failures[0]["bitrix_pull.handler"].startswith("tests.otel.test_telemetry.test_what")
            assert sdk.value("bitrix_pull.handler.retries") == 1
            assert sdk.value("messaging.process.duration", error__type="ValueError") == 2
            assert sdk.value("messaging.process.duration") == 3
            assert sdk.value("bitrix_pull.handler.calls") == 3
            assert sdk.value("messaging.client.sent.messages", bitrix_pull__route="rest") == 1
            assert sdk.value("messaging.client.operation.duration") == 1
            method = "pull.application.event.add"
            assert sdk.value("bitrix_pull.rest.duration", bitrix_pull__method=method) == 1
            emu.push.faults.websocket_refusal = emu.push.faults.poll_refusal = 503
            await emu.push.disconnect_all()
            await until(lambda: pull.state is State.BACKOFF)
            assert sdk.value("bitrix_pull.disconnects", error__type="Ended") >= 1
            assert sdk.value("bitrix_pull.live") == 0

    # What one thing caused is below it.
    handled, sent, called = (
        sdk.spans[name] for name in ("process application.order", "send", f"call {method}")
    )
    assert handled.parent is None
    assert sent.parent is not None
    assert called.parent is not None
    assert handled.context is not None
    assert sent.context is not None
    assert (sent.parent.span_id, called.parent.span_id) == (handled.context.span_id, sent.context.span_id)
    failed = sdk.spans["process application.fails"]
    assert failed.status.description == "ValueError"
    shown = str([(span.to_json(), span.events) for span in sdk.spans.values()]) + str(sdk.points())
    assert CANARY not in shown
    assert emu.token not in shown


async def test_every_metric_is_documented_with_its_attributes(sdk: Sdk) -> None:
    async with Emulator() as emu:
        pull = PullClient(AccessToken(emu.portal_url, emu.token))
        sdk.telemetry().watch(pull)

        @pull.on("x", retries=1, retry_delay=0.01)
        async def fail(event: PullEvent[Any]) -> None:
            raise ValueError

        async with pull:
            await pull.publish("x")
            await until(lambda: pull.health().handler_failures == 1)
            emu.push.faults.websocket_refusal = emu.push.faults.poll_refusal = 503
            await emu.push.disconnect_all()
            await until(lambda: pull.state is State.BACKOFF)
            points = sdk.points()
    assert set(points) == {name for name in METRICS if not name.startswith("bitrix_pull.hub.")}
    for name, values in points.items():
        metric = METRICS[name]
        allowed = {"messaging.system", "server.address", *metric.attributes}
        for attributes, _ in values:
            assert attributes.pop("messaging.operation.name", "") == metric.operation
            assert set(attributes) <= allowed, name


async def test_token_refreshes_are_counted(sdk: Sdk) -> None:
    async with Emulator() as emu:
        emu.portal.expire_token(emu.token)
        auth = OAuth(
            emu.portal_url,
            client_id=emu.portal.client_id,
            client_secret=emu.portal.client_secret,
            tokens={"access_token": emu.token, "refresh_token": emu.refresh_token},
            oauth_url=emu.oauth_url,
        )
        pull = PullClient(auth)
        sdk.telemetry(traces=False).watch(pull)
        async with pull:
            assert sdk.value("bitrix_pull.token.refreshes") == 1
    assert sdk.spans == {}


async def test_failed_refreshes_are_counted_by_cause_and_what_is_said_again_is_not(sdk: Sdk) -> None:
    async with Emulator() as emu:
        emu.portal.expire_token(emu.token)
        auth = OAuth(
            emu.portal_url,
            client_id=emu.portal.client_id,
            client_secret=emu.portal.client_secret,
            tokens={"access_token": emu.token, "refresh_token": "spent-by-somebody-else"},
            oauth_url=emu.oauth_url,
        )
        pull = PullClient(auth)
        sdk.telemetry().watch(pull)
        for _ in range(3):
            with pytest.raises(GrantRefused):
                await pull.call("server.time")
        assert sdk.value("bitrix_pull.token.refreshes", error__type="GrantRefused") == 1
        assert sdk.value("bitrix_pull.token.refreshes") == 1
        await pull.close()


def saved(pull: PullClient) -> bool:
    return pull.health().store.saves + pull.health().store.failures > 0


async def test_saves_of_the_resume_point_are_counted(sdk: Sdk, tmp_path: Path) -> None:
    class Broken:
        """A store that takes nothing."""

        async def open(self) -> None: ...
        async def load(self, key: str) -> None: ...
        async def save(self, key: str, point: object) -> None:
            raise OSError("the disk is full")

        async def close(self) -> None: ...

    async with Emulator() as emu:
        telemetry = sdk.telemetry()
        stores: dict[str, Path | ResumeStore] = {"good": tmp_path / "point.json", "bad": Broken()}
        watched: list[PullClient] = []  # Of those that are gone nothing is told.
        for name, store in stores.items():
            pull = PullClient(AccessToken(emu.portal_url, emu.token), name=name, resume=store)
            telemetry.watch(pull)
            watched.append(pull)
            async with pull:
                emu.portal.send("x")
                await until(partial(saved, pull))
        for name, metric, other in (("good", "saves", "failures"), ("bad", "failures", "saves")):
            assert sdk.value(f"bitrix_pull.store.{metric}", server__address=name) >= 1
            assert sdk.value(f"bitrix_pull.store.{other}", server__address=name) == 0
            assert sdk.value("bitrix_pull.store.time", server__address=name) > 0


async def test_a_failed_call_is_told_from_others(sdk: Sdk) -> None:
    async with Emulator() as emu:
        pull = PullClient(AccessToken(emu.portal_url, emu.portal.issue_token(7)))
        sdk.telemetry().watch(pull)
        with pytest.raises(Exception, match="USER_ID_ACCESS_ERROR"):
            await pull.publish("x", users=[1])
        await pull.close()
        assert sdk.value("bitrix_pull.rest.duration", error__type="UserAccessError") == 1
        assert sdk.value("messaging.client.sent.messages", error__type="UserAccessError") == 1


def test_a_client_is_watched_once(sdk: Sdk) -> None:
    telemetry = sdk.telemetry()
    pull = PullClient(AccessToken("acme.bitrix24.com", "a-token-of-nobody"))
    telemetry.watch(pull)
    with pytest.raises(InvalidArgument, match="already"):
        telemetry.watch(pull)
    with pytest.raises(InvalidArgument, match="PullClient"):
        telemetry.watch(object())  # type: ignore[arg-type]


async def test_handlers_can_be_left_alone(sdk: Sdk) -> None:
    telemetry = sdk.telemetry(handlers=False)
    async with Emulator() as emu:
        pull = PullClient(AccessToken(emu.portal_url, emu.token))
        telemetry.watch(pull)
        handled: list[PullEvent[Any]] = []
        pull.on("x")(handled.append)
        async with pull:
            emu.portal.send("x")
            await until(lambda: pull.health().received == 1)
            points = sdk.points()
    assert "messaging.process.duration" not in points
    assert "bitrix_pull.handler.calls" not in points
    assert sum(value for _, value in points["messaging.client.consumed.messages"]) == 1
    assert not [name for name in sdk.spans if name.startswith("process")]
