"""The contract suite: our own server keeps it, and one that does not is found out."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.channels import Signer
from bitrix_pull.emulator.contract import CHECKS, Server, run_checks
from bitrix_pull.emulator.faults import ConnectionFaults
from tests.emulator.conftest import Launch

KEY = "test key"
QUICK = [check for check in CHECKS if not check.slow]


@asynccontextmanager
async def server_of(emulator: Emulator, key: str = KEY, gather_s: float = 0.4) -> AsyncIterator[Server]:
    emulator.push.gather_s = gather_s
    async with aiohttp.ClientSession() as session:
        yield Server(
            emulator.sub_url,
            emulator.subws_url,
            emulator.pub_url,
            emulator.rest_url,
            emulator.stat_url,
            Signer(key),
            bool(key),
            session,
            settle_s=0.02,
        )


async def differing(server: Server, *, slow: bool = False) -> dict[str, str]:
    """Return what differs, by the names of the checks."""
    findings = [finding async for finding in run_checks(server, CHECKS, slow=slow)]
    return {finding.name: finding.difference for finding in findings if finding.difference}


async def test_the_emulator_keeps_it(emulator: Emulator) -> None:
    emulator.push.poll_timeout_s = 2
    async with server_of(emulator) as server:
        assert await differing(server, slow=True) == {}


async def test_without_a_key_no_signature_is_wrong(launch: Launch) -> None:
    emulator = await launch(security_key="")
    async with server_of(emulator, "") as server:
        findings = {finding.name: finding.difference async for finding in run_checks(server, QUICK)}
    assert {name for name, difference in findings.items() if difference is None} == {
        check.name for check in QUICK if "has_key" in check.needs
    }
    assert not any(findings.values())


async def test_a_server_with_another_key_is_found_out(emulator: Emulator) -> None:
    async with server_of(emulator, "another key") as server:
        found = await differing(server)
    assert any("400" in difference for difference in found.values())
    assert len(found) > len(QUICK) / 2


async def test_a_server_that_does_not_gather_differs_in_that_alone(emulator: Emulator) -> None:
    async with server_of(emulator, gather_s=0) as server:
        (name,) = await differing(server)
    assert "gathered" in name


async def test_a_server_of_another_version_is_found_out(launch: Launch) -> None:
    emulator = await launch(version=3)
    chosen = [check for check in QUICK if check.name.startswith(("text is delimited", "a message on"))]
    async with server_of(emulator) as server:
        found = [bool(finding.difference) async for finding in run_checks(server, chosen)]
    assert found == [True, False]


async def test_what_a_server_says_wrongly_is_shown(emulator: Emulator) -> None:
    emulator.push.faults.script = lambda number: ConnectionFaults(close_after_frames=1, close_code=1012)
    emulator.push.limits.messages = 1000
    async with server_of(emulator) as server:
        found = await differing(server)
    assert any("4016" in difference for difference in found.values())
    assert any("1012" in difference for difference in found.values())


# -- the command ----------------------------------------------------------------------------------


async def contract(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bitrix_pull.emulator.contract", "--settle", "0.02", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode is not None
    return process.returncode, told.decode()


async def test_the_command_prints_what_differs_and_says_so_by_its_exit_code(emulator: Emulator) -> None:
    addresses = ("--sub", emulator.sub_url, "--subws", emulator.subws_url, "--pub", emulator.pub_url)
    emulator.push.gather_s = 0.4
    code, told = await contract(*addresses, "--key", KEY)
    assert code == 0
    *lines, last = told.splitlines()
    assert len(lines) == len(CHECKS)
    left_out = [line for line in lines if line.startswith("left out")]
    assert last == f"{len(CHECKS) - len(left_out)} same, 0 differs, {len(left_out)} left out"
    emulator.push.gather_s = 0
    code, told = await contract(*addresses, "--key", KEY)
    assert code == 1
    assert "it comes later: expected True, found False" in told


async def test_only_this_machine_is_asked_without_a_word() -> None:
    code, told = await contract("--sub", "http://push.example/sub/", "--pub", "http://localhost/pub/")
    assert code == 2
    assert "push.example is not this machine" in told
