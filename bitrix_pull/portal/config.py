"""Fetching the Push & Pull configuration."""

from dataclasses import replace

from bitrix_pull.portal.auth import Mode
from bitrix_pull.portal.models import PullConfig, read_config
from bitrix_pull.portal.rest import RestClient

CONFIG_METHODS: dict[Mode, str] = {
    "application": "pull.application.config.get",
    "user": "pull.config.get",
}
"""The method for each mode (protocol §1)."""


class ConfigFetcher:
    """Asks the portal where to connect, and with which channels.

    Args:
        rest: Makes the calls.
        mode: "application" for the channels of an installed application, "user" for those
            of the user behind a webhook.

    Attributes:
        mode: The same.
        version: The push server's, as the last answer told it; 0 before.
    """

    def __init__(self, rest: RestClient, mode: Mode = "application") -> None:
        self.mode: Mode = mode
        self.version: int = 0
        self._rest = rest
        self._method = CONFIG_METHODS[mode]

    async def whose(self) -> str:
        """Name whose configuration it is, without asking the portal; "" where that cannot be told.

        Any user of an application may ask for one, and it is that user's own (protocol §1).

        Raises:
            PullError: The credentials cannot be read.
        """
        owner = await self._rest.owner()
        if owner.user_id is None:
            return ""
        portal = owner.member_id or owner.host
        return " ".join(filter(None, (portal, owner.application, self.mode, "user", str(owner.user_id))))

    async def inherit(self, config: PullConfig) -> None:
        """Go on with a configuration that another one has fetched for the same stream."""
        self.version = config.server.version

    async def fetch(self, *, cache: bool = True) -> PullConfig:
        """Fetch the configuration.

        Args:
            cache: False if the portal shall not answer from its cache. It answers the same
                channels until they have expired, either way (protocol §3).

        Returns:
            The configuration, with the portal's clock in ``server_time`` where known.

        Raises:
            PortalError: The call was refused; ``InvalidConfig`` if its answer is malformed,
                ``NotConfigured`` if the push server is switched off.
            Unreachable: Nothing answered in time.
        """
        # The stream depends on it: a flood of other calls must not hold it up.
        answer = await self._rest.ask(self._method, {"CACHE": "Y" if cache else "N"}, first=True)
        config = read_config(answer.result, self._method)
        self.version = config.server.version
        if config.server_time is None:
            config = replace(config, server_time=answer.server_time)
        return config
