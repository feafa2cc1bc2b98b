"""``bitrix-pull listen``: the events of a portal, as they come."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from bitrix_pull.cli.account import Account
from bitrix_pull.cli.credentials import credentials_of, options_of, portal_name
from bitrix_pull.cli.output import Columns, EventPrinter, JsonLines
from bitrix_pull.cli.streams import say
from bitrix_pull.client import PullClient
from bitrix_pull.dispatch.subscription import EventIterator
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import EventsDropped, Gap, InboxFull, MessageDropped, Notice, State, StateChanged
from bitrix_pull.options import Transport


async def listen(
    account: Account,
    *,
    events: int | None,
    command: str | None,
    module: str | None,
    portal_events: Sequence[str],
    transport: Transport,
    connector: str,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Print events until there were ``events`` of them, or until cancelled.

    Those of the stream, or of the portal itself if some are named.
    """
    if portal_events and (command is not None or module is not None):
        raise InvalidArgument("--portal-events does not go with --command and --module")
    if connector and not portal_events:
        raise InvalidArgument("--connector goes with --portal-events: the stream has none")
    credentials = credentials_of(account)
    options = options_of(account, transport=transport, start_timeout_s=timeout_s, connector=connector)
    pull = PullClient(credentials, options=options)
    printer: EventPrinter = JsonLines() if as_json else Columns()
    shown = 0
    subscription: EventIterator[Any] = pull.subscribe(command, module=module)
    if portal_events:
        subscription = pull.portal_events(*portal_events)
    # Entered first: what the portal does not have is an error of the start.
    async with narrated(pull, portal_name(credentials)), contextlib.AsyncExitStack() as subscribed:
        arriving = await subscribed.enter_async_context(subscription)
        async with pull:
            try:
                async for event in arriving:
                    printer.show(event)
                    shown += 1
                    if shown == events:
                        # It is handled, and nothing that the end of the client should wait for.
                        return await subscribed.aclose()
            except asyncio.CancelledError:
                say(f"stopped after {shown} event{'' if shown == 1 else 's'}")
                raise


@contextlib.asynccontextmanager
async def narrated(pull: PullClient, portal: str) -> AsyncGenerator[None]:
    """Say what happens to the connection."""
    task = asyncio.create_task(_narrate(pull.notices(), portal))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _narrate(notices: AsyncIterator[Notice], portal: str) -> None:
    was_live = False
    async for notice in notices:
        match notice:
            case StateChanged(state=State.LIVE):
                say(f"live again on {portal}" if was_live else f"live on {portal}; Ctrl-C stops")
                was_live = True
            case StateChanged(state=State.BACKOFF, error=error, retry_in_s=retry_in_s):
                say(f"not connected: {str(error).rstrip('.')}. Next attempt in {retry_in_s or 0:.1f} s.")
            case MessageDropped():
                say(f"left out an unreadable message (mid {notice.mid}): {notice.reason}")
            case Gap():
                say("the push server's history was gone: events may be lost")
            case InboxFull(waiting=waiting):
                say(f"events come faster than they can be shown: {waiting} wait, and no more are read")
            case EventsDropped(total=total):
                say(f"events come faster than they can be shown; dropped so far: {total}")
            case _:
                pass
