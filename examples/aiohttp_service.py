"""An aiohttp service that listens for as long as it is up, through every outage of the portal.

Run it:  python examples/aiohttp_service.py
"""

import asyncio
import os
from collections.abc import AsyncGenerator

from aiohttp import web

from account import account
from bitrix_pull import PullClient, PullEvent
from probes import probe_routes

PULL = web.AppKey("pull", PullClient)
STATUSES: web.AppKey[dict[int, str]] = web.AppKey("statuses")


def create_app(pull: PullClient) -> web.Application:
    app = web.Application()
    app[PULL] = pull
    app[STATUSES] = {}
    app.add_routes([web.get("/orders", orders), *probe_routes(pull)])
    app.cleanup_ctx.append(listen)

    @pull.on("order_update")
    async def order_updated(event: PullEvent) -> None:
        print(f"order {event.params['id']} has changed", flush=True)
        await asyncio.sleep(0.5)  # What takes its time.
        app[STATUSES][event.params["id"]] = event.params["status"]
        print(f"order {event.params['id']} is {event.params['status']}", flush=True)

    return app


async def listen(app: web.Application) -> AsyncGenerator[None]:
    """Begin to listen with the service, and let handlers finish at its end."""
    async with app[PULL].serving():  # Whether the portal is there or not, the service is.
        yield


async def orders(request: web.Request) -> web.Response:
    return web.json_response({str(order): status for order, status in request.app[STATUSES].items()})


if __name__ == "__main__":
    web.run_app(create_app(PullClient(account())), host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
