"""Under which key a client's resume point is kept: by what stays the same from run to run."""

from typing import Final

from bitrix_pull.errors import PortalError, RateLimited, TokenExpired
from bitrix_pull.portal.auth import Mode
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.portal.user_ids import read_user_id
from bitrix_pull.redaction import get_logger
from bitrix_pull.telemetry import log_fields
from bitrix_pull.wire.messages import is_object

logger: Final = get_logger("connection")

_WHO_AM_I = ("profile", "user.current")
"""Methods that name the user who calls. The first one needs no scope."""


async def resume_keys(rest: RestClient, mode: Mode, config: PullConfig) -> tuple[str, ...]:
    """Return the key of a client's resume point, and after it those that it may have had before.

    It names portal, application, mode and user: the portal by its ``member_id`` where the
    tokens tell it, as its host may change; the user by the credentials, or else by asking the
    portal.

    Raises:
        PullError: The portal could not be asked just now.
    """
    owner = await rest.owner()
    user = owner.user_id or await _current_user(rest)
    in_config = min(config.public_channels, default=None)
    application = [owner.application] if owner.application else []

    def key(*portal: str, user: int | None) -> str:
        return " ".join((*portal, mode, "user", "-" if user is None else str(user)))

    keys = (
        key(owner.member_id or owner.host, *application, user=user or in_config),
        # While the tokens did not tell the member_id.
        key(owner.host, *application, user=user or in_config),
        # As the first release named them: by the least user of the configuration.
        key(rest.identity, user=in_config),
        key(rest.identity, user=None),
    )
    return tuple(dict.fromkeys(keys))


async def _current_user(rest: RestClient) -> int | None:
    """Ask the portal who we are; None if it does not tell."""
    for method in _WHO_AM_I:
        try:
            user = await rest.call(method)
        except (RateLimited, TokenExpired):
            raise
        except PortalError as error:
            logger.debug(
                "the portal does not tell whose stream it is: %s",
                error,
                extra=log_fields(error),
            )
            continue
        user_id = read_user_id(user.get("ID")) if is_object(user) else None
        if user_id is not None:
            return user_id
    logger.info("the portal does not tell whose stream it is: the resume point is kept by its configuration")
    return None
