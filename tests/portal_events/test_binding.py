"""What is bound at the start, and what cannot be."""

import asyncio
from typing import Any

import pytest

from bitrix_pull import AccessToken, PortalEvent, PullClient, PullOptions, Router, Webhook
from bitrix_pull.emulator import Emulator
from bitrix_pull.errors import AccessDenied, EventNotFound, InvalidArgument, WrongAuthType, WrongLicense
from tests.portal_events.stand import ADD, UPDATE


async def ignore(event: PortalEvent[Any]) -> None:
    pass


def client(emu: Emulator, *names: str, **options: Any) -> PullClient:
    pull = PullClient(AccessToken(emu.portal_url, emu.token), options=PullOptions(**options))
    pull.on_portal_event(*names)(ignore)
    return pull


async def test_what_is_missing_is_bound_at_the_start_and_stays() -> None:
    async with Emulator() as emu:
        emu.portal.offline.bindings.append((UPDATE, ""))
        pull = client(emu, "onCrmDealUpdate", ADD)
        router = Router()
        router.on_portal_event("ONTASKADD")(ignore)
        pull.include(router)
        async with pull:
            bound = [(UPDATE, ""), (ADD, ""), ("ONTASKADD", "")]
            assert emu.portal.offline.bindings == bound
        async with pull:
            pass
        assert emu.portal.offline.bindings == bound
        assert emu.portal.calls["event.bind"] + emu.portal.calls["batch"] == 1


async def test_what_somebody_else_binds_meanwhile_is_bound() -> None:
    async with Emulator() as emu:
        async with asyncio.TaskGroup() as starting:
            pulls = [client(emu, UPDATE) for _ in range(5)]
            for pull in pulls:
                starting.create_task(pull.__aenter__())
        assert emu.portal.offline.bindings == [(UPDATE, "")]
        for pull in pulls:
            await pull.close()


async def test_unbinding() -> None:
    async with Emulator() as emu:
        pull = client(emu, UPDATE, ADD, connector="sync")
        async with pull:
            pass
        emu.portal.offline.bindings.append((UPDATE, ""))
        assert await pull.unbind_portal_events(ADD.lower(), "ONTASKADD") == 1
        assert await pull.unbind_portal_events() == 1
        assert emu.portal.offline.bindings == [(UPDATE, "")]
        await pull.close()


async def test_unknown_events_are_all_named() -> None:
    async with Emulator() as emu:
        with pytest.raises(EventNotFound, match=r"ONFIRST, ONSECOND.*bitrix-pull events"):
            async with client(emu, "ONFIRST", UPDATE, "ONSECOND"):
                pass
        with pytest.raises(EventNotFound, match="ONFIRST"):
            await client(emu, "ONFIRST").run()


async def test_no_administrator() -> None:
    async with Emulator() as emu:
        pull = PullClient(AccessToken(emu.portal_url, emu.portal.issue_token(5)))
        pull.on_portal_event(UPDATE)(ignore)
        with pytest.raises(AccessDenied, match=r"event\.bind.*administrator"):
            async with pull:
                pass


async def test_a_webhook() -> None:
    async with Emulator() as emu:
        pull = PullClient(Webhook(emu.webhook_url))
        pull.on_portal_event(UPDATE)(ignore)
        with pytest.raises(WrongAuthType, match=r"applications only.*OAuth or AccessToken"):
            async with pull:
                pass
        assert not emu.portal.calls


async def test_a_plan_without_connectors() -> None:
    async with Emulator() as emu:
        emu.portal.features["rest_auth_connector"] = "N"
        with pytest.raises(WrongLicense, match=r"connector='sync'.*Leave out options\.connector"):
            async with client(emu, UPDATE, connector="sync"):
                pass


@pytest.mark.parametrize("names", [(), ("",), ("a b",), (None,), (ignore,), (UPDATE, 7)])
def test_what_names_no_event(names: Any) -> None:
    with pytest.raises(InvalidArgument, match="event"):
        Router().on_portal_event(*names)
