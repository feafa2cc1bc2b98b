import os
import secrets
from collections.abc import Iterator

import pytest

from tests.hub.engine import free_port, running
from tests.postgres import postgres


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """The address of a server that all tests of a process share."""
    named = os.environ.get("BITRIX_PULL_VALKEY_URL")
    if named:
        yield named
    else:
        with running() as server:
            yield server.url


@pytest.fixture(scope="session")
def postgres_conninfo() -> Iterator[str]:
    """The address of a PostgreSQL server that all tests of a process share, on loopback."""
    with postgres(free_port()) as conninfo:
        yield conninfo


@pytest.fixture
def name() -> str:
    """Tells what one test keeps on the server from what others do."""
    return f"test-{secrets.token_hex(4)}"
