import asyncio
import gc
import os
from collections.abc import Generator, Mapping

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer

from tests import browsers
from tests.dealing import Dealer, in_order
from tests.event_loops import LOOPS, LoopFactory
from tests.laws import examples

# What is true must be found true beside a busy core as well: how fast examples are made up and gone
# through is no property of what is tested. Each run makes up others; CI runs the laws on several Pythons.
settings.register_profile(
    "suite", max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")

# pytest-asyncio looks for a current event loop before its first test; Python before 3.14
# then makes one that nobody closes, which is a ResourceWarning in some later test.
asyncio.set_event_loop(None)


def pytest_configure(config: pytest.Config) -> None:
    """Let no test show a secret."""
    _keep_bytecode(config)
    # Imported late, so that the package is measured from its first line.
    from tests.canaries import CanaryNet

    config.pluginmanager.register(CanaryNet())
    config.pluginmanager.register(browsers)


def _keep_bytecode(config: pytest.Config) -> None:
    """Let hundreds of processes compile everything once, also where nothing may be written beside sources."""
    if os.environ.get("PYTHONDONTWRITEBYTECODE") and (cache := getattr(config, "cache", None)) is not None:
        os.environ["PYTHONPYCACHEPREFIX"] = str(cache.mkdir("bytecode"))
        del os.environ["PYTHONDONTWRITEBYTECODE"]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep thousands of tests, which live to the end, out of what is looked through for garbage.

    What a test leaves is looked through seldom: as often as by default takes a twentieth of all.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(10_000, 10, 10)
        gc.enable()


def pytest_xdist_auto_num_workers() -> int:
    """Run more tests at a time than there are cores: half their time they wait for others."""
    return 2 * (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    in_order(items)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Dealer | None:
    """Let all processes end together."""
    return Dealer(config, log) if config.option.dist == "load" else None


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, LoopFactory]:
    """Run what is marked ``every_loop`` on each of them, and ``virtual_time`` on one whose clock jumps."""
    if item.get_closest_marker("virtual_time"):
        # Imported late, as above.
        from tests import virtual_time

        return {"virtual": virtual_time.new_event_loop}
    if not item.get_closest_marker("every_loop"):
        return {"asyncio": LOOPS["asyncio"]}
    return {"uvloop": _no_uvloop, **LOOPS}


def _no_uvloop() -> asyncio.AbstractEventLoop:
    pytest.skip("there is no uvloop for this Python and system")
