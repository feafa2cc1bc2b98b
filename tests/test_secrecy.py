"""No secret shows in what asyncio logs in its debug mode, in a repr, or through a whole life of a client."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import bitrix_pull
from bitrix_pull import (
    AccessToken,
    FileTokenStore,
    Hub,
    MemoryTokenStore,
    Message,
    OAuth,
    Portal,
    PublicChannel,
    PullClient,
    PullEvent,
    PullOptions,
    Sender,
    SenderType,
    SqlitePortals,
    SqliteTokenStore,
    State,
    Tokens,
    Webhook,
    errors,
)
from bitrix_pull.emulator import Emulator
from bitrix_pull.portal.answers import RestAnswer
from bitrix_pull.portal.http import HttpAnswer
from bitrix_pull.portal.models import read_config
from bitrix_pull.wire.messages import ChannelStatus, Control, Reply
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running

CANARY = "canary0canary0canary0canary0abcd"
PUBLIC = PublicChannel(bytes.fromhex("c0ffee" * 5 + "00"), bytes.fromhex("decade" * 6 + "0000"))
TOKENS = Tokens(access_token=CANARY, refresh_token=CANARY, fields={"member_id": CANARY})
CONFIG = {
    "server": {"version": 4, "websocket_secure": "wss://push.example/subws/"},
    "channels": {
        "private": {"id": f"{CANARY}:{CANARY}.{CANARY}", "public_id": CANARY},
        "shared": {"id": CANARY},
    },
    "publicChannels": {"1": {"user_id": 1, "public_id": CANARY, "signature": CANARY}},
    "clientId": CANARY,
    "jwt": CANARY,
}

OBJECTS: dict[str, Callable[[], object]] = {
    "AccessToken": lambda: AccessToken("acme.bitrix24.com", CANARY),
    "Webhook": lambda: Webhook(f"https://acme.bitrix24.com/rest/1/{CANARY}/"),
    "OAuth": lambda: OAuth("acme.bitrix24.com", client_id="app.1", client_secret=CANARY, tokens=TOKENS),
    "PullClient": lambda: PullClient(AccessToken("acme.bitrix24.com", CANARY)),
    "Health": lambda: PullClient(AccessToken("acme.bitrix24.com", CANARY)).health(),
    "PullOptions": lambda: PullOptions(proxy=f"http://me:{CANARY}@proxy.example:3128"),
    "Tokens": lambda: TOKENS,
    "MemoryTokenStore": lambda: MemoryTokenStore(TOKENS),
    "Message": lambda: Message("x", {"a": CANARY}, channels=[PUBLIC]),
    "PublicChannel": lambda: PUBLIC,
    "Sender": lambda: Sender(SenderType.CLIENT, CANARY),
    "PullEvent": lambda: PullEvent(
        "1" * 26, "im", "x", {}, {"channel": CANARY}, Sender(SenderType.CLIENT, CANARY), "client"
    ),
    "the configuration": lambda: read_config(CONFIG),
    "the answer of a server": lambda: HttpAnswer(200, {"Set-Cookie": CANARY}, CANARY.encode()),
    "the answer of the portal": lambda: RestAnswer(CONFIG),
    "a control message": lambda: Control(
        "1" * 26, "channel_expire", {"channel": {"id": CANARY}}, {"a": CANARY}
    ),
    "the status of a channel": lambda: ChannelStatus(CANARY, online=True),
    "the answer to a call": lambda: Reply(1, {"list": [CANARY]}),
    "Portal": lambda: Portal("acme", AccessToken("acme.bitrix24.com", CANARY)),
    "Hub": lambda: Hub([Portal("acme", AccessToken("acme.bitrix24.com", CANARY))]),
    "SqlitePortals": lambda: SqlitePortals(f"portals-of-nobody-{len(CANARY)}.db"),
    "an emulator": lambda: Emulator(security_key=CANARY),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_no_repr_holds_a_secret(name: str) -> None:
    made = OBJECTS[name]()

    for shown in (repr(made), str(made), f"{made}", repr([made])):
        assert CANARY not in shown
        assert "c0ffee" not in shown
        assert "decade" not in shown


def test_the_configuration_hides_each_part() -> None:
    config = read_config(CONFIG)

    for part in (config.channels, config.channels.private, config.public_channels, config.server):
        assert CANARY not in f"{part} {part!r}"


def test_stores_of_tokens_hide_what_is_in_them(tmp_path: Path) -> None:
    for store in (FileTokenStore(tmp_path / "t.json"), SqliteTokenStore(tmp_path / "t.db", "acme")):
        asyncio.run(store.save(TOKENS))
        assert CANARY not in repr(store)


def test_every_public_class_that_takes_a_secret_was_looked_at() -> None:
    take_none = {
        *("Batch", "CallNext", "Context", "Continuity", "Event", "EventsDropped", "Fate", "FileStore"),
        *("Entry", "FileTokenStore", "Gap", "GrowingStore", "Ledger", "Once", "SqlLedger", "StoreHealth"),
        *("HandlerFailed", "MemoryStore", "MessageDropped", "Notice", "Presence", "PresenceChanged"),
        *("PresenceWatch", "RateLimit", "Receipt", "ResumePoint", "ResumeStore", "Router", "SenderType"),
        *("SqliteStore", "SqliteTokenStore", "State", "StateChanged", "Subscription", "TokenStore"),
        *("OldestEvent", "Diagnosis", "Finding", "InboxFull", "PortalEvent", "PortalEvents", "PortalFailed"),
        *("PortalTrouble", "PortalUninstalled", "errors", "run"),
    }
    assert set(bitrix_pull.__all__) - take_none - set(errors.__all__) <= OBJECTS.keys()


# -- a whole life -------------------------------------------------------------------


def secrets_of(emu: Emulator) -> set[str]:
    """What the portal has told by now: ids and signatures of channels, tokens, the application's secret."""
    config = emu.portal.config("application", 1)
    channels = [channel["id"] for channel in dict(config["channels"]).values()]
    public = [channel["signature"] for channel in dict(config["publicChannels"] or {}).values()]
    parts = [part for channel in channels for part in channel.replace(":", ".").split(".")]
    jwt = [config["jwt"]] if "jwt" in config else []
    return {*parts, *public, *jwt, emu.token, emu.refresh_token, emu.portal.client_secret}


