"""The public names are found when they are asked for, and only those."""

import subprocess
import sys

import pytest

import bitrix_pull


@pytest.mark.parametrize("name", bitrix_pull.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert name in dir(bitrix_pull)
    assert getattr(bitrix_pull, name) is not None


def test_another_name_is_not() -> None:
    with pytest.raises(AttributeError, match="'PullServer'"):
        bitrix_pull.PullServer  # type: ignore[attr-defined]  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import sys, bitrix_pull; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "aiohttp" not in told.stdout.split()
