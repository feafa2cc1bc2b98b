"""What is examined, and what is known of it so far."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import monotonic, time
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from bitrix_pull.options import PullOptions
from bitrix_pull.portal.auth import Mode
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.portal.rest import RestClient


@dataclass(slots=True)
class Patient:
    """A client to be, by its parts.

    Attributes:
        portal: What the portal is called.
        rest: Calls it.
        mode: Whose channels the client would listen to.
        options: Those of the client.
        portal_ahead_s: How far the portal's clock is ahead of this machine's; None while unknown.
        user_id: Who is behind the credentials; None while unknown.
        is_administrator: Whether that is an administrator; None while unknown.
        config: The portal's configuration; None while unknown.
    """

    portal: str
    rest: RestClient
    mode: Mode
    options: PullOptions
    portal_ahead_s: float | None = None
    user_id: int | None = None
    is_administrator: bool | None = None
    config: PullConfig | None = None

    def learn_time(self, portal_unix: float) -> None:
        """Take note of the portal's time, as an answer of its told it just now."""
        self.portal_ahead_s = portal_unix - time()

    def way_to(self, url: str) -> str:
        """Say by which proxy an address is reached; "" where it is reached directly."""
        proxy = self.rest.http.proxy_for(url)
        return f" through the proxy {urlsplit(proxy).netloc.rpartition('@')[2]}" if proxy else ""


class Stopwatch(AbstractContextManager["Stopwatch"]):
    """Takes the time of a block."""

    def __init__(self) -> None:
        self.took_s: float = 0.0
        self._began_at = monotonic()

    def __enter__(self) -> Self:
        """Begin."""
        self._began_at = monotonic()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the time."""
        self.took_s = monotonic() - self._began_at
