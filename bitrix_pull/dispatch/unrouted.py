"""Counts what comes and nobody wants: often a handler's command is misspelt, or its module another."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import Final, cast

from bitrix_pull.redaction import get_logger
from bitrix_pull.telemetry import log_fields

OTHERS = "others"
"""What those are counted under that come when enough names are known."""

_NAMES_MAX = 100
_LONGEST_NAME = 100
_CLOSE = 0.8

logger: Final = get_logger("dispatch")


class Unrouted:
    """Counts events by the names of their topics. Each name is told once."""

    def __init__(self, wanted: Callable[[], Iterable[str]]) -> None:
        """Begin to count.

        Args:
            wanted: Gives the names of what handlers want.
        """
        self._wanted = wanted
        self._counts: Counter[str] = Counter()
        # Of the first topics only, as the server chooses them.
        self._names: dict[Hashable, str] = {}

    @property
    def counts(self) -> dict[str, int]:
        """How many came, by name. The server chooses the names: when there are many, the rest is "others"."""
        return dict(self._counts)

    def clear(self) -> None:
        """Count anew."""
        self._counts.clear()
        self._names.clear()

    def count(self, topics: Iterable[Hashable]) -> None:
        """Count events of these topics."""
        counts, names = self._counts, self._names
        for topic in topics:
            counts[names.get(topic) or self._name(topic)] += 1

    def _name(self, topic: Hashable) -> str:
        """Return what a topic is counted under."""
        name = name_of_topic(topic)[:_LONGEST_NAME]
        if name not in self._counts:
            if len(self._counts) >= _NAMES_MAX:
                return OTHERS
            logger.info(
                "no handler wants %s%s (told once; counted in health())",
                name,
                self._hint(name),
                extra=log_fields(event=name),
            )
        if len(self._names) < _NAMES_MAX:
            self._names[topic] = name
        return name

    def _hint(self, name: str) -> str:
        wanted = sorted(set(self._wanted()))
        if not wanted:
            return ": there are no handlers"
        module, _, command = name.rpartition(".")
        # The same in another module, or nearly the same in its own.
        near = [other for other in wanted if other.rpartition(".")[2] == command]
        own = {other.rpartition(".")[2]: other for other in wanted if other.rpartition(".")[0] == module}
        from difflib import get_close_matches

        near += [own[close] for close in get_close_matches(command, own, cutoff=_CLOSE)]
        return f": is {near[0]} meant, which one does want?" if near else ""


def name_of_topic(topic: Hashable) -> str:
    """Return a topic as it is written: ``im.message``."""
    return ".".join(cast("tuple[str, ...]", topic)) if isinstance(topic, tuple) else str(topic)
