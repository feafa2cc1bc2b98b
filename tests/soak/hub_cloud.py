"""An emulated cloud in a process of its own.

    python -m tests.soak.hub_cloud PORTALS [DOMAIN TOKEN_LIFE_S]

It writes a JSON line with the addresses, tokens and secrets of the portals, and answers each line
that it reads with one:

- ``starts`` tells when clients asked for their configuration, and when they connected.
- ``send RATE`` lets the portals send so many numbered messages a second, all together.
- ``sent`` ends that, and tells how many each has sent, and how many refreshes of tokens there were.
"""

import asyncio
import json
import logging
import random
import sys
import time
from collections.abc import Mapping
from typing import Any

from bitrix_pull.emulator import EmulatedCloud
from bitrix_pull.program import collect_less_often

_TICK_S = 0.02
_KEPT_S = 300
"""Longer than anybody is away; for a day, this process would hold millions of messages."""


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

    def starts(self) -> Mapping[str, Any]:
        """Tell what is new."""
        self.look()
        told = {"asked": self.asked, "connected": self.connected}
        self.asked, self.connected = [], []
        return told


class Senders:
    """Portals that send, each now and then by chance, and count it."""

    def __init__(self, cloud: EmulatedCloud) -> None:
        self._cloud = cloud
        self._sent = [0] * len(cloud.portals)
        self._sending: asyncio.Task[None] | None = None

    def start(self, rate: float) -> Mapping[str, Any]:
        """Let them send."""
        self._sending = asyncio.create_task(self._send(rate))
        return {}

    async def _send(self, rate: float) -> None:
        rng, portals = random.Random(len(self._sent)), self._cloud.portals
        began, done = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - began) * rate)
            for _ in range(due - done):
                number = rng.randrange(len(portals))
                self._sent[number] += 1
                params = {"n": self._sent[number], "at": time.time()}
                portals[number].send("numbered", params, expiry_s=_KEPT_S)
            done = due
            await asyncio.sleep(_TICK_S)

    def stop(self) -> Mapping[str, Any]:
        """Let them send no more; tell what they have sent."""
        if self._sending is not None:
            self._sending.cancel()
        portals = self._cloud.portals
        refreshes = [request.granted for portal in portals for request in portal.token_requests]
        sent = {portal.member_id: sent for portal, sent in zip(portals, self._sent, strict=True)}
        return {"sent": sent, "refreshes": len(refreshes), "refused": refreshes.count(False)}


def _say(answer: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def main(count: int, domain: str, token_life_s: float) -> None:
    async with EmulatedCloud(count, domain=domain) as cloud:
        watch, senders = Watch(cloud), Senders(cloud)
        watching = asyncio.create_task(watch.run())
        for portal in cloud.portals:
            portal.token_life_s = token_life_s
        told = [
            [each.member_id, each.url, each.token, each.refresh_token, each.client_id, each.client_secret]
            for each in cloud.portals
        ]
        _say({"portals": told})
        while line := await asyncio.to_thread(sys.stdin.readline):
            match line.split():
                case ["starts"]:
                    _say(watch.starts())
                case ["send", rate]:
                    _say(senders.start(float(rate)))
                case ["sent"]:
                    _say(senders.stop())
                case _:
                    raise ValueError(line)
        watching.cancel()


if __name__ == "__main__":
    # Clients that are killed in the middle of a handshake are on purpose.
    logging.disable(logging.CRITICAL)
    collect_less_often()
    count, domain, token_life_s = (*sys.argv[1:], "", "3600")[:3]
    asyncio.run(main(int(count), domain, float(token_life_s)))
