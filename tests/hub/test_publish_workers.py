"""A worker process is killed while other services ask to publish."""

import asyncio
import json
from collections import Counter
from typing import Any

import redis.asyncio

from bitrix_pull import AccessToken, Portal
from bitrix_pull.emulator import EmulatedCloud
from bitrix_pull.hub.valkey import PublishAnswer, ValkeyCluster, ValkeyPortals, ValkeyPublisher
from tests.cli.command import start


async def test_a_killed_owner_doubles_nothing_and_leaves_no_request_without_an_answer(
    valkey_url: str, name: str
) -> None:
    async with EmulatedCloud(4) as cloud, redis.asyncio.Redis.from_url(valkey_url) as engine:
        portals = ValkeyPortals(valkey_url, name=name)
        # By their keys and the names of the workers, each has some.
        for number, portal in enumerate(cloud.portals):
            await portals.put(Portal(f"portal{number}", AccessToken(portal.url, portal.token)))
        arguments = ("hub", "run", "--valkey", valkey_url, "--name", name, "--log", "--worker")
        workers = [await start(*arguments, worker) for worker in ("one", "two")]
        try:
            await _until_shared(ValkeyCluster(valkey_url, name=name))
            asked: list[asyncio.Task[PublishAnswer]] = []
            async with ValkeyPublisher(valkey_url, name=name) as publisher, asyncio.TaskGroup() as tasks:
                for number in range(60):
                    asking = publisher.publish(f"portal{number % 4}", "order", {"n": number})
                    asked.append(tasks.create_task(asking))
                    if number == 30:
                        workers[1].kill()
                    await asyncio.sleep(0.01)
            answers = [task.result() for task in asked]
            outcomes = Counter(answer.outcome for answer in answers)
            # One portal after the other, so that each of the killed worker's may be in doubt about one.
            assert outcomes["refused"] == 0
            assert outcomes["unknown"] <= 4
            accepted = {number for number, answer in enumerate(answers) if answer.outcome == "accepted"}
            # What was published comes back into the log, where each event is once.
            published = Counter[int]()
            async with asyncio.timeout(30):
                while not accepted <= published.keys():
                    entries: Any = await engine.xrange(f"{{{name}:0}}:events")
                    events = [json.loads(fields[b"event"]) for _, fields in entries]
                    published = Counter(event["params"]["n"] for event in events)
                    await asyncio.sleep(0.1)
            assert set(published.values()) == {1}
        finally:
            for worker in workers:
                worker.kill()
                await worker.end()


async def _until_shared(cluster: ValkeyCluster) -> None:
    """Wait until both workers have portals, all of which are live."""
    async with asyncio.timeout(60):
        while True:
            status = await cluster.status()
            live = sum(worker.health.get("live", 0) for worker in status.workers)
            if live == 4 and len(set(status.owners.values())) == 2:
                return
            await asyncio.sleep(0.1)
