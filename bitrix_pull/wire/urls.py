"""Addresses on the push server (protocol §4 and §7)."""

from collections.abc import Sequence
from urllib.parse import quote, urlsplit, urlunsplit

from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.messages import Position

REVISION = 19
"""The client API revision that the official web client sends."""

START_OF_HISTORY = "0" * 26
"""The mid after which a server replays all that it keeps (protocol §6)."""


def subscription_url(
    endpoint: str,
    channels: Sequence[str],
    wire_format: WireFormat,
    *,
    mid: str | None = None,
    position: Position | None = None,
    client_id: str | None = None,
    jwt: str | None = None,
) -> str:
    """Return the address to subscribe at, by WebSocket or by polling alike.

    Args:
        endpoint: ``websocket_secure``, ``long_polling_secure`` or their plain forms.
        channels: The private channel id, then the shared one; further ones may follow.
        wire_format: How frames shall be written.
        mid: Replay what came after this message. The server silently ignores a mid that
            is not 26 digits.
        position: The same for a server of version 2 or older, which has no mids.
        client_id: The portal's id on a push server in shared mode.
        jwt: Takes the place of the channels where the portal gave one.
    """
    query = [("token", jwt)] if jwt else [("CHANNEL_ID", "/".join(channels))]
    name, value = wire_format.value
    if name:
        query.append((name, value))
    if client_id:
        query.append(("clientId", client_id))
    if mid is not None:
        query.append(("mid", mid))
    if position is not None:
        query += [("tag", position.tag), ("time", position.time)]
    query.append(("revision", str(REVISION)))
    return _with_query(endpoint, query)


def publication_url(endpoint: str, channels: Sequence[str], *, client_id: str | None = None) -> str:
    """Return the address to publish at; ``channels`` are the publisher's own, as for subscribing."""
    query = [("CHANNEL_ID", "/".join(channels))]
    if client_id:
        query.append(("clientId", client_id))
    return _with_query(endpoint, query)


def _with_query(endpoint: str, query: list[tuple[str, str]]) -> str:
    parts = urlsplit(endpoint)
    text = "&".join(f"{name}={quote(value, safe='')}" for name, value in query)
    return urlunsplit(parts._replace(query=f"{parts.query}&{text}" if parts.query else text, fragment=""))
