"""``bitrix-pull inspect``: a web page that shows what comes, on an account or on an emulated portal."""

import asyncio
import contextlib
import os
import webbrowser
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from bitrix_pull.cli.account import Account
from bitrix_pull.cli.credentials import credentials_of, options_of
from bitrix_pull.cli.demo import PAUSE_S, Deal, story
from bitrix_pull.cli.output import people_console
from bitrix_pull.cli.place import NAME, valkey
from bitrix_pull.cli.streams import say, write_line
from bitrix_pull.client import PullClient
from bitrix_pull.emulator import Emulator
from bitrix_pull.errors import InvalidArgument, PullError
from bitrix_pull.failures import one_failure
from bitrix_pull.inspector import Inspector
from bitrix_pull.options import PullOptions, Transport
from bitrix_pull.portal.auth import AccessToken

if TYPE_CHECKING:
    from bitrix_pull.inspector.hub import HubInspector

_CUT_EVERY_S = 45.0
_CUT_FOR_S = 2.0
"""The demo's connection is cut now and then, for so long."""


@dataclass(frozen=True, slots=True)
class Beside:
    """Which hubs to look at: those that meet at an engine, by a name; none without its address."""

    engine: str | None
    name: str
    shards: int

    def inspector(self, port: int) -> "HubInspector":
        """Return what shows them.

        Raises:
            InvalidArgument: What it takes is not installed, or the address is none.
        """
        assert self.engine is not None
        valkey()  # It says what is missing.
        from bitrix_pull.inspector.hub import HubInspector

        return HubInspector(self.engine, name=self.name, shards=self.shards, port=port)


async def inspect(
    account: Account,
    *,
    demo: bool,
    beside: Beside,
    port: int,
    transport: Transport,
    connector: str,
    open_browser: bool,
    as_json: bool,
) -> None:
    """Serve the page until cancelled."""
    if demo and account != Account():
        raise InvalidArgument("--demo takes no account")
    if beside.engine is None and beside != Beside(None, NAME, 1):
        raise InvalidArgument("--name and --shards go with --valkey")
    if beside.engine is not None and (demo or account != Account() or transport != "auto" or connector):
        raise InvalidArgument(
            "--valkey shows all portals of a hub: it takes no account, no --demo, --transport and --connector"
        )
    async with contextlib.AsyncExitStack() as stack:
        pull: PullClient | None = None
        inspector: Inspector | HubInspector
        if beside.engine is not None:
            inspector = beside.inspector(port)
        else:
            options = options_of(account, transport=transport, connector=connector)
            if demo:
                pull = await stack.enter_async_context(_demo(options))
            else:
                pull = PullClient(credentials_of(account), options=options)
            inspector = Inspector(pull, port=port)
        await _serve(inspector, stack, port)
        if pull is not None:
            await stack.enter_async_context(pull.serving())
        if as_json:
            write_line(orjson.dumps({"url": inspector.url}))
        else:
            people_console().print(inspector.url, soft_wrap=True)
            say("Open it in a browser on this machine; its key is for you alone. Ctrl-C stops it.")
        if open_browser:
            await asyncio.to_thread(webbrowser.open, inspector.url)
        await asyncio.Event().wait()


async def _serve(inspector: "Inspector | HubInspector", stack: contextlib.AsyncExitStack, port: int) -> None:
    try:
        await stack.enter_async_context(inspector)
    except OSError as error:
        # Nothing that the library itself raises is meant.
        if isinstance(error, PullError):
            raise
        reason = os.strerror(error.errno) if error.errno else "unknown reason"
        raise PullError(
            f"cannot listen on port {port}: {reason}", advice="Choose another one with --port."
        ) from None


@contextlib.asynccontextmanager
async def _demo(options: PullOptions) -> AsyncGenerator[PullClient]:
    """Let an emulated portal tell its story, with a cut now and then, to the client of this context."""
    say("An emulated Bitrix24 portal on this machine: no account, nothing leaves it.")
    async with Emulator() as emulator:
        portal = emulator.portal
        portal.application_scope.add("pull_channel")
        pull = PullClient(AccessToken(emulator.portal_url, emulator.token), options=options)
        colleague = PullClient(AccessToken(emulator.portal_url, portal.issue_token(2)))
        await pull.batch_call(
            [
                ("event.bind", {"event": name, "event_type": "offline"})
                for name in ("ONCRMDEALADD", "ONCRMDEALUPDATE")
            ]
        )
        with one_failure():
            async with colleague.serving(), asyncio.TaskGroup() as tasks:
                playing = [
                    tasks.create_task(_play(emulator, pull), name="demo story"),
                    tasks.create_task(_cut(emulator), name="demo cuts"),
                ]
                try:
                    yield pull
                finally:
                    for task in playing:
                        task.cancel()


async def _play(emulator: Emulator, pull: PullClient) -> None:
    deals = emulator.portal.deals
    for step in story():
        await asyncio.sleep(PAUSE_S)
        if isinstance(step, Deal):
            deals.update(deals.add({"TITLE": step.title}), {"STAGE_ID": step.stage})
            continue
        # During a cut the socket cannot publish.
        with contextlib.suppress(PullError):
            await pull.publish(step.command, step.params, users=step.users, route=step.route)


async def _cut(emulator: Emulator) -> None:
    while True:
        await asyncio.sleep(_CUT_EVERY_S)
        emulator.push.faults.websocket_refusal = emulator.push.faults.poll_refusal = 502
        await emulator.push.disconnect_all()
        await asyncio.sleep(_CUT_FOR_S)
        emulator.push.faults.websocket_refusal = emulator.push.faults.poll_refusal = None
