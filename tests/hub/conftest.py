import os
import secrets
from collections.abc import Iterator

import pytest

from tests.hub.engine import running


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """The address of a server that all tests of a process share."""
    named = os.environ.get("BITRIX_PULL_VALKEY_URL")
    if named:
        yield named
    else:
        with running() as server:
            yield server.url


@pytest.fixture
def name() -> str:
    """Tells what one test keeps on the server from what others do."""
    return f"test-{secrets.token_hex(4)}"
