"""From nothing to live: imports, the command line, the first connection, and what one takes then."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import partial

import aiohttp
from websockets.asyncio.client import ClientConnection, connect

from bitrix_pull import AccessToken, PullClient, PullEvent
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.urls import subscription_url
from tests.benchmarks.comparison import Comparison, Figures, resident_mib
from tests.benchmarks.served_emulator import ServedEmulator, serving

_TIMED = "import time; began = time.perf_counter(); {}; print((time.perf_counter() - began) * 1000)"
_OURS = "from bitrix_pull import PullClient"
_LIBRARIES = "import aiohttp, google.protobuf.descriptor_pool, orjson, pydantic, websockets.asyncio.client"
_STARTS = 20
_IDLE_S = 10.0
"""Until what belongs to the start is over."""


def comparisons(scale: float) -> Iterable[Comparison]:
    """Imports against the libraries' own, ``--help`` against an empty program, and the way to live."""
    yield Comparison(
        "import bitrix_pull", partial(importing, "import bitrix_pull"), partial(importing, "pass")
    )
    yield Comparison("import PullClient", partial(importing, _OURS), partial(importing, _LIBRARIES))
    yield Comparison(
        "bitrix-pull --help", partial(running, "-m", "bitrix_pull", "--help"), partial(running, "-c", "")
    )
    starts = max(int(_STARTS * scale), 1)
    yield Comparison("PullClient(…) to live", partial(client, starts), partial(bare_connection, starts))
    idle_s = _IDLE_S * min(scale, 1.0)
    yield Comparison("one idle client", partial(idle_client, idle_s), partial(idle_connection, idle_s))


def importing(statement: str) -> Figures:
    """Run a statement in a new interpreter."""
    command = [sys.executable, "-c", _TIMED.format(statement)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return {"wall_ms": float(done.stdout)}


def running(*arguments: str) -> Figures:
    """Run an interpreter to its end."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return {"wall_ms": (time.perf_counter() - began) * 1000}


def client(starts: int) -> Figures:
    """Let a ``PullClient`` become live, again and again."""

    async def main() -> Figures:
        async with serving() as served:
            taken_s = 0.0
            for _ in range(starts):
                began = time.perf_counter()
                async with PullClient(AccessToken(served.portal_url, served.token)):
                    taken_s += time.perf_counter() - began
            return {"wall_ms": taken_s / starts * 1000}

    return asyncio.run(main())


def bare_connection(starts: int) -> Figures:
    """Ask for the configuration and open a WebSocket, with the libraries alone."""

    async def main() -> Figures:
        async with serving() as served:
            taken_s = 0.0
            for _ in range(starts):
                began = time.perf_counter()
                async with aiohttp.ClientSession() as http, await _connect(http, served):
                    taken_s += time.perf_counter() - began
            return {"wall_ms": taken_s / starts * 1000}

    return asyncio.run(main())


def idle_client(idle_s: float) -> Figures:
    """Let a ``PullClient`` have nothing to do, in a process of its own."""

    async def main() -> Figures:
        async with serving() as served:
            pull = PullClient(AccessToken(served.portal_url, served.token))

            @pull.on()
            async def handle(event: PullEvent) -> None: ...

            async with pull:
                await asyncio.sleep(idle_s)
                return {"resident_mib": resident_mib()}

    return asyncio.run(main())


def idle_connection(idle_s: float) -> Figures:
    """The same with the libraries alone."""

    async def main() -> Figures:
        async with serving() as served, aiohttp.ClientSession() as http, await _connect(http, served):
            await asyncio.sleep(idle_s)
            return {"resident_mib": resident_mib()}

    return asyncio.run(main())


async def _connect(http: aiohttp.ClientSession, served: ServedEmulator) -> ClientConnection:
    call = f"{served.portal_url}/rest/pull.application.config.get"
    async with http.post(call, json={"auth": served.token}) as response:
        config = (await response.json())["result"]
    channels = [config["channels"][kind]["id"] for kind in ("private", "shared")]
    address = subscription_url(config["server"]["websocket"], channels, WireFormat.PROTOBUF)
    return await connect(address, compression=None)
