"""The ground that is nothing but this process: events are put where a connection's reader would put them."""

import asyncio
import contextvars
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bitrix_pull.connection.states import Lifecycle
from bitrix_pull.dispatch.dependencies import Supply, checked_context
from bitrix_pull.dispatch.registry import Registry
from bitrix_pull.dispatch.router import Router, registry_of
from bitrix_pull.events import Continuity, Gap, Origin, PortalEvent, PullEvent, Sender, State
from bitrix_pull.options import PullOptions
from bitrix_pull.reception import Reception
from bitrix_pull.redaction import PORTAL
from bitrix_pull.testing.events import make_event
from bitrix_pull.testing.grounds import PORTAL_NAME, Outside, is_client

if TYPE_CHECKING:
    from bitrix_pull.client import PullClient
    from bitrix_pull.publish.message import Message
    from bitrix_pull.testing.loan import Loan

_OFFLINE_S = 0.1
"""How long a connection is said to have been cut."""


class InProcess:
    """A ``Ground`` without a network. A router's client is made when somebody first asks for it."""

    def __init__(self, target: Router, outside: Outside, context: Mapping[str, Any]) -> None:
        """Stand on nothing.

        Args:
            target: A router, or a client that is not in use.
            outside: What the test says.
            context: What handlers may ask for, beside what a client has.
        """
        self._target = target
        self._outside = outside
        self._context = dict(context)
        self._pull: PullClient | None = target if is_client(target) else None
        self._loan: Loan | None = None
        self._registry = Registry()
        self._reception: Reception
        self._lifecycle: Lifecycle
        self._running: asyncio.Task[None] | None = None

    @property
    def pull(self) -> "PullClient":
        """The client under test, or that of the router under test."""
        if self._pull is None:
            from bitrix_pull.client import PullClient

            self._pull = PullClient(self._outside.answers, name=PORTAL_NAME, context=self._context)
            self._loan = self._lend(self._pull, (self._reception, self._lifecycle))
        return self._pull

    def _lend(self, pull: "PullClient", reception: "tuple[Reception, Lifecycle] | None") -> "Loan":
        from bitrix_pull.testing.answers import AnsweringRest
        from bitrix_pull.testing.loan import lend
        from bitrix_pull.testing.post import Keeping

        answers, post = self._outside.answers, self._outside.post
        return lend(
            pull,
            lambda _: answers,
            rest=lambda own: AnsweringRest(own, answers),
            publishing=lambda _, mode: Keeping(post, mode, self._bring),
            reception=reception,
        )

    def _bring(self, message: "Message", sender: Sender) -> None:
        event = make_event(message.command, message.params, module=message.module, sender=sender)
        self._reception.stream.put([event])

    # -- as a ``Ground`` --------------------------------------------------------------------

    async def open(self, look_on: Callable[[Reception], None]) -> None:
        """See ``Ground``."""
        portal = PORTAL_NAME
        if self._pull is not None:
            self._loan = self._lend(self._pull, None)
            self._reception, self._lifecycle = self._loan.reception, self._loan.lifecycle
            portal, self._context = self._pull.portal, {**self._pull.context, **self._context}
        else:
            self._reception = Reception(self._registry, PullOptions(), Origin(portal, lambda: self.pull))
            self._lifecycle = Lifecycle(self._reception.notices.post)
            self._registry.include(registry_of(self._target))
        look_on(self._reception)
        self._reception.prepare(Supply(checked_context(self._context), self._by_type()))
        for state in (State.CONFIGURING, State.CONNECTING, State.LIVE):
            self._lifecycle.move(state)
        log_context = contextvars.copy_context()
        log_context.run(PORTAL.set, portal)
        self._running = asyncio.create_task(
            self._reception.run(), name="bitrix_pull test client", context=log_context
        )

    def _by_type(self) -> Mapping[type, object]:
        """Return the client, if a handler may ask for it by its type."""
        wishes = [wish for handler in self._registry.handlers() for wish in handler.signature.wishes]
        for registry in self._registry.registries():
            wishes += [wish for item in registry.error_handlers.values() for wish in item.signature.wishes]
        if self._pull is None and not any("PullClient" in str(wish.annotation) for wish in wishes):
            return {}
        from bitrix_pull.client import PullClient

        return {PullClient: self.pull}

    async def close(self) -> None:
        """See ``Ground``."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
            self._reception.finish(None)
        if not is_client(self._target) and registry_of(self._target) in self._registry.registries():
            self._registry.exclude(registry_of(self._target))
        if self._loan is not None:
            await self._loan.end()

    async def send(self, event: PullEvent[Any]) -> str:
        """See ``Ground``."""
        self._reception.stream.put([event])
        return event.mid

    async def change(self, event: PortalEvent[Any]) -> None:
        """See ``Ground``."""
        self._reception.portal_feed.dispatcher.put([event])

    def is_told(self, event: PortalEvent[Any]) -> bool:
        """See ``Ground``."""
        return True

    async def cut(self, missed: Sequence[PullEvent[Any]]) -> Sequence[str]:
        """See ``Ground``."""
        replayed = [event.but(replayed=True) for event in missed]
        self._lifecycle.move(State.BACKOFF, retry_in_s=_OFFLINE_S)
        self._lifecycle.move(State.CONNECTING)
        self._lifecycle.move(State.CATCHING_UP)
        self._reception.notices.post(Continuity("yes", len(replayed), 1, _OFFLINE_S))
        self._lifecycle.move(State.LIVE)
        self._reception.stream.put(replayed)
        return [event.mid for event in replayed]

    async def lose_history(self) -> None:
        """See ``Ground``."""
        self._lifecycle.move(State.BACKOFF, retry_in_s=_OFFLINE_S)
        self._lifecycle.move(State.CONNECTING)
        self._lifecycle.move(State.LIVE)
        self._reception.notices.post(Gap("no", 0, 0, _OFFLINE_S))
