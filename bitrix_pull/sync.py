"""Publishing from code that does not await: Flask, Django, a Celery task, a script.

    publisher = Publisher(AccessToken("acme.bitrix24.com", "…"))
    publisher.publish("order_update", {"id": 7}, users=[1])

Nothing is done here a second time: each call runs the one of ``PullClient`` in an event loop
that all publishers of a process share, in a thread of its own.
"""

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from bitrix_pull.client import PullClient
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.auth import Caller, Credentials, Mode
from bitrix_pull.publish.message import Message
from bitrix_pull.publish.receipt import Receipt
from bitrix_pull.publish.retrying import Retry
from bitrix_pull.wire.channel_ids import PublicChannel

T = TypeVar("T")

Route = Literal["auto", "rest", "endpoint"]
"""The ways that need no open connection."""

_CLOSE_WITHIN_S = 5.0
"""How long the end of the program waits for connections to be closed."""


class Publisher:
    """Publishes to one portal. It may be used by many threads, and in processes forked from this one.

    Each call blocks until the portal or the push server has answered. To end with the program
    is enough; ``close()``, or a ``with`` block, ends its connections before.
    """

    def __init__(
        self,
        auth: Credentials | Caller,
        *,
        mode: Mode | None = None,
        options: PullOptions | None = None,
        name: str | None = None,
    ) -> None:
        """Create a publisher; nothing is sent, and no thread started yet.

        Args:
            auth: See ``PullClient``. A store of tokens is shared with other processes as there.
            mode: See ``PullClient``.
            options: See ``PullClient``.
            name: See ``PullClient``.

        Raises:
            InvalidArgument: An argument cannot work; the text says why.
        """
        self._make_client = partial(PullClient, auth, mode=mode, options=options, name=name)
        self._client = self._make_client()
        self._background: _Background | None = None
        _locks[self] = threading.Lock()

    def publish(
        self,
        command: str,
        params: Mapping[str, Any] | None = None,
        *,
        module: str = "application",
        users: int | Iterable[int] | None = None,
        channels: str | PublicChannel | Iterable[str | PublicChannel] | None = None,
        to_self: bool = False,
        route: Route = "auto",
        retry: Retry = "never",
        timeout: float | None = None,
    ) -> Receipt:
        """Publish an event; see ``PullClient.publish`` for arguments and errors."""
        return self._run(
            lambda client: client.publish(
                command,
                params,
                module=module,
                users=users,
                channels=channels,
                to_self=to_self,
                route=route,
                retry=retry,
                timeout=timeout,
            )
        )

    def publish_many(
        self,
        messages: Iterable[Message],
        *,
        route: Route = "auto",
        retry: Retry = "never",
        timeout: float | None = None,
    ) -> Receipt:
        """Publish events in as few requests as the route allows; see ``PullClient.publish_many``."""
        # Here, as what yields them may belong to this thread: a cursor of a database.
        given = list(messages)
        return self._run(lambda client: client.publish_many(given, route=route, retry=retry, timeout=timeout))

    def notify(self, users: int | Iterable[int], text: str, *, avatar: str | None = None) -> None:
        """Send a notification to users' mobile phones; see ``PullClient.notify``."""
        return self._run(lambda client: client.notify(users, text, avatar=avatar))

    def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout: float | None = None
    ) -> Any:
        """Call a REST method and return its result; see ``PullClient.call``."""
        return self._run(lambda client: client.call(method, params, timeout=timeout))

    def close(self) -> None:
        """End its connections. It may be used again."""
        with _locks[self]:
            background, self._background = self._background, None
            if background is not None and background.is_ours:
                background.run(self._client.close(drain=0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, work: Callable[[PullClient], Coroutine[Any, Any, T]]) -> T:
        _refuse_to_block_a_loop()
        with _locks[self]:
            background = _background_of_this_process()
            if self._background is not background:
                if self._background is not None:
                    # It was the parent's, whose connections are none of ours: not even to be closed.
                    _inherited.append(self._client)
                    self._client = self._make_client()
                self._background = background
            client = self._client
        return background.run(work(client))


class _Background:
    """An event loop in a thread of its own. Of a fork, the child has no part in it."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="bitrix_pull publisher", daemon=True
        )
        self._thread.start()

    @property
    def is_ours(self) -> bool:
        """True in the process that has started it."""
        return self._process == os.getpid()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, and give it up if this thread is interrupted."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()

    def stop(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_WITHIN_S)


_locks: weakref.WeakKeyDictionary[Publisher, threading.Lock] = weakref.WeakKeyDictionary()
_inherited: list[PullClient] = []
"""Clients of the parent process. Kept, as their end would be the end of its connections."""

_starting = threading.Lock()
_background: _Background | None = None


def _background_of_this_process() -> _Background:
    global _background
    with _starting:
        if _background is None or not _background.is_ours:
            _background = _Background()
            atexit.register(_end, _background)
        return _background


def _end(background: _Background) -> None:
    """Close what the program has left open."""
    if background.is_ours:
        for publisher in list(_locks):
            publisher.close()
        background.stop()


def _after_fork() -> None:
    """Let nobody in the child wait for a thread that is not there."""
    global _starting
    _starting = threading.Lock()
    for publisher in list(_locks):
        _locks[publisher] = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _refuse_to_block_a_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "this would block the event loop of this thread: await the methods of a PullClient instead"
    )
