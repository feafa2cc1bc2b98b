"""A FastAPI service that listens for as long as it is up, through every outage of the portal.

Run it:  python examples/fastapi_service.py    (pip install fastapi uvicorn)
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator

import uvicorn
from fastapi import FastAPI

from account import account
from bitrix_pull import PullClient, PullEvent
from probes import Probes

pull = PullClient(account())
statuses: dict[int, str] = {}


@pull.on("order_update")
async def order_updated(event: PullEvent) -> None:
    print(f"order {event.params['id']} has changed", flush=True)
    await asyncio.sleep(0.5)  # What takes its time.
    statuses[event.params["id"]] = event.params["status"]
    print(f"order {event.params['id']} is {event.params['status']}", flush=True)


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """Begin to listen with the service, and let handlers finish at its end."""
    async with pull.serving():  # Whether the portal is there or not, the service is.
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(Probes, pull=pull)


@app.get("/orders")
async def orders() -> dict[int, str]:
    return statuses


@app.post("/orders/{order_id}/pay")
async def pay(order_id: int) -> dict[str, bool]:
    receipt = await pull.publish("order_update", {"id": order_id, "status": "paid"})
    return {"published": receipt.confirmed}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
