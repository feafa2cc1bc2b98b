"""The channels to subscribe to, and the configuration that they come from."""

import asyncio
import time
from dataclasses import dataclass, field

from bitrix_pull.errors import InvalidConfig
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.addresses import require_tls
from bitrix_pull.portal.config import ConfigFetcher
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.urls import subscription_url


@dataclass(slots=True, frozen=True)
class Endpoint:
    """Where and how to subscribe. Its addresses hold channel ids, so they are never shown."""

    config: PullConfig = field(repr=False)
    base_url: str = field(repr=False)
    wire_format: WireFormat

    def url(self, mid: str | None) -> str:
        """Return the address to connect to; ``mid`` is the resume point."""
        return subscription_url(
            self.base_url,
            self.config.channel_ids,
            self.wire_format,
            mid=mid,
            client_id=self.config.client_id,
            jwt=self.config.jwt,
        )


class ChannelManager:
    """Owns the configuration: fetches it when there is none, or none that is valid."""

    def __init__(self, fetcher: ConfigFetcher, options: PullOptions) -> None:
        """Create a manager that has fetched nothing yet."""
        self._fetcher = fetcher
        self._options = options
        self._config: PullConfig | None = None
        self._refused = False
        self._fetching = asyncio.Lock()
        # Portal time minus monotonic time: a wrong local clock does no harm.
        self._clock_offset_s: float | None = None

    @property
    def known(self) -> bool:
        """True if the next call of ``config`` needs no request."""
        return self._config is not None

    def portal_now(self) -> float:
        """Return the portal's present time (unix); ours where the portal told none."""
        if self._clock_offset_s is None:
            return time.time()
        return asyncio.get_running_loop().time() + self._clock_offset_s

    def refuse(self) -> None:
        """Take note that the push server does not accept the channels: fetch others."""
        self._config = None
        self._refused = True

    async def config(self) -> PullConfig:
        """Return the configuration, from the portal if need be. One request at a time.

        Raises:
            PullError: The portal did not give a usable one.
        """
        async with self._fetching:
            if self._config is None:
                config = await self._fetcher.fetch(cache=not self._refused)
                if config.server_time is not None:
                    self._clock_offset_s = config.server_time.timestamp() - asyncio.get_running_loop().time()
                self._config = config
                self._refused = False
            return self._config

    async def endpoint(self) -> Endpoint:
        """Return where to subscribe.

        Raises:
            InvalidConfig: The configuration offers no transport that this client can use.
        """
        config = await self.config()
        url = config.websocket_url
        if url is None:
            raise InvalidConfig(
                "the portal's configuration has no WebSocket address (server.websocket_secure)"
            )
        require_tls(url, self._options.allow_http_hosts)
        return Endpoint(config, url, WireFormat.PROTOBUF if config.server.version >= 4 else WireFormat.TEXT)
