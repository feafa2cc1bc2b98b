"""The net over the suite catches a secret wherever it is let out, and nothing else."""

import os
import re
import subprocess
import sys
from pathlib import Path

LEAKY = """
import asyncio, logging, subprocess, sys, warnings
import pytest
from bitrix_pull import AccessToken, FileStore, MessageDropped, OAuth, PullClient, Webhook
from bitrix_pull.connection.resume_point import ResumePoint
from bitrix_pull.dispatch.notices import NoticeBoard
from bitrix_pull.emulator import Emulator
from bitrix_pull.errors import PullError
from bitrix_pull.portal.models import read_config
from bitrix_pull.portal.tokens import Tokens
from tests.forked import Process

TOKEN = "canary-of-this-test"

@pytest.fixture(autouse=True)
def secret():
    AccessToken("acme.bitrix24.com", TOKEN)

def test_safe():
    logging.getLogger("x").debug("%s", "token")
    print("token", AccessToken("acme.bitrix24.com", TOKEN))

def test_stdout():
    print(TOKEN)

def test_stderr():
    sys.stderr.write(TOKEN)

def test_capsys(capsys):
    print(TOKEN)
    capsys.readouterr()

def test_quoted():
    Webhook("https://acme.bitrix24.com/rest/1/abcd_efgh-1/")
    print("code=abcd_efgh-1")

@pytest.mark.filterwarnings("default")
def test_warning():
    warnings.warn(TOKEN)

def test_log_message():
    logging.getLogger("any.library").debug("sent %s", TOKEN)

def test_log_argument():
    logging.getLogger("any.library").debug("%.3s", TOKEN)

def test_log_extra():
    logging.getLogger("bitrix_pull.portal").info("sent", extra={"auth": TOKEN})

def test_log_traceback():
    try:
        raise KeyError(TOKEN)
    except KeyError:
        logging.getLogger("any.library").exception("failed")

def test_error():
    PullError(TOKEN)

def test_error_that_stays():
    global kept
    kept = PullError(TOKEN)

def test_error_attribute():
    PullError("refused").target = TOKEN

def test_error_cause():
    with pytest.raises(PullError):
        raise PullError("refused") from ValueError(TOKEN)

def test_error_context():
    with pytest.raises(PullError):
        try:
            raise ValueError(TOKEN)
        except ValueError:
            raise PullError("refused")

def test_safe_error():
    with pytest.raises(PullError):
        try:
            raise ValueError(TOKEN)
        except ValueError:
            raise PullError("refused") from None

def test_notice():
    NoticeBoard().post(MessageDropped("", TOKEN, 1))

def test_health(monkeypatch):
    pull = PullClient(AccessToken("acme.bitrix24.com", TOKEN))
    pull._runs.lifecycle.trouble = ValueError(TOKEN)
    pull.health()

async def test_resume_store(tmp_path):
    store = FileStore(tmp_path / "resume.json")
    await store.open()
    await store.save(f"acme {TOKEN}", ResumePoint("1" * 26, (), None))
    await store.close()

async def test_child_process(tmp_path):
    program = tmp_path / "examples.py"
    program.write_text(f"import sys; sys.stderr.write('{TOKEN}')")
    process = await asyncio.create_subprocess_exec(sys.executable, program, stderr=asyncio.subprocess.PIPE)
    await process.communicate()

async def test_forked_process(tmp_path):
    program = tmp_path / "examples.py"
    program.write_text(f"print('{TOKEN}')")
    process = await Process.start(str(program), pipes=("stdout",))
    await process.communicate()

def test_child_process_that_is_waited_for(tmp_path):
    program = tmp_path / "examples.py"
    program.write_text(f"print('{TOKEN}')")
    subprocess.run([sys.executable, program], capture_output=True)

def test_safe_child_process():
    subprocess.run([sys.executable, "-c", f"print('{TOKEN}')"], capture_output=True)

def test_shape_of_a_token():
    print("a1" * 36)

def test_shape_of_a_channel():
    print("0123456789abcdef" * 2 + "." + "01234567" * 5)

def test_shape_of_a_webhook():
    print("https://acme.bitrix24.com/rest/1/abcdefgh12345678/")

def test_emulated_token():
    print(Emulator().token)

def test_emulated_channel():
    print(Emulator().portal.config("application", 1)["channels"]["shared"]["id"][:32])

def test_channel_in_bytes():
    print(bytes.fromhex(Emulator().portal.config("application", 1)["channels"]["shared"]["id"][:32]))

def test_configured_channel():
    read_config({"channels": {"shared": {"id": "canary-channel.canary-signature"}}}).channel_ids
    print("canary-signature")

def test_jwt():
    print(read_config({"jwt": "canary-of-a-jwt"}).jwt)

def test_stored_token():
    print(Tokens(access_token=TOKEN, refresh_token="canary-to-refresh").refresh_token)

def test_client_secret():
    OAuth("a.b", client_id="1", client_secret="canary-of-oauth", tokens="t.json")
    print("canary-of-oauth")
"""

CONFTEST = """
from tests.canaries import CanaryNet

def pytest_configure(config):
    config.pluginmanager.register(CanaryNet())
"""


def test_each_leak_is_caught(tmp_path: Path) -> None:
    (tmp_path / "test_leaks.py").write_text(LEAKY)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    told = subprocess.run(
        (sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", str(tmp_path)),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    tests = set(re.findall(r"def (test_\w+)", LEAKY))
    passed = set(re.findall(r"^PASSED .*::(\w+)", told.stdout, re.MULTILINE))
    caught = set(re.findall(r"^ERROR .*::(\w+)", told.stdout, re.MULTILINE))
    assert passed == tests
    assert tests - caught == {"test_safe", "test_safe_error", "test_safe_child_process"}
