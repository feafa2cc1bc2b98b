"""A client whose figures Prometheus can scrape; grafana_dashboard.json shows them.

Run it:  python examples/prometheus.py    (pip install 'bitrix-pull[otel]' opentelemetry-sdk
                                           opentelemetry-exporter-prometheus)
"""

import asyncio

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import generate_latest

from bitrix_pull import PullClient, PullEvent
from bitrix_pull.otel import Telemetry
from portal_or_emulator import portal_or_emulator


async def main() -> None:
    # All is counted; of each handler 100 calls a second are recorded as a duration, and as a span
    # where you have set up a tracer: each costs several times what it takes to receive a message.
    telemetry = Telemetry(meter_provider=MeterProvider([PrometheusMetricReader()]))
    arrived = asyncio.Event()
    async with portal_or_emulator() as portal:
        pull = PullClient(portal.auth, name="acme")
        telemetry.watch(pull)

        @pull.on("order_update")
        async def order_updated(event: PullEvent) -> None:
            arrived.set()

        async with pull:
            await pull.publish("order_update", {"id": 7}, to_self=True)
            async with asyncio.timeout(10):
                await arrived.wait()
            # A service would serve them: prometheus_client.start_http_server(9464).
            print(generate_latest().decode())


if __name__ == "__main__":
    asyncio.run(main())
