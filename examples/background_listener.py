"""A listener in the background of a web service, which shows what it has heard.

Run it:  python examples/background_listener.py
"""

import asyncio
from collections.abc import AsyncGenerator

import aiohttp
from aiohttp import web

from bitrix_pull import PullClient, PullEvent
from portal_or_emulator import Portal, portal_or_emulator

PULL = web.AppKey("pull", PullClient)
STATUSES: web.AppKey[dict[int, str]] = web.AppKey("statuses")


def create_app(pull: PullClient) -> web.Application:
    app = web.Application()
    app[PULL] = pull
    app[STATUSES] = {}
    app.add_routes([web.get("/orders", show_orders), web.get("/health", show_health)])
    app.cleanup_ctx.append(listen)

    @pull.on("order_update")
    async def order_updated(event: PullEvent) -> None:
        app[STATUSES][event.params["id"]] = event.params["status"]

    return app


async def listen(app: web.Application) -> AsyncGenerator[None]:
    """Keep the client running for as long as the service is up, through every outage."""
    listener = asyncio.create_task(app[PULL].run())
    yield
    await app[PULL].close()
    await listener  # Raises what ended it, if only a person can help.


async def show_orders(request: web.Request) -> web.Response:
    return web.json_response({str(order): status for order, status in request.app[STATUSES].items()})


async def show_health(request: web.Request) -> web.Response:
    health = request.app[PULL].health()
    return web.json_response(
        {"state": health.state, "received": health.received}, status=200 if health.live else 503
    )


async def main() -> None:
    async with portal_or_emulator() as portal:
        pull = PullClient(portal.auth)
        runner = web.AppRunner(create_app(pull))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0 if portal.emulated else 8080)
        await site.start()
        host, port = runner.addresses[0][:2]
        print(f"The service listens on http://{host}:{port}")
        try:
            if portal.emulated:
                await try_out(portal, pull, f"http://{host}:{port}")
            else:
                await asyncio.Event().wait()
        finally:
            await runner.cleanup()


async def try_out(portal: Portal, pull: PullClient, service: str) -> None:
    """Let an order change, and ask the service about it."""
    await pull.wait_live(timeout=10)
    publisher = PullClient(portal.auth)
    async with aiohttp.ClientSession() as http, pull.subscribe("order_update") as changes:
        for status in ("paid", "packed", "sent"):
            await publisher.publish("order_update", {"id": 7, "status": status})
            await anext(changes)
            async with http.get(f"{service}/orders") as answer:
                print(f"GET /orders: {await answer.text()}")
        async with http.get(f"{service}/health") as answer:
            print(f"GET /health: {await answer.text()}")
    await publisher.close()


if __name__ == "__main__":
    asyncio.run(main())
