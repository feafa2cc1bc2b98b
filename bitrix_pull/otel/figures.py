"""What is read of clients when figures are collected."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from weakref import WeakKeyDictionary, WeakSet

from bitrix_pull.client import PullClient, runs_of
from bitrix_pull.events import HandlerFailed, Notice, State, StateChanged
from bitrix_pull.health import Health
from bitrix_pull.otel.attributes import SYSTEM, Attributes, Names, failed
from bitrix_pull.otel.calls import CallCounter
from bitrix_pull.otel.reading import Loop, Readings
from bitrix_pull.telemetry import METRICS

Key = tuple[str, str]
"""The name of a metric, and the value of the attribute that it has of its own."""

By = Mapping[str, float]
"""Values of a metric by the attribute that it has of its own; "" stands for none."""

_A_TURN: Final = 50
"""How many clients are read before others may run."""

_GREATEST: Final = frozenset({"bitrix_pull.silence", "bitrix_pull.lag"})
"""Of several clients the greatest of these counts; all others are added up."""


def _one(value: float) -> By:
    return {"": value}


OBSERVED: Final[Mapping[str, Callable[[PullClient, Health], By]]] = {
    "messaging.client.consumed.messages": lambda _, health: _one(health.received),
    "bitrix_pull.duplicates": lambda _, health: _one(health.duplicates),
    "bitrix_pull.malformed": lambda _, health: _one(health.malformed),
    "bitrix_pull.ignored": lambda _, health: _one(health.ignored),
    "bitrix_pull.healed": lambda _, health: _one(health.healed),
    "bitrix_pull.dropped": lambda _, health: _one(health.dropped),
    "bitrix_pull.unrouted": lambda _, health: _one(sum(health.unrouted.values())),
    "bitrix_pull.gaps": lambda _, health: _one(health.gaps),
    "bitrix_pull.connects": lambda _, health: _one(health.connects),
    "bitrix_pull.live": lambda _, health: _one(int(health.live)),
    "bitrix_pull.state": lambda _, health: {state.value: int(state is health.state) for state in State},
    "bitrix_pull.silence": lambda _, health: {} if health.silent_for_s is None else _one(health.silent_for_s),
    "bitrix_pull.lag": lambda _, health: _one(health.lag_s),
    "bitrix_pull.inbox.events": lambda _, health: _one(health.waiting),
    "bitrix_pull.inbox.size": lambda _, health: _one(health.waiting_bytes),
    "bitrix_pull.store.saves": lambda _, health: _one(health.store.saves),
    "bitrix_pull.store.failures": lambda _, health: _one(health.store.failures),
    "bitrix_pull.store.time": lambda _, health: _one(health.store.saving_s),
    "bitrix_pull.store.failing": lambda _, health: _one(int(bool(health.store.error))),
    "bitrix_pull.rest.waited": lambda client, _: _one(runs_of(client).rest.waited_s),
    "bitrix_pull.token.refreshes": lambda client, _: {
        "": runs_of(client).rest.token_refreshes,
        **runs_of(client).rest.failed_token_refreshes,
    },
}
"""By the names of the metrics."""

_GROWING: Final = frozenset(name for name in OBSERVED if METRICS[name].kind == "counter")


class Clients:
    """Figures of one client, or those of many together.

    What only grows goes on from client to client, and from one run of a client to the next.

    Attributes:
        readings: What was read last.
        where: What all figures have beside what is told here.
        calls: Counts calls of handlers; None: they are left alone.
        sent: How many events were published, by route and by what they failed with, or "".

    Args:
        where: See above.
        loop: Gives the event loop that they run on; None if there is none.
        calls: See above.
        causes: Names errors.
    """

    def __init__(
        self, where: Attributes, loop: Callable[[], Loop | None], calls: CallCounter | None, causes: Names
    ) -> None:
        self.readings: Readings = {}
        self.where: Attributes = {**SYSTEM, **where}
        self.calls: CallCounter | None = calls
        self.sent: Counter[tuple[str, str]] = Counter()
        self._loop = loop
        self._causes = causes
        self._clients: WeakSet[PullClient] = WeakSet()
        # What was counted by each of them when it was last looked at, and by all together.
        self._seen: WeakKeyDictionary[PullClient, dict[Key, float]] = WeakKeyDictionary()
        self._totals: dict[Key, float] = dict.fromkeys(((name, "") for name in _GROWING), 0)
        self._disconnects: Counter[str] = Counter()
        # How often a handler has failed for good, and with what.
        self._failures: Counter[tuple[str, str]] = Counter()
        self._attributes: dict[Key, Attributes] = {}

    @property
    def loop(self) -> Loop | None:
        """Where they run; None if they do not."""
        return self._loop()

    def add(self, client: PullClient) -> None:
        """Read a client too. What it has counted until now is left out."""
        self._clients.add(client)
        health = client.health()
        self._seen[client] = {
            (name, attribute): value
            for name in _GROWING
            for attribute, value in OBSERVED[name](client, health).items()
        }

    def remove(self, client: PullClient) -> None:
        """Read a client no more. What it has counted stays."""
        self._count(client, client.health())
        self._clients.discard(client)

    def note(self, client: PullClient, notice: Notice) -> None:
        """Take note of what happens to a client."""
        if isinstance(notice, HandlerFailed):
            self._failures[notice.handler, self._causes.of(notice.error)] += 1
        if not isinstance(notice, StateChanged):
            return
        if notice.state is State.BACKOFF:
            self._disconnects["unknown" if notice.error is None else self._causes.of(notice.error)] += 1
        elif notice.state in (State.CONFIGURING, State.FAILED, State.CLOSED):
            # It begins anew at nothing: what it counts until its end is looked at then, and that
            # it has begun is, before it comes as far as it was.
            self._count(client, client.health())

    def read(self) -> Iterator[None]:
        """Read all, and yield now and then."""
        present: dict[Key, float] = {}
        for number, client in enumerate(list(self._clients), 1):
            health = client.health()
            self._count(client, health)
            _look(client, health, present)
            if not number % _A_TURN:
                yield
        readings: Readings = {}
        for (name, attribute), value in (*self._totals.items(), *present.items()):
            readings.setdefault(name, []).append((value, self._own(name, attribute)))
        for cause, count in self._disconnects.items():
            name = "bitrix_pull.disconnects"
            readings.setdefault(name, []).append((count, self._own(name, cause)))
        for (handler, cause), count in self._failures.items():
            name = "bitrix_pull.handler.failures"
            own = self._own(name, handler if self.calls is None else self.calls.full_name(handler))
            readings.setdefault(name, []).append((count, failed(own, cause)))
        for (route, cause), count in self.sent.items():
            name = "messaging.client.sent.messages"
            own = self._own(name, route)
            readings.setdefault(name, []).append((count, failed(own, cause) if cause else own))
        for name, value, attributes in () if self.calls is None else self.calls.figures():
            readings.setdefault(name, []).append((value, attributes))
        self.readings = readings

    def _count(self, client: PullClient, health: Health) -> None:
        """Add up what a client has counted since it was last looked at."""
        seen = self._seen[client]
        for name in _GROWING:
            for attribute, value in OBSERVED[name](client, health).items():
                key = name, attribute
                before = seen.get(key, 0)
                if value != before:
                    seen[key] = value
                    # Who counts less than before has begun anew.
                    more = value - before if value > before else value
                    self._totals[key] = self._totals.get(key, 0) + more

    def _own(self, name: str, attribute: str) -> Attributes:
        known = self._attributes.get((name, attribute))
        if known is None:
            known = self._attributes[name, attribute] = with_own(self.where, name, attribute)
        return known


def _look(client: PullClient, health: Health, present: dict[Key, float]) -> None:
    """Add how a client is doing to how others are."""
    for name in OBSERVED.keys() - _GROWING:
        for attribute, value in OBSERVED[name](client, health).items():
            key = name, attribute
            if name in _GREATEST:
                present[key] = max(present.get(key, value), value)
            else:
                present[key] = present.get(key, 0) + value


def with_own(where: Attributes, name: str, value: str) -> Attributes:
    """Return the attributes of a figure: what all have, its operation if it is of one, its own unless ""."""
    metric = METRICS[name]
    made = {**where, "messaging.operation.name": metric.operation} if metric.operation else dict(where)
    return {**made, metric.attributes[0]: value} if value else made
