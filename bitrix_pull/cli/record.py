"""``bitrix-pull record``: the events of a portal, into a file."""

from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import orjson

from bitrix_pull.cli.account import Account
from bitrix_pull.cli.credentials import credentials_of, options_of, portal_name
from bitrix_pull.cli.listen import narrated
from bitrix_pull.cli.streams import say, write_line
from bitrix_pull.client import PullClient
from bitrix_pull.options import Transport
from bitrix_pull.testing.recorder import Recorder


async def record(
    account: Account,
    file: Path,
    *,
    keep_params: bool,
    events: int | None,
    transport: Transport,
    as_json: bool,
) -> None:
    """Record until there were ``events`` of them, or until cancelled."""
    credentials = credentials_of(account)
    pull = PullClient(credentials, options=options_of(account, transport=transport))
    recorder = Recorder(file, keep_params=keep_params)
    count = 0

    def tell() -> None:
        if as_json:
            write_line(orjson.dumps({"file": str(file), "events": count, "dropped": recorder.dropped}))
        else:
            dropped = f", and {recorder.dropped} were dropped" if recorder.dropped else ""
            say(f"{count} events are in {file}{dropped}")

    with ExitStack() as end, recorder.follow(pull):
        # Once all is in the file.
        end.callback(tell)
        if not keep_params:
            say("what events carry is hidden; --keep-params keeps it")
        async with narrated(pull, portal_name(credentials)), AsyncExitStack() as subscribed:
            arriving = await subscribed.enter_async_context(pull.subscribe())
            async with pull:
                async for _ in arriving:
                    count += 1
                    if count == events:
                        # It is handled, and nothing that the end of the client should wait for.
                        return await subscribed.aclose()
