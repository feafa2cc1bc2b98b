"""An emulated cloud in a process of its own.

    python -m tests.soak.hub_cloud PORTALS

It writes a JSON line with the addresses and tokens of the portals, and answers each line that
it reads with one: ``starts`` tells when clients asked for their configuration, and when they
connected.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any

from bitrix_pull.emulator import EmulatedCloud


class Watch:
    """Takes the journal down before it forgets."""

    def __init__(self, cloud: EmulatedCloud) -> None:
        self._cloud = cloud
        self._seen = 0
        self.asked: list[float] = []
        self.connected: list[float] = []

    async def run(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(0.5)

    def look(self) -> None:
        for entry in self._cloud.journal.entries(after=self._seen):
            self._seen = entry.number
            if entry.kind == "rest" and entry.details["method"] == "pull.application.config.get":
                self.asked.append(entry.at)
            elif entry.kind == "subscribed" and entry.details["transport"] == "websocket":
                self.connected.append(entry.at)


def _say(answer: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def main(count: int) -> None:
    async with EmulatedCloud(count) as cloud:
        watch = Watch(cloud)
        watching = asyncio.create_task(watch.run())
        _say({"portals": [[portal.member_id, portal.url, portal.token] for portal in cloud.portals]})
        while await asyncio.to_thread(sys.stdin.readline):
            watch.look()
            _say({"asked": watch.asked, "connected": watch.connected})
            watch.asked, watch.connected = [], []
        watching.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
