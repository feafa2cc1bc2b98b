"""Coroutines whose owner finds out if nobody awaits them."""

from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Awaited(Coroutine[Any, Any, T], Generic[T]):
    """A coroutine that stands in a set until it is awaited."""

    def __init__(self, inner: Coroutine[Any, Any, T], what: str, waiting: "set[Awaited[Any]]") -> None:
        """Wrap a coroutine.

        Args:
            inner: The coroutine.
            what: How it is written, for an error's text.
            waiting: Where it stands until then.
        """
        self._inner = inner
        self._what = what
        self._waiting = waiting
        waiting.add(self)

    def __await__(self) -> Generator[Any, Any, T]:
        """Run it."""
        self._waiting.discard(self)
        return self._inner.__await__()

    def send(self, value: Any, /) -> Any:
        """Run it up to its next wait."""
        self._waiting.discard(self)
        return self._inner.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise an error in it."""
        self._waiting.discard(self)
        return self._inner.throw(*error)

    def close(self) -> None:
        """End it."""
        self._waiting.discard(self)
        self._inner.close()

    def close_unawaited(self) -> str:
        """End it, and return how it is written."""
        self.close()
        return self._what

    def __getattr__(self, name: str) -> Any:
        """Say that the result is still to come.

        Raises:
            AttributeError: Always.
        """
        raise AttributeError(f"no {name} before it is awaited: write `await {self._what}`")
