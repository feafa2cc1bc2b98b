"""The dashboard asks for figures that there are, by the labels that they have."""

import asyncio
import contextlib
import json
import re
from typing import Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY, generate_latest

from bitrix_pull import AccessToken, Hub, Portal, PullClient, PullEvent
from bitrix_pull.emulator import EmulatedCloud, Emulator
from bitrix_pull.errors import PullError
from bitrix_pull.otel import Telemetry
from tests.examples.test_examples import EXAMPLES

DASHBOARD = json.loads((EXAMPLES / "grafana_dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

_FUNCTIONS = {"by", "le", "min", "max", "sum", "rate", "increase", "histogram_quantile", "label_values"}


def asked() -> list[str]:
    queries = [target["expr"] for panel in PANELS for target in panel["targets"]]
    queries += [item["query"] for item in DASHBOARD["templating"]["list"] if item["type"] == "query"]
    return queries


async def exported() -> str:
    """Return what Prometheus would scrape of a client, and of a hub, that have met everything."""
    provider = MeterProvider([PrometheusMetricReader()])
    try:
        telemetry = Telemetry(meter_provider=provider)
        async with Emulator() as emu, EmulatedCloud(1) as cloud, asyncio.timeout(60):
            pull = PullClient(AccessToken(emu.portal_url, emu.token))
            telemetry.watch(pull)

            @pull.on("x", retries=1, retry_delay=0.01)
            async def fail(event: PullEvent[Any]) -> None:
                raise ValueError

            async with pull:
                await pull.publish("x", {})
                with contextlib.suppress(PullError):
                    await pull.publish("x", {}, users=[7], route="endpoint")
                emu.push.faults.websocket_refusal = emu.push.faults.poll_refusal = 503
                await emu.push.disconnect_all()
                while pull.health().live:
                    await asyncio.sleep(0.02)
                while pull.health().next_attempt_in_s is None:
                    await asyncio.sleep(0.02)
                (portal,) = cloud.portals
                hub = Hub([Portal("acme", AccessToken(portal.url, portal.token))])
                telemetry.watch(hub)
                async with hub.serving():
                    while not hub.health().live:
                        await asyncio.sleep(0.02)
                    await hub.pause("acme")
                    while hub.health().leases:
                        await asyncio.sleep(0.02)
                    return generate_latest(REGISTRY).decode()
    finally:
        provider.shutdown()


async def test_every_name_and_label_that_it_asks_for_exists() -> None:
    text = await exported()
    names = set(re.findall(r"^([a-z_]+)(?:{|\s)", text, re.MULTILINE))
    labels = set(re.findall(r'([a-z_]+)="', text))
    queries = asked()
    assert len(queries) > 15
    for query in queries:
        plain = re.sub(r'"[^"]*"|\[[0-9a-z]+\]', "", query)
        words = set(re.findall(r"\b[a-z][a-z_]+\b", plain)) - _FUNCTIONS
        assert words <= names | labels, (query, words - names - labels)
        assert words & names, query


def test_it_is_a_dashboard() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert all(panel["targets"] and panel["title"] for panel in PANELS)
