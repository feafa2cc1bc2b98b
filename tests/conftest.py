import asyncio

import pytest

# pytest-asyncio looks for a current event loop before its first test; Python before 3.14
# then makes one that nobody closes, which is a ResourceWarning in some later test.
asyncio.set_event_loop(None)


def pytest_configure(config: pytest.Config) -> None:
    """Let no test show a secret."""
    # Imported late, so that the package is measured from its first line.
    from tests.canaries import CanaryNet

    config.pluginmanager.register(CanaryNet())
