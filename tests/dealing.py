"""Which test is run when, and by which of pytest-xdist's processes, so that all of them end together."""

from collections.abc import Sequence

import pytest
from xdist.scheduler import LoadScheduling
from xdist.workermanage import WorkerController

TOGETHER = ("inspector/test_page", "inspector/test_hub_page", "official_client/test_official_client")
"""Files whose tests share a browser: each is run by one process, so that it is started once."""

SLOWEST = (
    *TOGETHER,
    "soak",
    "cli/test_hub",
    "testing/test_pytest_plugin",
    "emulator/test_contract",
    "connection/test_renewing",
    "connection/test_resuming",
    "connection/test_longpoll",
    "connection/test_lost_counter",
    "benchmarks",
    "hub",
    "hostile",
    "examples",
    "inspector",
    "testing",
    "wire/test_parts",
    "cli",
    "portal_events",
    "doctor",
    "presence",
    "official_client",
    "connection",
    "publish/test_many",
    "internet",
    "otel",
    "test_",
    "emulator",
    "publish",
)
"""Where the tests are that take longest, or that wait: first, so that they end long before the others."""


def in_order(items: list[pytest.Item]) -> None:
    """Begin with what takes longest; what is left at the end takes milliseconds a test."""

    def rank(item: pytest.Item) -> int:
        path = item.nodeid.removeprefix("tests/")
        return next((rank for rank, place in enumerate(SLOWEST) if path.startswith(place)), len(SLOWEST))

    items.sort(key=rank)


class Dealer(LoadScheduling):  # type: ignore[misc]  # It has no types.
    """Deals tests a few at a time to whoever is through with what it had.

    Every second process gets them from the end, so that there is something to do while the
    slowest ones, most of which wait for something, are run from the front.

    xdist's ``worksteal`` gives each process its share at once, the slowest all to the first one,
    and others take over of them only when they have nothing else: most of them then end the run.
    """

    def _send_tests(self, node: WorkerController, num: int) -> None:
        if self.nodes.index(node) % 2:
            self.pending[:] = self.pending[-num:] + self.pending[:-num]
        else:
            while self._splits_a_file(num):
                num += 1
        super()._send_tests(node, num)

    def _splits_a_file(self, count: int) -> bool:
        if not 0 < count < len(self.pending):
            return False
        collection: Sequence[str] | None = self.collection
        assert collection is not None
        last: str
        following: str
        last, following = (collection[self.pending[place]] for place in (count - 1, count))
        path = last.partition("::")[0]
        return path == following.partition("::")[0] and path.removeprefix("tests/").startswith(TOGETHER)
