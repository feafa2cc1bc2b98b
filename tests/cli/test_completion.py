import shutil
import subprocess

import pytest

from tests.cli.conftest import RunHere


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["li"], {"listen"}),
        (["re"], {"record", "replay"}),
        (["listen", "--trans"], {"--transport"}),
        (["listen", "--transport", ""], {"auto", "websocket", "long_polling"}),
        (["publish", "x", "--route", "re"], {"rest"}),
        (["doctor", "--pub"], {"--publish"}),
        (["listen", "--pub"], set()),
        (["record", "some_fi"], set()),
        (["hu"], {"hub"}),
        (["hub", "re"], {"remove", "resume"}),
        (["hub", "drain", "--t"], {"--timeout"}),
        (["hub", "remove", "key", "--val"], {"--valkey"}),
        (["hub", "run", "--log-format", ""], {"text", "json"}),
        (["hub", "status", "--cipher"], set()),
    ],
)
def test_bash_completes(run_here: RunHere, words: list[str], expected: set[str]) -> None:
    script = run_here("completion", "bash").out
    typed = " ".join(f"'{word}'" for word in ["bitrix-pull", *words])
    asked = f'COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _bitrix_pull; printf "%s\\n" "${{COMPREPLY[@]}}"'
    told = subprocess.run(
        ["bash", "--norc", "-c", f"{script}\n{asked}"], capture_output=True, text=True, check=True
    )
    assert set(told.stdout.split()) == expected
    assert told.stderr == ""


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_take_theirs(run_here: RunHere, shell: str) -> None:
    outcome = run_here("completion", shell)
    assert outcome.code == 0
    assert "record" in outcome.out
    assert "drain" in outcome.out
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n", "/dev/stdin"], input=outcome.out, text=True, check=True)


def test_an_unknown_shell_is_refused(run_here: RunHere) -> None:
    assert run_here("completion", "csh").code == 2
