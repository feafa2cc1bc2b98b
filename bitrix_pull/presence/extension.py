"""Watches on the portal that are kept alive (protocol §2, ``pull.watch.extend``)."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from bitrix_pull.errors import InvalidArgument, PullError
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.presence.watch import Spawn
from bitrix_pull.redaction import get_logger
from bitrix_pull.telemetry import log_fields

logger: Final = get_logger("presence")

EXTEND_EVERY_S = 29 * 60.0
"""The portal drops a watch after 30 minutes."""

RETRY_S = (2.0, 60.0)
"""First and longest wait after a failure; it doubles in between."""

_METHOD = "pull.watch.extend"


def check_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return the tags of watches, at least one.

    Raises:
        InvalidArgument: They are none.
    """
    if isinstance(tags, str | bytes) or not isinstance(tags, Iterable):
        raise InvalidArgument(f"tags must be a list of texts, not {type(tags).__name__}")
    named = tuple(tags)
    if not named:
        raise InvalidArgument("tags is empty")
    for tag in named:
        if not isinstance(tag, str) or not tag:
            raise InvalidArgument(f"{tag!r:.40} is no tag: use texts that are not empty")
    return tuple(dict.fromkeys(named))


@asynccontextmanager
async def extend_watch(tags: Sequence[str], rest: RestClient, *, spawn: Spawn) -> AsyncGenerator[None]:
    """Keep watches alive while the context is open; see ``PullClient.extend_watch``.

    Args:
        tags: The tags of the watches, checked.
        rest: Makes the calls.
        spawn: Runs what makes the later ones, and cancels it when the client is closed.
    """
    call = {"TAGS": list(tags)}
    extended = True
    try:
        await rest.call(_METHOD, call)
    except PullError as error:
        if not error.retryable:
            raise
        logger.warning("watches on the portal were not extended, and are again soon: %s", error)
        extended = False
    extending = spawn(_keep_extending(rest, call, extended=extended), "bitrix_pull watch extension")
    try:
        yield
    finally:
        extending.cancel()
        await asyncio.wait({extending})


async def _keep_extending(rest: RestClient, call: dict[str, list[str]], *, extended: bool) -> None:
    first_s, longest_s = RETRY_S
    retry_s = first_s
    wait_s = EXTEND_EVERY_S if extended else retry_s
    while True:
        await rest.http.clock.sleep(wait_s)
        try:
            await rest.call(_METHOD, call)
        except PullError as error:
            # Also where only a person can help: then it goes on once one has.
            wait_s, retry_s = retry_s, min(2 * retry_s, longest_s)
            logger.warning(
                "watches on the portal were not extended, again in %.0f s: %s",
                wait_s,
                error,
                extra=log_fields(retry_in_s=wait_s, error=error),
            )
        else:
            wait_s, retry_s = EXTEND_EVERY_S, first_s
