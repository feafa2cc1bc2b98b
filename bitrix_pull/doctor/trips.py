"""Round trips to oneself: by each way of publishing, and through the push server's history."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from bitrix_pull.connection.states import Lifecycle
from bitrix_pull.connection.stores import MemoryStore
from bitrix_pull.dispatch.dependencies import Supply
from bitrix_pull.dispatch.router import Router, registry_of
from bitrix_pull.doctor.findings import Finding, failed
from bitrix_pull.doctor.patient import Patient, Stopwatch
from bitrix_pull.errors import PullError, RouteUnavailable
from bitrix_pull.events import Origin, PullEvent
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.publish.message import Message
from bitrix_pull.publish.publisher import Route
from bitrix_pull.reception import Reception
from bitrix_pull.running import Run

COMMAND = "bitrix_pull.diagnosis"
"""What is published to oneself: handlers for all commands get it too."""

ARRIVAL_S = 10.0
"""How long an event may be on its way to who published it."""

_ROUTES: Sequence[Route] = ("rest", "endpoint", "socket")


def offered(config: PullConfig, patient: Patient) -> Finding:
    """Say by which ways one could publish."""
    version = config.server.version
    has_endpoint = version == 4 and config.publish_url is not None
    ways = [
        *(["REST"] if patient.mode == "application" else []),
        *(["the publish endpoint"] if has_endpoint else []),
        *(["the open socket"] if version >= 4 and config.websocket_url is not None else []),
    ]
    told = f"a push server of version {version or 'unknown'}: {' and '.join(ways) or 'no way at all'}"
    if version >= 5 or has_endpoint:
        return Finding("publishing", "ok", told)
    if version == 4:
        advice = (
            "An administrator can enable publishing in the portal's Push & Pull settings (publish_enabled)."
        )
    else:
        advice = "Clients can publish past REST from version 4 on: an administrator sets the version."
    return Finding("publishing", "warn", f"{told}: clients cannot publish to it past REST", advice)


class Trips:
    """Publishes to oneself, and waits for it over a stream of its own."""

    def __init__(self, patient: Patient) -> None:
        """Make trips for a patient; nothing is sent yet."""
        self._patient = patient
        # A session of its own, which is closed with each stream.
        self._rest = patient.rest.sibling()
        self._store = MemoryStore()
        self._arrived: dict[str, asyncio.Future[PullEvent[Any]]] = {}

    async def each_route(self) -> list[Finding]:
        """Publish by each route that there is, and wait for the event."""
        findings: list[Finding] = []
        try:
            async with self._live() as run:
                for route in _ROUTES:
                    if (finding := await self._there(run, route)) is not None:
                        findings.append(finding)
        except PullError as error:
            return [failed("publishing", error)]
        return findings

    async def history(self, version: int) -> Finding:
        """Publish while nobody listens, connect, and see whether the event is replayed."""
        route: Route = "rest" if self._patient.mode == "application" else "endpoint"
        if route == "endpoint" and version != 4:
            return Finding("history", "ok", "not looked at: only who listens can publish to this push server")
        try:
            async with self._live():
                pass
            with Stopwatch() as watch:
                async with self._run() as away:
                    event = self._expect()
                    await self._publish(away, route, event)
                async with self._live():
                    arrived = await self._wait(event)
        except PullError as error:
            return failed("history", error)
        if arrived is None:
            return Finding(
                "history",
                "fail",
                "what was published between two connections was not replayed",
                "The push server keeps no history: an administrator must look at its Redis.",
                took_s=watch.took_s,
            )
        return Finding(
            "history", "ok", "what was published between two connections was replayed", took_s=watch.took_s
        )

    async def _there(self, run: Run, route: Route) -> Finding | None:
        check = f"publishing by {route}"
        event = self._expect()
        try:
            with Stopwatch() as watch:
                await self._publish(run, route, event)
                arrived = await self._wait(event)
        except RouteUnavailable:
            return None
        except PullError as error:
            return failed(check, error)
        if arrived is None:
            return Finding(
                check,
                "fail",
                f"what was published to oneself did not arrive within {ARRIVAL_S:g} s",
                "The push server takes events and does not hand them on: an administrator must look at it.",
            )
        return Finding(check, "ok", "published to oneself, and arrived", took_s=watch.took_s)

    # -- a stream of one's own ----------------------------------------------------

    @contextlib.asynccontextmanager
    async def _run(self) -> AsyncGenerator[Run]:
        """Have a run for a block, which is not started."""
        patient, router = self._patient, Router()
        router.on(COMMAND)(self._note)
        reception = Reception(registry_of(router), patient.options, Origin(patient.portal))
        reception.prepare(Supply())
        run = Run(
            portal=patient.portal,
            rest=self._rest,
            mode=patient.mode,
            store=self._store,
            keys=_one_key,
            start="resume",
            options=replace(patient.options, overflow="pause"),
            lifecycle=Lifecycle(reception.notices.post),
            reception=reception,
        )
        try:
            yield run
        finally:
            await run.close(drain_s=0.0)

    @contextlib.asynccontextmanager
    async def _live(self) -> AsyncGenerator[Run]:
        """Be live for a block.

        Raises:
            PullError: It does not become so in time.
        """
        async with self._run() as run:
            run.start()
            await run.wait_live(self._patient.options.start_timeout_s)
            yield run

    async def _publish(self, run: Run, route: Route, event: str) -> None:
        user_id = self._patient.user_id
        if route == "rest" and user_id is not None:
            # Before version 4 no configuration tells who we are.
            message = Message(COMMAND, {"trip": event}, users=[user_id])
        else:
            message = Message(COMMAND, {"trip": event}, to_self=True)
        receipt = await run.publisher.publish([message], route=route, retry="never", timeout_s=ARRIVAL_S)
        receipt.raise_for_failures()

    def _expect(self) -> str:
        event = uuid4().hex[:16]
        self._arrived[event] = asyncio.get_running_loop().create_future()
        return event

    def _note(self, event: PullEvent[Any]) -> None:
        arrived = self._arrived.get(str(event.params.get("trip")))
        if arrived is not None and not arrived.done():
            arrived.set_result(event)

    async def _wait(self, event: str) -> PullEvent[Any] | None:
        try:
            async with asyncio.timeout(ARRIVAL_S):
                return await self._arrived[event]
        except TimeoutError:
            return None
        finally:
            del self._arrived[event]


async def _one_key(config: PullConfig) -> Sequence[str]:
    # A store in memory of its own.
    return ("",)
