"""The official JavaScript client talks to the emulator, which Node drives by its control API."""

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from bitrix_pull import PullClient, PullEvent, Webhook
from tests.cli.command import start

PACKAGES = ("@bitrix24/b24jssdk@2.2.0", "ws@8.23.0")
"""The official SDK, and the WebSocket that Node has only from 22 on."""

SCRIPT = Path(__file__).with_name("official_client.mjs")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bitrix_pull_tests"


@pytest.fixture(scope="module")
def packages() -> Path:
    """Return a directory of Node's with the packages, which is kept for the next time."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no node or no npm")
    if int(subprocess.check_output([node, "--version"], text=True)[1:].partition(".")[0]) < 20:
        pytest.skip("the official client takes Node 20 or newer")
    home = CACHE / "+".join(PACKAGES).replace("/", "_")
    if home.is_dir():
        return home
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as directory:
        command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES]
        try:
            subprocess.run(command, cwd=directory, capture_output=True, check=True, timeout=120)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            pytest.skip("npm cannot install the official client: is there a network?")
        if not home.is_dir():
            # Another process may be as far.
            os.rename(directory, home)
            os.mkdir(directory)
    return home


async def test_the_official_client_hears_and_is_heard(packages: Path, tmp_path: Path) -> None:
    emulator = await start("emulator", "--control", "0", "--json")
    ready = await emulator.json_line()
    heard: asyncio.Queue[PullEvent] = asyncio.Queue()
    pull = PullClient(Webhook(ready["webhook"]))
    pull.on("hello")(heard.put_nowait)
    # A module finds its packages beside itself.
    script = tmp_path / SCRIPT.name
    script.write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "node_modules").symlink_to(packages / "node_modules")
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
