"""Every server version, transport and mode: subscribe, receive, resume, publish."""

import asyncio
from typing import Any, Literal

import pytest

from bitrix_pull import State
from bitrix_pull.emulator import Emulator
from bitrix_pull.errors import RouteUnavailable
from bitrix_pull.publish.publisher import Route
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running

FORMATS: dict[str, tuple[int, bool]] = {
    "text 3": (3, True),
    # JSON in the cloud, text on a box (protocol §4).
    "json 4": (4, False),
    "protobuf 4": (4, True),
    "json-rpc 5": (5, True),
}
MODES: tuple[Literal["personal", "shared"], ...] = ("personal", "shared")
CELLS = [
    (name, transport, mode)
    for name in FORMATS
    for transport in ("websocket", "long_polling")
    for mode in MODES
    # JSON-RPC is spoken over WebSockets only (protocol §4.3).
    if not (name == "json-rpc 5" and transport == "long_polling")
    # In shared mode the version is always 4 (protocol §2).
    and (mode == "personal" or FORMATS[name][0] == 4)
]


def prepared(
    name: str, transport: str, mode: Literal["personal", "shared"]
) -> tuple[Emulator, dict[str, Any]]:
    version, protobuf = FORMATS[name]
    return emulator(version=version, mode=mode), {"transport": transport, "protobuf": protobuf}


@pytest.mark.parametrize(("name", "transport", "mode"), CELLS)
def test_both_channels_are_received_and_resumed(
    name: str, transport: str, mode: Literal["personal", "shared"]
) -> None:
    async def main() -> None:
        emu, options = prepared(name, transport, mode)
        async with emu, running(Listener(emu, **options)) as listener:
            await listener.reached(State.LIVE)
            for n in range(4):
                emu.portal.send("x", {"n": n, "text": "Привет"}, users=[1] if n % 2 else None)
            await listener.received(4)
            await emu.push.disconnect_all()
            for n in range(4, 8):
                emu.portal.send("x", {"n": n}, users=[1] if n % 2 else None)
            await listener.received(8)
            await asyncio.sleep(30)
            assert sorted(listener.numbers) == list(range(8))
            assert listener.events[0].params["text"] == "Привет"
            used = emu.push.counters
            assert (used.websockets == 0) is (transport == "long_polling")

    virtual_time.run(main)


@pytest.mark.parametrize(("name", "transport", "mode"), CELLS)
def test_publishing_where_it_is_possible(
    name: str, transport: str, mode: Literal["personal", "shared"]
) -> None:
    async def main() -> None:
        emu, options = prepared(name, transport, mode)
        emu.portal.public_channels_in_config = True
        async with emu, running(Listener(emu, **options)) as listener:
            await listener.reached(State.LIVE)
            version, protobuf = FORMATS[name]
            routes: dict[Route, bool] = {
                "rest": True,
                "endpoint": version == 4,
                "socket": transport == "websocket" and (version == 5 or (version == 4 and protobuf)),
            }
            sent = 0
            for route, possible in routes.items():
                if possible:
                    receipt = await listener.publish("x", {"n": sent}, users=1, route=route)
                    assert receipt.route == route
                    sent += 1
                else:
                    with pytest.raises(RouteUnavailable, match='Use route="rest"'):
                        await listener.publish("x", {"n": -1}, users=1, route=route)
            await listener.received(sent)
            assert listener.numbers == list(range(sent))

    virtual_time.run(main)


@pytest.mark.parametrize(("name", "transport", "mode"), CELLS)
def test_channels_are_renewed(name: str, transport: str, mode: Literal["personal", "shared"]) -> None:
    async def main() -> None:
        version, protobuf = FORMATS[name]
        emu = emulator(version=version, mode=mode, channel_life_s=300)
        async with emu, running(Listener(emu, transport=transport, protobuf=protobuf)) as listener:
            await listener.reached(State.LIVE)
            for n in range(40):
                emu.portal.send("x", {"n": n}, users=[1] if n % 2 else None)
                await asyncio.sleep(30)
            await listener.received(40)
            await asyncio.sleep(60)
            assert sorted(listener.numbers) == list(range(40))
            assert listener.states.count(State.RENEWING) >= 3

    virtual_time.run(main)
