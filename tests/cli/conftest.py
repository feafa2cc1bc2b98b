from collections.abc import AsyncGenerator, Callable, Mapping

import pytest

from bitrix_pull.cli.app import run_command_line
from bitrix_pull.emulator import Emulator
from tests.cli.command import Outcome


@pytest.fixture
async def emulator() -> AsyncGenerator[Emulator]:
    async with Emulator() as emulator:
        yield emulator


@pytest.fixture
def account(emulator: Emulator) -> dict[str, str]:
    """Environment with the credentials of the emulator's application."""
    return {"BITRIX_PULL_PORTAL": emulator.portal_url, "BITRIX_PULL_TOKEN": emulator.token}


RunHere = Callable[..., Outcome]


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunHere:
    """Run the command line in this process, for what gets no further than its arguments."""

    def run_here(*arguments: str, env: Mapping[str, str] | None = None) -> Outcome:
        monkeypatch.setattr("sys.argv", ["bitrix-pull", *arguments])
        for name in ("WEBHOOK", "PORTAL", "TOKEN", "TOKENS", "CLIENT_ID", "CLIENT_SECRET_FILE"):
            monkeypatch.delenv(f"BITRIX_PULL_{name}", raising=False)
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        code = run_command_line()
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return run_here
