"""The official JavaScript client talks to the emulator, which Node drives by its control API."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from bitrix_pull import PullClient, PullEvent, Webhook
from tests.cli.command import start
from tests.npm import OFFICIAL_CLIENT, installed

PACKAGES = (OFFICIAL_CLIENT, "ws@8.23.0")
"""The official SDK, and the WebSocket that Node has only from 22 on."""

SCRIPT = Path(__file__).with_name("official_client.mjs")


@pytest.fixture(scope="module")
def packages() -> Path:
    """Return a directory of Node's with the packages."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node")
    if int(subprocess.check_output([node, "--version"], text=True)[1:].partition(".")[0]) < 20:
        pytest.skip("the official client takes Node 20 or newer")
    return installed(*PACKAGES)


async def test_the_official_client_hears_and_is_heard(packages: Path, tmp_path: Path) -> None:
    emulator = await start("emulator", "--control", "0", "--json")
    ready = await emulator.json_line()
    heard: asyncio.Queue[PullEvent] = asyncio.Queue()
    pull = PullClient(Webhook(ready["webhook"]))
    pull.on("hello")(heard.put_nowait)
    # A module finds its packages beside itself.
    script = tmp_path / SCRIPT.name
    script.write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "node_modules").symlink_to(packages)
    try:
        async with pull:
            node = await asyncio.create_subprocess_exec(
                "node", str(script), json.dumps(ready), stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            try:
                async with asyncio.timeout(100):
                    out, err = await node.communicate()
                    assert node.returncode == 0, err.decode()
                    event = await heard.get()
            finally:
                if node.returncode is None:
                    node.kill()
                    await node.communicate()
    finally:
        await emulator.stop()

    told = json.loads(out)
    assert (told["command"], told["params"]) == ("order_update", {"id": 7})
    # Its token had expired, so it began with a refresh.
    assert {"oauth", "published", "rest", "subscribed"} <= set(told["kinds"])
    assert (event.params, event.kind) == ({"from": "JavaScript"}, "client")
