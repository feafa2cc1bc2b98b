"""The ground that is an emulated portal and its push server, over sockets on loopback."""

import json
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any
from weakref import WeakSet

from bitrix_pull.client import PullClient
from bitrix_pull.dispatch.router import Router, registry_of
from bitrix_pull.emulator import Emulator, Owner
from bitrix_pull.events import Continuity, Gap, Notice, PortalEvent, PullEvent, Sender, SenderType
from bitrix_pull.portal.auth import AccessToken, Credentials, Mode, Webhook
from bitrix_pull.reception import Reception
from bitrix_pull.testing.answers import AnsweringRest
from bitrix_pull.testing.grounds import PORTAL_NAME, Outside, is_client
from bitrix_pull.testing.loan import lend
from bitrix_pull.testing.post import OWN_USER, Passing

CALM_OPTIONS: Mapping[str, Any] = {
    "ping_interval_s": 900.0,
    "ping_timeout_s": 300.0,
    "portal_events_interval_s": 3_600.0,
}
"""A quiet day is made of pings and of looks for the most part. A dead link is still noticed, in 20
minutes of the test's, and a lost announcement in an hour."""

CALM_SERVER_PING_INTERVAL_S = 1_200.0

_in_use: "WeakSet[Emulator]" = WeakSet()

Until = Callable[[Callable[[], bool], str], Awaitable[None]]
"""Waits until something is so, and lets time pass for it; the text says what is waited for."""


class OverSockets:
    """A ``Ground`` on which a client is live on an emulated portal."""

    def __init__(
        self,
        target: Router,
        outside: Outside,
        context: Mapping[str, Any],
        emulator: Emulator | None,
        *,
        until: Until,
        notices: Sequence[Notice],
    ) -> None:
        """Stand on an emulated portal.

        Args:
            target: A router, or a client that is not in use.
            outside: What the test says.
            context: What handlers may ask for, beside what a client has.
            emulator: The portal; None: one of its own.
            until: How to wait for what the client does.
            notices: What the client has said so far.

        Raises:
            RuntimeError: Another test client stands on that portal.
        """
        if emulator is not None and emulator in _in_use:
            raise RuntimeError(
                "this emulated portal has a TestClient already: give each one a portal of its own"
                " (emulator=True), or use one TestClient for both"
            )
        self._target = target
        self._outside = outside
        self._context = context
        self._is_own = emulator is None
        self._until = until
        self._notices = notices
        self._stack = AsyncExitStack()
        self.emulator: Emulator = emulator if emulator is not None else Emulator()
        self.pull: PullClient
        self.pull = target if is_client(target) else PullClient(outside.answers, name=PORTAL_NAME)
        self._mode: Mode = "application"
        self._reception: Reception

    # -- as a ``Ground`` ----------------------------------------------------------------------

    async def open(self, look_on: Callable[[Reception], None]) -> None:
        """See ``Ground``."""
        async with self._stack as stack:
            _in_use.add(self.emulator)
            stack.callback(_in_use.discard, self.emulator)
            if self._is_own:
                await stack.enter_async_context(self.emulator)
            push = self.emulator.push
            push.gather_s, push.ping_interval_s = 0.0, CALM_SERVER_PING_INTERVAL_S
            self._lend(stack)
            look_on(self._reception)
            await stack.enter_async_context(self.pull.serving())
            # What handlers have in hand is not waited for.
            stack.push_async_callback(self.pull.close, 0.0)
            await self.pull.wait_live(timeout=None)
            self._stack = stack.pop_all()

    def _lend(self, stack: AsyncExitStack) -> None:
        """Let the client be one of the emulated portal."""
        pull, emulator, answers = self.pull, self.emulator, self._outside.answers
        if not is_client(self._target):
            pull.include(self._target)
            stack.callback(registry_of(pull).exclude, registry_of(self._target))
        context = pull.context
        pull.context = {**context, **self._context}
        stack.callback(setattr, pull, "context", context)

        def auth(mode: Mode) -> Credentials:
            if mode == "user":
                return Webhook(emulator.webhook_url)
            return AccessToken(emulator.portal_url, emulator.token)

        loan = lend(
            pull,
            auth,
            rest=lambda own: AnsweringRest(own, answers),
            publishing=lambda inner, _: Passing(self._outside.post, inner),
            options=CALM_OPTIONS,
        )
        stack.push_async_callback(loan.end)
        self._reception, self._mode = loan.reception, loan.mode

    async def close(self) -> None:
        """See ``Ground``."""
        await self._stack.aclose()

    async def send(self, event: PullEvent[Any]) -> str:
        """See ``Ground``."""
        portal, push = self.emulator.portal, self.emulator.push
        if event.kind == "client":
            body = {"module_id": event.module_id, "command": event.command, "params": event.raw}
            channel = portal.channels.current(Owner(self._mode, OWN_USER)).subscribed
            sender = Sender(SenderType.CLIENT, event.sender.id or secrets.token_hex(16))
            ids = [push.signer.read(channel, trusted=True).id]
            return push.send(ids, json.dumps(body).encode(), event.expiry or 0, sender)
        return portal.send(
            event.command,
            event.raw,
            module=event.module_id,
            audience=self._mode,
            expiry_s=event.expiry or 0,
        )

    async def change(self, event: PortalEvent[Any]) -> None:
        """See ``Ground``."""
        portal = self.emulator.portal
        bound = (event.name, event.connector)
        await self._until(lambda: bound in portal.offline.bindings, f"{event.name} to be bound")
        portal.change(event.name, event.raw or False, user_id=event.user_id)

    def is_told(self, event: PortalEvent[Any]) -> bool:
        """See ``Ground``."""
        same = [item for item in self.emulator.portal.offline.records if item.message_id == event.message_id]
        return all(item.failed for item in same)

    async def cut(self, missed: Sequence[PullEvent[Any]]) -> Sequence[str]:
        """See ``Ground``."""
        heard = len(self._notices)
        await self.emulator.stop()
        mids = [await self.send(event) for event in missed]
        await self.emulator.start()
        await self._until(lambda: self._is_back(heard, Continuity), "the connection to be back")
        return mids

    async def lose_history(self) -> None:
        """See ``Ground``."""
        heard = len(self._notices)
        await self.emulator.stop()
        await self.emulator.start(keep_history=False)
        await self._until(lambda: self._is_back(heard, Gap), "the connection to be back, and a Gap")

    def _is_back(self, heard: int, kind: type[Notice]) -> bool:
        return any(isinstance(notice, kind) for notice in self._notices[heard:])
