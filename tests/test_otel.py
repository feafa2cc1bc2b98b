"""Figures and spans as an SDK gets them."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bitrix_pull import AccessToken, InvalidArgument, OAuth, PullClient, PullEvent, State
from bitrix_pull.emulator import Emulator
from bitrix_pull.otel import Telemetry
from bitrix_pull.telemetry import METRICS

CANARY = "canary-of-a-customer"


class Sdk:
    """An SDK in memory."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self._spans = InMemorySpanExporter()
        self.meter_provider = MeterProvider([self._reader])
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))

    def telemetry(self, *, traces: bool = True) -> Telemetry:
        return Telemetry(
            meter_provider=self.meter_provider, tracer_provider=self.tracer_provider, traces=traces
        )

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._spans.get_finished_spans()}

    def points(self) -> dict[str, list[tuple[dict[str, Any], Any]]]:
        """Return the value, or of a histogram the count, of each metric by its attributes."""
        data = self._reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: [
                (dict(point.attributes or {}), point.count if hasattr(point, "count") else point.value)
                for point in metric.data.data_points
            ]
            for metric in data.resource_metrics[0].scope_metrics[0].metrics
        }

    def value(self, name: str, **attributes: str) -> Any:
        told = {key.replace("__", "."): value for key, value in attributes.items()}
        return sum(value for has, value in self.points()[name] if told.items() <= has.items())

    def shut_down(self) -> None:
        self.meter_provider.shutdown()
        self.tracer_provider.shutdown()


@pytest.fixture
def sdk() -> Iterator[Sdk]:
    sdk = Sdk()
    yield sdk
    sdk.shut_down()


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


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
            assert sdk.value("bitrix_pull.handler.failures") == 1
            assert sdk.value("bitrix_pull.handler.retries") == 1
            assert sdk.value("messaging.process.duration", error__type="ValueError") == 2
            assert sdk.value("messaging.process.duration") == 3
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
    assert set(points) == set(METRICS)
    for name, values in points.items():
        allowed = {"messaging.system", "server.address", *METRICS[name].attributes}
        assert all(set(attributes) <= allowed for attributes, _ in values), name


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
    telemetry = Telemetry(
        meter_provider=sdk.meter_provider, tracer_provider=sdk.tracer_provider, handlers=False
    )
    async with Emulator() as emu:
        pull = PullClient(AccessToken(emu.portal_url, emu.token))
        telemetry.watch(pull)
        pull.on("x")(lambda event: None)
        async with pull:
            emu.portal.send("x")
            await until(lambda: pull.health().received == 1)
            points = sdk.points()
    assert "messaging.process.duration" not in points
    assert sum(value for _, value in points["messaging.client.consumed.messages"]) == 1
    assert not [name for name in sdk.spans if name.startswith("process")]
