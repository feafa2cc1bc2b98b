"""A newcomer finds the cause of each broken set-up by the doctor alone: its first word names it."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from bitrix_pull import AccessToken, OAuth, Webhook
from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.certificates import make_certificates
from bitrix_pull.emulator.push_faults import ClosedAtOnce
from bitrix_pull.exits import Exit
from bitrix_pull.portal.auth import Credentials
from tests.doctor.examining import assert_cause, diagnosis_of, token_of
from tests.internet.stand import PORTAL, PORTAL_IP, PROXY, PROXY_IP, PUSH, Internet, trusting

# -- the twelve that everybody meets ---------------------------------------------------


@pytest.mark.parametrize("kind", ["application", "webhook"])
async def test_1_wrong_scope(kind: str) -> None:
    async with Emulator() as emu:
        emu.portal.application_scope = emu.portal.webhook_scope = {"crm", "task"}
        auth = token_of(emu) if kind == "application" else Webhook(emu.webhook_url)
        needed = "pull" if kind == "application" else "pull_channel"
        diagnosis = await diagnosis_of(auth)
    assert_cause(diagnosis, "credentials", "fail", f'scope "{needed}" is missing', code=Exit.PERSON_MUST_ACT)


async def test_2_webhook_in_application_mode() -> None:
    async with Emulator() as emu:
        diagnosis = await diagnosis_of(Webhook(emu.webhook_url), mode="application")
    assert_cause(diagnosis, "mode", "fail", "webhook", 'mode="user"', code=Exit.PERSON_MUST_ACT)


@pytest.mark.parametrize("kind", ["access token", "refresh token"])
async def test_3_expired_token(kind: str) -> None:
    async with Emulator() as emu:
        emu.portal.expire_token(emu.token)
        auth: Credentials = token_of(emu)
        if kind == "refresh token":
            emu.portal.expire_token(emu.refresh_token)
            auth = OAuth(
                emu.portal_url,
                client_id=emu.portal.client_id,
                client_secret=emu.portal.client_secret,
                tokens={"access_token": emu.token, "refresh_token": emu.refresh_token},
                oauth_url=emu.oauth_url,
            )
        diagnosis = await diagnosis_of(auth)
    words = ("expired_token", "fresh access token") if kind == "access token" else ("invalid_grant", "again")
    assert_cause(diagnosis, "credentials", "fail", *words, code=Exit.PERSON_MUST_ACT)


async def test_4_no_administrator() -> None:
    async with Emulator() as emu:
        diagnosis = await diagnosis_of(AccessToken(emu.portal_url, emu.portal.issue_token(7)))
    assert_cause(diagnosis, "administrator", "warn", "user 7 is no administrator")


@pytest.mark.parametrize("how", [403, 502, 200, "reset", ClosedAtOnce(1008)])
async def test_5_blocked_websocket(how: Any) -> None:
    async with Emulator() as emu:
        emu.push.faults.websocket_refusal = how
        diagnosis = await diagnosis_of(token_of(emu))
        both_ways = diagnosis.findings
        emu.push.faults.poll_refusal = 503
        without = await diagnosis_of(token_of(emu))
    assert_cause(diagnosis, "websocket", "warn", "long polling takes over", "Let WebSockets to 127.0.0.1")
    assert [finding.level for finding in both_ways if finding.check == "polling"] == ["ok"]
    assert_cause(without, "websocket", "fail")


@pytest.mark.parametrize(("hours", "words"), [(3, "3:00:00 behind"), (-3, "3:00:00 ahead of")])
async def test_6_wrong_clock(hours: int, words: str) -> None:
    async with Emulator(clock=lambda: time.time() + hours * 3600) as emu:
        diagnosis = await diagnosis_of(token_of(emu))
    assert_cause(diagnosis, "clock", "warn", words, "NTP")


async def test_7_wrong_certificate_authority() -> None:
    certificates = make_certificates("127.0.0.1")
    async with Emulator(tls=certificates.context) as emu:
        diagnosis = await diagnosis_of(token_of(emu))
        right = ssl.create_default_context(cadata=certificates.authority)
        healthy = await diagnosis_of(token_of(emu), ssl=right)
    assert_cause(diagnosis, "portal tls", "fail", "certificate", "not accepted", "ssl=", code=Exit.FAILED)
    assert healthy.cause is None, healthy.cause


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    for name in ("http", "https", "all", "no", "socks"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)
    return Internet(monkeypatch)


@contextlib.asynccontextmanager
async def refusing_proxy(internet: Internet) -> AsyncIterator[str]:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    internet.names[PROXY] = [PROXY_IP]
    internet.routes[PROXY_IP, 3128] = server.sockets[0].getsockname()[1]
    try:
        yield f"http://{PROXY}:3128"
    finally:
        server.close()
        await server.wait_closed()


async def test_8_proxy_refuses(internet: Internet) -> None:
    async with refusing_proxy(internet) as proxy:
        diagnosis = await diagnosis_of(AccessToken(PORTAL, "an-access-token"), proxy=proxy)
    assert_cause(
        diagnosis,
        "portal proxy",
        "fail",
        f"the proxy {PROXY}:3128 refuses the way to {PORTAL}:443 (status 403)",
        "NO_PROXY",
    )


async def test_9_push_server_switched_off() -> None:
    async with Emulator() as emu:
        emu.portal.push_configured = False
        diagnosis = await diagnosis_of(token_of(emu))
    assert_cause(diagnosis, "configuration", "fail", "not configured", "enable", code=Exit.PERSON_MUST_ACT)


@pytest.mark.parametrize("kind", ["application", "webhook"])
@pytest.mark.parametrize("version", [3, 4, 5])
async def test_10_wrong_security_key(version: int, kind: str) -> None:
    async with Emulator(version=version) as emu:
        auth = token_of(emu) if kind == "application" else Webhook(emu.webhook_url)
        healthy = await diagnosis_of(auth)
        emu.push.change_security_key("another one than the portal's")
        diagnosis = await diagnosis_of(auth)
    assert [finding.level for finding in healthy.findings if finding.check == "websocket"] == ["ok"]
    assert_cause(
        diagnosis, "websocket", "fail", "signed with another key than the portal's", "same security key"
    )


@pytest.mark.parametrize("push", ["10.1.2.3", PUSH])
async def test_11_private_network_name(internet: Internet, push: str) -> None:
    config = {
        "server": {"version": 4, "websocket_secure": f"wss://{push}/subws/"},
        "channels": {
            "private": {"id": f"{'12' * 16}:{'ab' * 16}.{'cd' * 20}"},
            "shared": {"id": f"{'34' * 16}.{'cd' * 20}"},
        },
    }
    answers: dict[str, Any] = {
        "scope.json": ["pull"],
        "profile.json": {"ID": "1", "ADMIN": True},
        "pull.application.config.get.json": config,
    }

    async def portal(request: web.Request) -> web.StreamResponse:
        result = answers.get(request.path.rpartition("/")[2])
        if result is None:
            return web.json_response({"error": "NO_AUTH_FOUND"}, status=401)
        return web.json_response({"result": result})

    internet.names[PUSH] = ["10.1.2.3"]
    async with internet.host(PORTAL, PORTAL_IP, portal):
        diagnosis = await diagnosis_of(AccessToken(PORTAL, "an-access-token"), ssl=trusting())
    check = "websocket name" if push == PUSH else "websocket"
    assert_cause(diagnosis, check, "fail", "a private address", "allow_private_hosts")
    assert all(ip == PORTAL_IP or ip.startswith("127.") for ip, _ in internet.dialled)


@pytest.mark.parametrize("publish", [False, True])
async def test_12_server_version_3_without_publish(publish: bool) -> None:
    async with Emulator(version=3) as emu:
        diagnosis = await diagnosis_of(token_of(emu), publish=publish)
    assert_cause(diagnosis, "publishing", "warn", "version 3", "cannot publish to it past REST")


# -- others ----------------------------------------------------------------------------


async def test_nobody_answers() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    diagnosis = await diagnosis_of(AccessToken(f"http://127.0.0.1:{port}", "an-access-token"))
    assert_cause(diagnosis, "portal tcp", "fail", "Connection refused", code=Exit.FAILED)
    assert len(diagnosis.findings) == 1


async def test_a_name_that_leads_nowhere(internet: Internet) -> None:
    diagnosis = await diagnosis_of(AccessToken("nobody.example.com", "an-access-token"))
    assert_cause(diagnosis, "portal name", "fail", "nobody.example.com", "cannot be resolved")


async def test_what_answers_is_no_portal(internet: Internet) -> None:
    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>Welcome</html>", content_type="text/html")

    async with internet.host(PORTAL, PORTAL_IP, page) as requests:
        diagnosis = await diagnosis_of(AccessToken(PORTAL, "an-access-token"), ssl=trusting())
    assert_cause(diagnosis, "portal", "fail", code=Exit.PERSON_MUST_ACT)
    assert not any("an-access-token" in str(request.headers) for request in requests)


async def test_a_deleted_webhook() -> None:
    async with Emulator() as emu:
        diagnosis = await diagnosis_of(Webhook(emu.webhook_url.replace("/rest/1/", "/rest/2/")))
    assert_cause(diagnosis, "credentials", "fail", code=Exit.PERSON_MUST_ACT)


async def test_oauth_in_user_mode() -> None:
    async with Emulator() as emu:
        diagnosis = await diagnosis_of(token_of(emu), mode="user")
    assert_cause(diagnosis, "mode", "fail", "inbound webhook", code=Exit.PERSON_MUST_ACT)


@pytest.mark.parametrize("left_out", ["private", "shared"])
async def test_a_channel_is_left_out(left_out: Any) -> None:
    async with Emulator() as emu:
        emu.portal.faults.locked_channels = frozenset({left_out})
        diagnosis = await diagnosis_of(token_of(emu))
    assert_cause(diagnosis, "configuration", "warn", f"left out the {left_out} channel")


async def test_maintenance() -> None:
    async with Emulator() as emu:
        emu.portal.faults.maintenance = "PORTAL_DELETED"
        diagnosis = await diagnosis_of(token_of(emu))
    assert_cause(diagnosis, "portal", "fail")


async def test_polls_are_blocked() -> None:
    async with Emulator() as emu:
        emu.push.faults.poll_refusal = 403
        diagnosis = await diagnosis_of(token_of(emu))
    assert_cause(diagnosis, "polling", "warn")


async def test_nobody_takes_the_portals_events() -> None:
    async with Emulator() as emu:
        emu.portal.offline.bindings.append(("ONCRMDEALUPDATE", ""))
        emu.portal.change("ONCRMDEALUPDATE", {"FIELDS": {"ID": "7"}})
        healthy = await diagnosis_of(token_of(emu))
        emu.portal.clock_offset_s = 3_600
        diagnosis = await diagnosis_of(token_of(emu))
    assert healthy.cause is None
    (finding,) = [finding for finding in diagnosis.findings if finding.check == "portal events"]
    assert finding.level == "warn"
    assert "1 bound, 1 waiting, 0 reserved, 0 failed; the oldest has waited for 1:00" in finding.told
