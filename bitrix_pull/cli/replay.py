"""``bitrix-pull replay``: a recording, served through the emulator."""

import asyncio
from pathlib import Path

import orjson

from bitrix_pull.cli.emulator import explain
from bitrix_pull.cli.streams import say, write_line
from bitrix_pull.emulator.channels import Audience
from bitrix_pull.emulator.server import Emulator
from bitrix_pull.emulator.stand import Setup, Stand
from bitrix_pull.events import PortalEvent
from bitrix_pull.testing.recording import Recorded
from bitrix_pull.testing.replay import Replay

_LOOK_EVERY_S = 0.05


async def replay(file: Path, *, speed: float, port: int, push_version: int, as_json: bool) -> None:
    """Serve a portal, and send what was recorded once a client is connected; until cancelled."""
    recorded = Replay(file)
    header = recorded.recording.header
    audience: Audience = "user" if header.mode == "user" else "application"
    async with Stand(Setup(port=port, version=push_version)) as stand:
        (emulator,) = stand.emulators
        described = stand.described()
        if as_json:
            write_line(orjson.dumps(described))
        else:
            explain(described, user_mode=audience == "user")
        say("waiting for a client")
        while not emulator.push.connections:  # noqa: ASYNC110 - the emulator tells nobody
            await asyncio.sleep(_LOOK_EVERY_S)
        sent = 0
        async for event in recorded.paced(speed):
            _send(emulator, event, audience)
            sent += 1
        say(f"{sent} events were sent; Ctrl-C stops")
        await asyncio.Event().wait()


def _send(emulator: Emulator, event: Recorded, audience: Audience) -> None:
    """Let a portal send an event again, as a new one."""
    if isinstance(event, PortalEvent):
        emulator.portal.change(event.name, event.data, user_id=event.user_id)
        return
    emulator.portal.send(
        event.command,
        event.params,
        module=event.module_id,
        audience=audience,
        expiry_s=86_400 if event.expiry is None else event.expiry,
        sender=event.sender,
    )
