"""The public names are found when they are asked for, and only those."""

import asyncio
import os
import re
import subprocess
import sys
import textwrap

import pytest

import bitrix_pull
from bitrix_pull import AccessToken, PullClient, PullError, errors
from bitrix_pull.emulator import Emulator


@pytest.mark.parametrize("name", bitrix_pull.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert name in dir(bitrix_pull)
    assert getattr(bitrix_pull, name) is not None


def test_every_error_is_a_public_name_and_stands_in_the_tree() -> None:
    defined = {name for name, item in vars(errors).items() if isinstance(item, type)}
    assert set(errors.__all__) == {name for name in defined if issubclass(vars(errors)[name], PullError)}
    assert set(errors.__all__) <= set(bitrix_pull.__all__)
    tree = set(re.findall(r"^[ │]*[├└]── (\w+)", errors.__doc__ or "", re.MULTILINE))
    assert tree | {"PullError"} == set(errors.__all__)


def test_a_client_offers_only_what_users_call() -> None:
    offered = [name for name in dir(PullClient) if not name.startswith("_")]
    assert not {"pattern", "watch", "unwatch", "handlers", "routers", "registry"} & set(offered)
    assert [name for name in offered if not getattr(PullClient, name).__doc__] == []
    pull = PullClient(AccessToken("acme.bitrix24.com", "token"))
    assert [name for name in vars(pull) if not name.startswith("_")] == ["context"]


def test_a_client_says_whose_it_is_and_how_it_is_doing() -> None:
    assert (
        repr(PullClient(AccessToken("acme.bitrix24.com", "token"))) == "PullClient(acme.bitrix24.com, idle)"
    )
    named = PullClient(AccessToken("acme.bitrix24.com", "token"), name="the shop")
    assert repr(named) == "PullClient(the shop, idle)"


def test_another_name_is_not() -> None:
    with pytest.raises(AttributeError, match="'PullServer'"):
        bitrix_pull.PullServer  # type: ignore[attr-defined]  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import sys, bitrix_pull; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "aiohttp" not in told.stdout.split()


def test_a_hub_imports_no_driver_of_an_engine_or_a_database() -> None:
    program = "import sys, bitrix_pull; bitrix_pull.Hub(); print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert not {"redis", "psycopg", "cryptography"} & set(told.stdout.split())


async def test_a_client_imports_nothing_that_hardly_any_client_needs() -> None:
    program = """
        import asyncio, sys
        from bitrix_pull import AccessToken, PullClient

        async def main(portal, token):
            pull = PullClient(AccessToken(portal, token))

            @pull.on()
            async def handle(event): ...

            async with pull:
                await pull.publish("greeting", {"to": "all"})
                print(*sys.modules)

        asyncio.run(main(*sys.argv[1:]))
    """
    # Whoever measures coverage there imports more.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    async with Emulator() as emulator:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", textwrap.dedent(program), emulator.portal_url, emulator.token),
            stdout=asyncio.subprocess.PIPE,
            env=env,
        )
        told, _ = await process.communicate()

    imported = set(told.decode().split())
    assert "bitrix_pull.client" in imported
    # A dozen megabytes, which only who has models, stores in SQLite, serves or reads error pages has
    # use for.
    assert not imported & {"pydantic", "sqlite3", "html", "aiohttp.web", "bitrix_pull.emulator"}
