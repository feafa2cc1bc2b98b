"""Round trips to oneself: by each way of publishing, and through the push server's history."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from bitrix_pull.connection.states import Lifecycle
from bitrix_pull.connection.stores import MemoryStore, ResumeStore
from bitrix_pull.dispatch.dependencies import Supply
from bitrix_pull.dispatch.router import Router, registry_of
from bitrix_pull.doctor.findings import Finding, failed
from bitrix_pull.doctor.patient import Patient, Stopwatch
from bitrix_pull.errors import InvalidSignature, PublishRefused, PullError, RouteUnavailable
from bitrix_pull.events import Origin, PullEvent, StateChanged
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.publish.message import Message
from bitrix_pull.publish.publisher import Route
from bitrix_pull.reception import Reception
from bitrix_pull.running import Run

COMMAND = "bitrix_pull.diagnosis"
"""What is published to oneself: handlers for all commands get it too."""

ARRIVAL_S = 10.0
"""How long an event may be on its way to who published it."""

_TROUBLE = "The push server, or something before it, lets nothing be published: see what answers there."
_REWRITTEN = "See what stands between here and the push server: it cuts the stream, or rewrites it."
_TWO_KEYS = (
    "The portal and its push server disagree: an administrator must see that both have the same security key."
)

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
    told = f"a push server of version {version or 'unknown'}: {', '.join(ways) or 'no way at all'}"
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
        self._broken_by: Exception | None = None

    async def each_route(self) -> list[Finding]:
        """Publish by each route that there is, and wait for the event."""
        findings: list[Finding] = []
        try:
            async with self._live(self._store) as run:
                for route in _ROUTES:
                    if (finding := await self._there(run, route)) is not None:
                        findings.append(finding)
        except PullError as error:
            return [failed("publishing", error)]
        return findings

    async def history(self) -> Finding:
        """Publish while one's stream is not connected, connect it, and see whether the event is replayed."""
        event = self._expect()
        try:
            async with self._live(self._store):
                pass
            with Stopwatch() as watch:
                await self._publish_elsewhere(event)
                async with self._live(self._store):
                    arrived = await self._wait(event)
        except RouteUnavailable:
            return Finding("history", "ok", "not looked at: nobody can publish to this push server past REST")
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

    async def _publish_elsewhere(self, event: str) -> None:
        """Publish without the stream whose history is looked at.

        Raises:
            RouteUnavailable: There is no way.
        """
        patient = self._patient
        if patient.mode == "application":
            async with self._run(MemoryStore()) as away:
                await self._publish(away, "rest", event)
        elif patient.config is not None and patient.config.server.version >= 5:
            # Only who is connected can publish to such a server: over a stream that counts for nothing.
            async with self._live(MemoryStore(), hears=False) as speaker:
                await self._publish(speaker, "socket", event)
        else:
            async with self._run(MemoryStore()) as away:
                await self._publish(away, "endpoint", event)

    async def _there(self, run: Run, route: Route) -> Finding | None:
        check = f"publishing by {route}"
        event, self._broken_by = self._expect(), None
        try:
            with Stopwatch() as watch:
                await self._publish(run, route, event)
                arrived = await self._wait(event)
        except RouteUnavailable:
            return None
        except InvalidSignature as error:
            return failed(check, error, _TWO_KEYS)
        except PullError as error:
            return failed(check, error, error.advice if isinstance(error, PublishRefused) else _TROUBLE)
        if arrived is None:
            told = f"what was published to oneself did not arrive within {ARRIVAL_S:g} s"
            if self._broken_by is not None:
                cut = str(self._broken_by).rstrip(".")
                return Finding(check, "fail", f"{told}, and the stream broke meanwhile: {cut}", _REWRITTEN)
            return Finding(
                check,
                "fail",
                told,
                "The push server takes events and does not hand them on: an administrator must look at it.",
            )
        return Finding(check, "ok", "published to oneself, and arrived", took_s=watch.took_s)

    # -- a stream of one's own ----------------------------------------------------

    @contextlib.asynccontextmanager
    async def _run(self, store: ResumeStore, *, hears: bool = True) -> AsyncGenerator[Run]:
        """Have a run for a block, which is not started."""
        patient, router = self._patient, Router()
        if hears:
            router.on(COMMAND)(self._note)
        reception = Reception(registry_of(router), patient.options, Origin(patient.portal))
        reception.prepare(Supply())
        run = Run(
            portal=patient.portal,
            rest=self._rest,
            mode=patient.mode,
            store=store,
            keys=_one_key,
            start="resume",
            options=replace(patient.options, overflow="pause"),
            lifecycle=Lifecycle(self._hear),
            reception=reception,
        )
        try:
            yield run
        finally:
            await run.close(drain_s=0.0)

    @contextlib.asynccontextmanager
    async def _live(self, store: ResumeStore, *, hears: bool = True) -> AsyncGenerator[Run]:
        """Be live for a block.

        Raises:
            PullError: It does not become so in time.
        """
        async with self._run(store, hears=hears) as run:
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

    def _hear(self, change: StateChanged) -> None:
        self._broken_by = change.error or self._broken_by

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
