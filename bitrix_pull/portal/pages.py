"""What came where a portal's REST should have answered: a login page, a firewall's, words of PHP.

Whoever reads the error must know who spoke. Of a page only its title is told, of PHP the
message: all else may be anybody's.
"""

import codecs
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from bitrix_pull.portal.http import HttpAnswer
from bitrix_pull.redaction import quoted

_LOOKED_AT = 16 * 1024
"""Bytes of a body in which it must show what it is."""

_TITLE_MAX = 80
_MESSAGE_MAX = 160

_PHP = re.compile(
    r"(?:<b>)?(?P<kind>Fatal error|Parse error|Warning|Notice|Deprecated|Recoverable fatal error)(?:</b>)?:"
    r"\s{1,8}(?P<message>[^\n]{1,400})"
)
_TAG = re.compile(r"<[^<>]{0,200}>")
_TITLE = re.compile(r"<title[^<>]{0,200}>([^<]{0,400})", re.IGNORECASE)
_LOGIN_FORM = re.compile(r"""name=["']?(?:AUTH_FORM|USER_LOGIN|form_auth)\b""")
_LOGIN_ADDRESS = re.compile(r"/(?:auth|login|oauth|sso)(?:[/.]|\Z|\?)|[?&]login=", re.IGNORECASE)
_FIREWALL = re.compile(
    r"cloudflare|just a moment|attention required|ddos|firewall|\bwaf\b|captcha|incapsula|sucuri"
    r"|request rejected|request blocked|you have been blocked|access denied",
    re.IGNORECASE,
)

_LOGIN_ADVICE = (
    "REST needs no login: check the portal's address, and whether the portal, or a proxy before it, "
    "is closed to strangers."
)
_FIREWALL_ADVICE = "Let the calls of this machine to /rest/ pass there."
_PHP_ADVICE = (
    "The portal's administrator must mend what PHP complains about, "
    "or at least keep it out of answers (display_errors)."
)


@dataclass(slots=True, frozen=True)
class Page:
    """What came.

    Attributes:
        told: In words that follow "HTTP 200 with".
        advice: What to do about it; None where nothing more is known than from the status.
    """

    told: str
    advice: str | None = None


def describe(answer: HttpAnswer, secrets: Iterable[str]) -> Page:
    """Return what an answer is that is none of a portal's REST."""
    from html import unescape  # A table of names that hardly any client needs.

    text = answer.body[:_LOOKED_AT].removeprefix(codecs.BOM_UTF8).decode(errors="replace").lstrip()
    if not text:
        return Page("nothing in it")
    if (php := _PHP.search(text)) is not None:
        message = unescape(_TAG.sub("", f"{php['kind']}: {php['message']}"))
        return Page(f'words of PHP: "{quoted(message, secrets, _MESSAGE_MAX)}"', _PHP_ADVICE)
    if not text.startswith("<"):
        return Page("JSON of another kind" if text[0] in "{[" else "text that is no JSON")
    title = _TITLE.search(text)
    named = quoted(unescape(title[1]).strip(), secrets, _TITLE_MAX) if title is not None else ""
    told = f'a page titled "{named}"' if named else "a page without title"
    if _LOGIN_FORM.search(text):
        return Page(f"a login form, {told}", _LOGIN_ADVICE)
    server = quoted(answer.headers.get("Server", ""), secrets, _TITLE_MAX)
    if answer.status < 500 and _FIREWALL.search(f"{named} {server}"):
        return Page(f"{told} of a firewall before the portal", _FIREWALL_ADVICE)
    return Page(told)


def describe_own_redirect(location: str) -> Page:
    """Return where a portal redirects to that names another page of itself."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return Page("nowhere")
    if _LOGIN_ADDRESS.search(f"{parts.path}?{parts.query}"):
        return Page("its own login page", _LOGIN_ADVICE)
    return Page("another page of its own")
