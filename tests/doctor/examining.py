"""What tests of the doctor share."""

from typing import Any

from bitrix_pull import AccessToken, Diagnosis, Finding, PullClient, PullOptions
from bitrix_pull.emulator import Emulator
from bitrix_pull.exits import Exit, exit_code
from bitrix_pull.portal.auth import Credentials, Mode


async def diagnosis_of(
    auth: Credentials, *, mode: Mode | None = None, publish: bool = False, **options: Any
) -> Diagnosis:
    settings = {"connect_timeout_s": 3.0, "rest_timeout_s": 5.0, "rest_limit": None, **options}
    pull = PullClient(auth, mode=mode, options=PullOptions(**settings))
    try:
        return await pull.diagnose(publish=publish)
    finally:
        await pull.close()


def token_of(emu: Emulator) -> AccessToken:
    return AccessToken(emu.portal_url, emu.token)


def assert_cause(diagnosis: Diagnosis, check: str, level: str, *words: str, code: Exit | None = None) -> None:
    cause = diagnosis.cause
    assert cause is not None
    assert (cause.check, cause.level) == (check, level), list(map(str, diagnosis.findings))
    assert cause.advice
    for word in words:
        assert word in str(cause), str(cause)
    if code is not None:
        assert cause.error is not None
        assert exit_code(cause.error) is code


def finding_of(diagnosis: Diagnosis, check: str) -> Finding:
    (finding,) = [finding for finding in diagnosis.findings if finding.check == check]
    return finding
