"""What a test client stands on: nothing but this process, or sockets to an emulated portal."""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from bitrix_pull.dispatch.router import Router
from bitrix_pull.events import PortalEvent, PullEvent
from bitrix_pull.reception import Reception

if TYPE_CHECKING:
    from bitrix_pull.client import PullClient
    from bitrix_pull.testing.answers import Answers
    from bitrix_pull.testing.post import Post

PORTAL_NAME = "test.bitrix24.com"
"""What the portal of a router under test is called."""


class Outside:
    """What a test says of the world around its handlers. Nothing is imported before it is asked for."""

    def __init__(self) -> None:
        self._answers: Answers | None = None
        self._post: Post | None = None

    @property
    def answers(self) -> "Answers":
        """What REST calls give."""
        if self._answers is None:
            from bitrix_pull.testing.answers import Answers

            self._answers = Answers()
        return self._answers

    @property
    def post(self) -> "Post":
        """What becomes of what is published."""
        if self._post is None:
            from bitrix_pull.testing.post import Post

            self._post = Post()
        return self._post


class Ground(Protocol):
    """Where events come from, and where publishing and calls go."""

    @property
    def pull(self) -> "PullClient":
        """The client of the handlers."""
        ...

    async def open(self, look_on: Callable[[Reception], None]) -> None:
        """Let handlers get events, and somebody look on from before the first one."""
        ...

    async def close(self) -> None:
        """Leave nothing running, and everything as it was."""
        ...

    async def send(self, event: PullEvent[Any]) -> str:
        """Let an event come by the stream; return its mid there."""
        ...

    async def change(self, event: PortalEvent[Any]) -> None:
        """Let something have happened on the portal."""
        ...

    def is_told(self, event: PortalEvent[Any]) -> bool:
        """Tell whether the portal knows by now what became of an event."""
        ...

    async def cut(self, missed: Sequence[PullEvent[Any]]) -> Sequence[str]:
        """Cut the connection, let events be missed, and let it come back; return the mids of those."""
        ...

    async def lose_history(self) -> None:
        """Cut the connection, and let the push server forget what it kept."""
        ...


def is_client(target: Router) -> "TypeGuard[PullClient]":
    """Tell whether it is a client, without importing what one takes."""
    module = sys.modules.get("bitrix_pull.client")
    return module is not None and isinstance(target, module.PullClient)
