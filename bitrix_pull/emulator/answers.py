"""HTTP answers as the push server gives them (protocol §9)."""

from collections.abc import Mapping

from aiohttp import web

CORS = {"Access-Control-Allow-Origin": "*"}
"""Stands on every answer."""


def answer(
    body: bytes | str = b"",
    *,
    status: int = 200,
    content_type: str = "text/plain",
    headers: Mapping[str, str] = {},
) -> web.Response:
    """Make one."""
    if isinstance(body, str):
        body = body.encode()
    return web.Response(status=status, body=body, headers={"Content-Type": content_type, **CORS, **headers})
