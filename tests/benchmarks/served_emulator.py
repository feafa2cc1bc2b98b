"""An emulator in a process of its own: what it costs is not what is measured."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass


@dataclass(slots=True, frozen=True)
class ServedEmulator:
    """How to reach it.

    Attributes:
        portal_url: The portal, for ``AccessToken``.
        token: An access token of an administrator.
        publish_url: Where whoever is trusted publishes; takes ``CHANNEL_ID`` without signature.
    """

    portal_url: str
    token: str
    publish_url: str


@asynccontextmanager
async def serving() -> AsyncIterator[ServedEmulator]:
    """Run an emulator that sends each message at once instead of gathering them for 0.4 s."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", __name__, stdout=pipe)
    assert process.stdout is not None
    try:
        yield ServedEmulator(**json.loads(await process.stdout.readline()))
    finally:
        process.terminate()
        await process.wait()


async def _serve() -> None:
    from bitrix_pull.emulator import Emulator
    from bitrix_pull.emulator.push_server import PUBLISH_PATH

    async with Emulator() as emulator:
        emulator.push.gather_s = 0.0
        served = ServedEmulator(
            emulator.portal_url, emulator.token, f"http://{emulator.portal.address}{PUBLISH_PATH}"
        )
        print(json.dumps(asdict(served)), flush=True)  # noqa: T201
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve())
