"""Who may see the page: whoever was given its address, by a browser that shows no other site's pages."""

import hmac
import secrets
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

KEY: Final = "key"
"""The parameter of the address that holds the key."""

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """Lets requests in, or refuses them.

    The key stands in the address that the user opens; from then on a cookie does, which no script
    can read and which goes along from this page only. ``Host`` must be this machine's, or a name
    that another site lets point here could read the page (DNS rebinding). ``Origin`` must be the
    page's own, or another site could press its buttons (CSRF).
    """

    def __init__(self) -> None:
        """Make up the secrets of one run."""
        self.key: str = secrets.token_urlsafe(24)
        self._cookie = secrets.token_urlsafe(24)
        self._port = 0

    def begin(self, port: int) -> None:
        """Guard what is served at a port."""
        self._port = port

    @property
    def _cookie_name(self) -> str:
        # Cookies are shared by all ports of a host.
        return f"bitrix_pull_inspector_{self._port}"

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse a request, or let it be answered."""
        reason = self._refusal(request)
        if reason is not None:
            return web.Response(status=reason[0], text=f"{reason[1]}\n")
        response = await handler(request)
        if KEY in request.query and not response.prepared:
            response.set_cookie(self._cookie_name, self._cookie, httponly=True, samesite="Strict", path="/")
        return response

    async def add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let the page load nothing from elsewhere, be framed by nobody, and be kept nowhere."""
        response.headers.update(_HEADERS)

    def _refusal(self, request: web.Request) -> tuple[HTTPStatus, str] | None:
        hosts = {f"{host}:{self._port}" for host in ("127.0.0.1", "localhost")}
        if request.host not in hosts:
            return (
                HTTPStatus.MISDIRECTED_REQUEST,
                "This page is for this machine: open it by its own address.",
            )
        origin = request.headers.get("Origin")
        if origin is None and request.method != "GET":
            return HTTPStatus.FORBIDDEN, "The request does not say which page it comes from."
        if origin is not None and origin != f"http://{request.host}":
            return HTTPStatus.FORBIDDEN, "The request comes from another site's page."
        known = _same(request.query.get(KEY, ""), self.key)
        if not known and not _same(request.cookies.get(self._cookie_name, ""), self._cookie):
            return (
                HTTPStatus.FORBIDDEN,
                "Open the address that bitrix-pull inspect has printed: its key is missing.",
            )
        return None


def _same(given: str, right: str) -> bool:
    """Compare in a time that tells nothing about how much of it was right."""
    return hmac.compare_digest(given.encode(errors="replace"), right.encode())
