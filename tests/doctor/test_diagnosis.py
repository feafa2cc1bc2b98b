"""A sound set-up, trips to oneself, and a client that is not disturbed."""

import asyncio
from typing import Any

import pytest

from bitrix_pull import AccessToken, OAuth, PullClient, PullEvent, State, Webhook
from bitrix_pull.doctor import trips
from bitrix_pull.emulator import Emulator
from bitrix_pull.portal.rest import RestClient


def levels(findings: Any) -> dict[str, str]:
    return {finding.check: finding.level for finding in findings}


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("kind", ["application", "user"])
async def test_all_is_well(version: int, kind: str) -> None:
    async with Emulator(version=version) as emu:
        auth = AccessToken(emu.portal_url, emu.token) if kind == "application" else Webhook(emu.webhook_url)
        pull = PullClient(auth)
        diagnosis = await pull.diagnose(publish=True)
        await pull.close()
        assert diagnosis.cause is None, diagnosis.cause
        assert diagnosis.level == "ok"
        checks = levels(diagnosis.findings)
        assert list(checks)[:9] == [
            *("portal tcp", "portal", "credentials", "administrator", "mode", "configuration", "clock"),
            *("websocket tcp", "websocket"),
        ]
        assert ("publishing by rest" in checks) == (kind == "application")
        assert ("publishing by endpoint" in checks) == (version == 4)
        assert "publishing by socket" in checks
        (history,) = [finding for finding in diagnosis.findings if finding.check == "history"]
        assert "was replayed" in history.told
        assert history.took_s is not None
        assert emu.push.connections == []


async def test_nothing_is_published_unless_it_is_asked_for() -> None:
    async with Emulator() as emu, PullClient(AccessToken(emu.portal_url, emu.token)) as pull:
        came: list[PullEvent[Any]] = []
        pull.on()(came.append)
        assert (await pull.diagnose()).cause is None
        assert came == []
        connects = pull.health().connects
        assert (await pull.diagnose(publish=True)).cause is None
        # The client that runs is not disturbed, and hears what others would.
        await asyncio.sleep(0.5)
        assert {event.command for event in came} == {"bitrix_pull.diagnosis"}
        assert (pull.state, pull.health().connects) == (State.LIVE, connects)
        await pull.publish("still_here")


@pytest.mark.parametrize("kind", ["application", "user"])
@pytest.mark.parametrize("version", [4, 5])
async def test_a_lost_history_shows(version: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trips, "ARRIVAL_S", 1.0)
    async with Emulator(version=version) as emu:
        auth = AccessToken(emu.portal_url, emu.token) if kind == "application" else Webhook(emu.webhook_url)
        pull = PullClient(auth)
        emu.push.faults.keeps_nothing = True
        diagnosis = await pull.diagnose(publish=True)
        await pull.close()
    assert diagnosis.cause is not None
    assert (diagnosis.cause.check, diagnosis.cause.level) == ("history", "fail")
    assert "not replayed" in diagnosis.cause.told
    assert "Redis" in diagnosis.cause.advice


async def test_the_life_of_a_token_is_told_and_no_secret() -> None:
    async with Emulator() as emu:
        auth = OAuth(
            emu.portal_url,
            client_id=emu.portal.client_id,
            client_secret=emu.portal.client_secret,
            tokens={
                "access_token": emu.portal.issue_token(1, 1800),
                "refresh_token": emu.refresh_token,
                "expires": int(emu.portal.now() + 1800),
            },
            oauth_url=emu.oauth_url,
        )
        pull = PullClient(auth)
        diagnosis = await pull.diagnose()
        await pull.close()
    (told,) = [finding.told for finding in diagnosis.findings if finding.check == "credentials"]
    assert 'OAuth with the scope "pull"; its access token is good for 0:29:5' in told or "0:30:00" in told


async def test_a_client_of_ones_own_is_examined_as_far_as_it_goes() -> None:
    async with Emulator() as emu:
        rest = RestClient(AccessToken(emu.portal_url, emu.token))

        class Own:
            portal = emu.portal_url

            async def call(self, method: str, params: Any) -> Any:
                return await rest.call(method, params)

        pull = PullClient(Own())
        diagnosis = await pull.diagnose()
        await pull.close()
        await rest.close()
    assert diagnosis.cause is None, diagnosis.cause


async def test_a_user_of_no_sensible_id_is_unknown() -> None:
    class Own:
        async def call(self, method: str, params: Any) -> Any:
            return {"ID": "9" * 5_000, "ADMIN": True} if method == "profile" else []

    diagnosis = await PullClient(Own()).diagnose()
    assert "user (unknown) is an administrator" in [finding.told for finding in diagnosis.findings]


async def test_it_can_be_written_as_json() -> None:
    async with Emulator() as emu:
        emu.portal.push_configured = False
        pull = PullClient(AccessToken(emu.portal_url, emu.token))
        told = (await pull.diagnose()).as_json()
        await pull.close()
    assert told["level"] == "fail"
    assert told["cause"]["check"] == "configuration"
    assert [finding["check"] for finding in told["findings"]][-2:] == ["configuration", "clock"]
