"""A client's runs, one after another, and what outlives each of them."""

import asyncio
from collections.abc import Sequence

from bitrix_pull.connection.checkpointer import Start
from bitrix_pull.connection.resume_keys import resume_keys
from bitrix_pull.connection.states import Lifecycle
from bitrix_pull.connection.stores import MemoryStore, ResumeStore
from bitrix_pull.dispatch.dependencies import Supply
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.auth import Mode
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.reception import Reception
from bitrix_pull.running import Run
from bitrix_pull.shared import Shared
from bitrix_pull.telemetry import Around


class Runs:
    """What a client consists of, and the run that it is in: one at a time.

    Attributes:
        portal: What the portal is called.
        mode: Whose channels.
        options: Timeouts, limits and policies.
        rest: What the client's users call the portal by.
        reception: Where events arrive.
        lifecycle: The client's state.
        around_publishing: What is around each publish call, if anything.
        run: The present one, which may be over.
        is_borrowed: True if they are a test's, and the client's own are kept for afterwards.
    """

    __slots__ = (
        "_is_keyed",
        "_shared",
        "_start",
        "_store",
        "around_publishing",
        "is_borrowed",
        "lifecycle",
        "mode",
        "options",
        "portal",
        "reception",
        "rest",
        "run",
    )

    def __init__(
        self,
        *,
        portal: str,
        rest: RestClient,
        mode: Mode,
        options: PullOptions,
        reception: Reception,
        lifecycle: Lifecycle,
        store: ResumeStore | None = None,
        start: Start = "latest",
        shared: Shared | None = None,
    ) -> None:
        """Put them together; nothing is sent.

        ``store`` is where resume points are written down (None: in memory), ``start`` where a run
        begins, ``shared`` what is shared with other clients; the others are attributes.
        """
        self.portal: str = portal
        self.mode: Mode = mode
        self.options: PullOptions = options
        self.rest: RestClient = rest
        self.reception: Reception = reception
        self.lifecycle: Lifecycle = lifecycle
        self.around_publishing: Around | None = None
        self.is_borrowed: bool = False
        self._is_keyed = store is not None
        self._start: Start = start
        self._shared = shared
        self._store: ResumeStore = store if store is not None else MemoryStore()
        self.run: Run = self._new()

    def _new(self) -> Run:
        return Run(
            portal=self.portal,
            rest=self.rest,
            mode=self.mode,
            store=self._store,
            keys=self._keys,
            start=self._start,
            options=self.options,
            lifecycle=self.lifecycle,
            reception=self.reception,
            shared=self._shared,
        )

    async def _keys(self, config: PullConfig) -> Sequence[str]:
        # A store in memory of its own needs no key, and no call to the portal for one.
        return await resume_keys(self.rest, self.mode, config) if self._is_keyed else ("",)

    def joined(self) -> Run:
        """Return the run that calls go through: a new one after ``close``, of which nothing stays.

        Raises:
            RuntimeError: The client is still in use in another event loop.
        """
        if self.run.over:
            self.run = self._new()
        self.run.join_loop()
        return self.run

    def start(self, supply: Supply) -> "asyncio.Task[None]":
        """Begin a run, and return the task that serves; see ``Run.start``.

        Args:
            supply: What there is for handlers.

        Raises:
            InvalidArgument: A handler asks for what nothing provides.
            RuntimeError: The client is running already, or in use in another event loop.
        """
        if self.run.serving:
            raise RuntimeError("this client is running already; create another one for another stream")
        if self.run.started:
            self.run = self._new()
        run = self.joined()
        self.reception.prepare(supply)
        self.lifecycle.close()
        return run.start()

    async def close(self, drain_s: float) -> None:
        """End the present run, and whoever listens; see ``PullClient.close``."""
        await self.run.close(drain_s)
        self.lifecycle.close()
        self.reception.notices.end()