@pytest.mark.parametrize(
    ("version", "transport"), [(3, "websocket"), (4, "websocket"), (5, "websocket"), (4, "long_polling")]
)
def test_asyncio_in_debug_mode_shows_no_secret(
    version: int, transport: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each step of each task is logged with a repr of what runs, through refresh, cuts and renewal."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        loop.slow_callback_duration = 0
        async with emulator(version=version) as emu:
            tokens = {"access_token": emu.token, "refresh_token": emu.refresh_token}
            emu.portal.expire_token(emu.token)
            auth = OAuth(
                emu.portal_url,
                client_id=emu.portal.client_id,
                client_secret=emu.portal.client_secret,
                tokens=tokens,
                oauth_url=emu.oauth_url,
            )
            store = tmp_path / "resume.json"
            listener = Listener(emu, auth=auth, resume=str(store), transport=transport)
            async with running(listener):
                await listener.reached(State.LIVE)
                secrets.update(secrets_of(emu))
                await listener.publish("x", {"n": 0})
                emu.portal.send("x", {"n": 1}, users=[1])
                await listener.received(2)
                await emu.push.disconnect_all(4010, "4010: Wrong Channel Id.")
                emu.portal.expire()
                emu.portal.send("x", {"n": 2}, users=[1])
                await listener.received(3)
                secrets.update(secrets_of(emu))
                shown.append(f"{listener.heard} {listener.health()} {listener!r} {auth!r} {listener.events}")
            shown.append(store.read_text())

    shown: list[str] = []
    secrets: set[str] = set()
    caplog.set_level(logging.DEBUG)
    virtual_time.run(main)
    names = {record.name.partition(".")[0] for record in caplog.records}
    assert {"asyncio", "bitrix_pull"} <= names
    shown += [f"{record.getMessage()} {record.args} {vars(record)}" for record in caplog.records]
    assert len(secrets) >= 5
    assert not [(secret, text) for text in shown for secret in secrets if secret in text]


async def test_the_emulator_writes_no_log_of_requests(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Emulator() as emu, PullClient(Webhook(emu.webhook_url)):
        pass

    assert "aiohttp.access" not in {record.name for record in caplog.records}


class Careless:
    """A REST client of the user's own whose errors hold what it sent."""

    async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
        raise RuntimeError(f"POST https://acme.bitrix24.com/rest/1/{CANARY}/{method}.json failed\x1b[31m")


async def test_the_error_of_a_users_own_rest_client_is_shown_without_the_webhook(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    pull = PullClient(Careless(), options=PullOptions(start_timeout_s=0.1))
    with pytest.raises(bitrix_pull.PullError) as caught:
        async with pull:
            pass

    assert CANARY not in f"{caught.value} {pull.health()} {caplog.text}"
