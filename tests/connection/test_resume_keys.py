"""A resume point is kept under what stays the same, and found under what it was called before."""

from collections.abc import Mapping
from typing import Any

import pytest

from bitrix_pull import AccessToken, OAuth, Webhook
from bitrix_pull.connection.resume_keys import resume_keys
from bitrix_pull.emulator import Emulator
from bitrix_pull.errors import RateLimited, Unreachable
from bitrix_pull.portal.auth import Caller, Credentials, Mode
from bitrix_pull.portal.config import ConfigFetcher
from bitrix_pull.portal.rest import RestClient


class Client:
    """A REST client of the user's own; what it does not know, the emulator is asked for."""

    portal = "https://acme.bitrix24.com"

    def __init__(self, emulator: Emulator, answers: Mapping[str, Any]) -> None:
        self._rest = RestClient(AccessToken(emulator.portal_url, emulator.token))
        self._answers = answers

    async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
        answer = self._answers.get(method)
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            return answer
        try:
            return await self._rest.call(method, params)
        finally:
            await self._rest.close()


async def keys_of(auth: Credentials | Caller, mode: Mode) -> tuple[str, ...]:
    rest = RestClient(auth)
    try:
        config = await ConfigFetcher(rest, mode).fetch()
        return await resume_keys(rest, mode, config)
    finally:
        await rest.close()


def oauth(emulator: Emulator, **fields: Any) -> OAuth:
    tokens = {
        "access_token": emulator.portal.issue_token(1),
        "refresh_token": emulator.portal.issue_refresh_token(1),
        **fields,
    }
    portal = emulator.portal
    return OAuth(
        emulator.portal_url, client_id=portal.client_id, client_secret=portal.client_secret, tokens=tokens
    )


async def test_tokens_tell_portal_and_user_without_a_call() -> None:
    async with Emulator() as emu:
        member, application, host = emu.portal.member_id, emu.portal.client_id, emu.portal.address
        keys = await keys_of(oauth(emu, member_id=member, user_id=7), "application")
        assert keys[:2] == (
            f"{member} {application} application user 7",
            f"{host} {application} application user 7",
        )
        assert f"{host} {application} application user 1" in keys, "as the first release named it"
        assert not emu.portal.calls["profile"]


@pytest.mark.parametrize("user_id", [None, "x", 0, -1, 1.5, True, "\u0661"])
async def test_what_is_no_user_in_the_tokens_is_asked_for(user_id: Any) -> None:
    async with Emulator() as emu:
        keys = await keys_of(oauth(emu, user_id=user_id, member_id="a b"), "application")
        assert keys[0] == f"{emu.portal.address} {emu.portal.client_id} application user 1"
        assert emu.portal.calls["profile"] == 1


async def test_a_webhook_names_its_user() -> None:
    async with Emulator() as emu:
        keys = await keys_of(Webhook(f"{emu.portal_url}/rest/5/{emu.portal.webhook_code(5)}/"), "user")
        assert keys[0] == f"{emu.portal.address} user user 5"
        assert not emu.portal.calls["profile"]


async def test_the_portal_is_asked_who_we_are() -> None:
    async with Emulator() as emu:
        emu.portal.public_channels_in_config = False
        keys = await keys_of(AccessToken(emu.portal_url, emu.portal.issue_token(5)), "application")
        host = emu.portal.address
        assert keys == (f"{host} application user 5", f"{host} application user -")


@pytest.mark.parametrize(
    "answer", [ValueError("no such method"), [], {"ID": None}, {"ID": "0"}, {"ID": "9" * 5_000}]
)
async def test_where_one_method_does_not_tell_the_next_one_does(answer: Any) -> None:
    async with Emulator() as emu:
        answers = {"profile": answer, "user.current": {"ID": "9"}}
        keys = await keys_of(Client(emu, answers), "application")
        assert keys == (
            "acme.bitrix24.com application user 9",
            "Client application user 1",
            "Client application user -",
        )


async def test_where_nobody_tells_the_configuration_does() -> None:
    async with Emulator() as emu:
        answers = {"profile": ValueError(), "user.current": ValueError()}
        keys = await keys_of(Client(emu, answers), "application")
        assert keys[0] == "acme.bitrix24.com application user 1"


@pytest.mark.parametrize("failure", [RateLimited("too often"), Unreachable("no answer")])
async def test_what_passes_is_no_answer(failure: Exception) -> None:
    async with Emulator() as emu:
        with pytest.raises(type(failure)):
            await keys_of(Client(emu, {"profile": failure}), "application")
