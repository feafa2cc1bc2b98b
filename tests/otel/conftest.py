from collections.abc import Iterator

import pytest

from tests.otel.sdk import Sdk


@pytest.fixture
def sdk() -> Iterator[Sdk]:
    sdk = Sdk()
    yield sdk
    sdk.shut_down()
