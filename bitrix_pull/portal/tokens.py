"""OAuth tokens: what the OAuth server gives out, and a refresh replaces."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.wire.messages import is_nothing

_LONGEST_FIELD = 1000

_FORM_FIELDS = {
    "AUTH_ID": "access_token",
    "REFRESH_ID": "refresh_token",
    "AUTH_EXPIRES": "expires_in",
    "DOMAIN": "domain",
    "SERVER_ENDPOINT": "server_endpoint",
}
"""How an installation or a frame names what the OAuth server names otherwise (protocol §2)."""

_FORM_EXTRAS = ("member_id", "status")


def require_token(what: str, value: object) -> str:
    """Return a secret if it can be one. The error text never repeats it.

    Raises:
        InvalidArgument: It is no text, empty, or holds spaces or control characters.
    """
    if not isinstance(value, str) or not value:
        raise InvalidArgument(f"{what} is missing or empty")
    if not value.isprintable() or " " in value:
        raise InvalidArgument(f"{what} holds spaces or control characters")
    return value


@dataclass(slots=True, frozen=True, kw_only=True)
class Tokens:
    """An access token and the refresh token that renews it.

    Attributes:
        access_token: Good for an hour.
        refresh_token: Good for 180 days and for one refresh.
        expires: When the access token expires (unix), or None where unknown.
        fields: What else the OAuth server said: ``member_id``, ``domain``, ``scope``, …
            Read from JSON, they are short texts, numbers and the like: no lists and maps.
    """

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires: float | None = None
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)

    def __post_init__(self) -> None:
        require_token("access_token", self.access_token)
        require_token("refresh_token", self.refresh_token)
        if self.expires is not None and not _is_time(self.expires):
            raise InvalidArgument("expires is no unix time")

    @classmethod
    def read(cls, content: Mapping[str, Any], what: str = "the tokens") -> "Tokens":
        """Read tokens as the OAuth server writes them.

        Args:
            content: With ``access_token`` and ``refresh_token``, and ``expires`` if known.
            what: Where they come from, for error texts.

        Raises:
            InvalidArgument: One of the tokens is missing, or ``expires`` is no number.
        """
        expires = content.get("expires")
        try:
            return cls(
                access_token=content.get("access_token", ""),
                refresh_token=content.get("refresh_token", ""),
                expires=None if is_nothing(expires) else _number(expires),
                fields=_other_fields(content),
            )
        except InvalidArgument as error:
            raise InvalidArgument(f"{what}: {error}") from None

    @classmethod
    def from_install(cls, content: Mapping[str, Any], *, now: float | None = None) -> "Tokens":
        """Read tokens as a portal first hands them to an application (protocol §2).

        That is what is POSTed to it: on its installation and in a frame ``AUTH_ID``,
        ``REFRESH_ID``, ``AUTH_EXPIRES``, ``DOMAIN``, ``member_id``, …; with an event
        ``auth[access_token]``, ``auth[refresh_token]``, …, or a map ``auth`` of these.
        Values may be lists of one, as ``urllib.parse.parse_qs`` gives them. Anybody can post
        such a form: look at its ``member_id`` and ``application_token`` before you keep it.

        Example:
            tokens = Tokens.from_install(await request.post())
            auth = OAuth(tokens.fields["client_endpoint"], client_id=…, client_secret=…, tokens=tokens)

        Args:
            content: The form's fields.
            now: When it came (unix), from which the seconds until its end count; None: now.

        Returns:
            The tokens; ``fields`` has ``client_endpoint`` and ``domain`` where the form tells
            the portal, which are accepted wherever a portal is named.

        Raises:
            InvalidArgument: One of the tokens is missing, as the refresh token is in what is
                sent about a user who has not installed the application.
        """
        if not isinstance(content, Mapping):
            raise InvalidArgument(f"an installation's form must be a mapping, not {type(content).__name__}")
        fields = _form_fields(content)
        expires_in, expires = _number(fields.pop("expires_in", None)), _number(fields.get("expires"))
        ends = ((time.time() if now is None else now) + expires_in, expires)
        return cls.read({**fields, "expires": next(filter(_is_time, ends), None)}, "the installation's form")

    def write(self) -> dict[str, Any]:
        """Return them as the OAuth server writes them."""
        content = {**self.fields, "access_token": self.access_token, "refresh_token": self.refresh_token}
        if self.expires is not None:
            content["expires"] = int(self.expires)
        return content

    @classmethod
    def granted(cls, answer: Mapping[str, Any], now: float) -> "Tokens":
        """Return the tokens in an answer of the OAuth server that holds some.

        Their end is counted from ``now`` (unix), so that a wrong clock here does no harm.
        What the server says about it decides nothing else: an odd value is no reason to
        lose the tokens.
        """
        ends = (now + _number(answer.get("expires_in")), _number(answer.get("expires")))
        return cls(
            access_token=answer["access_token"],
            refresh_token=answer["refresh_token"],
            expires=next(filter(_is_time, ends), None),
            fields=_other_fields(answer),
        )

    def renewed(self, answer: Mapping[str, Any], now: float) -> "Tokens":
        """Return the tokens that a refresh gave: as ``granted``, with what these have beside them."""
        return self.granted({**self.fields, **answer}, now)

    def expired(self, now: float) -> bool:
        """True if the access token has certainly expired at ``now`` (unix)."""
        return self.expires is not None and self.expires <= now


def _form_fields(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an installation, a frame or an event under the OAuth server's names."""
    form = {name: _single(value) for name, value in content.items()}
    nested = form.get("auth")
    if isinstance(nested, Mapping):
        return {name: _single(value) for name, value in cast("Mapping[str, Any]", nested).items()}
    event = {
        name.removeprefix("auth[").removesuffix("]"): value
        for name, value in form.items()
        if name.startswith("auth[")
    }
    if event or "AUTH_ID" not in form:
        return event or form
    fields = {known: form[name] for name, known in _FORM_FIELDS.items() if not is_nothing(form.get(name))}
    fields |= {name: form[name] for name in _FORM_EXTRAS if not is_nothing(form.get(name))}
    if isinstance(fields.get("domain"), str):
        scheme = "http" if str(form.get("PROTOCOL")) == "0" else "https"
        fields["client_endpoint"] = f"{scheme}://{fields['domain']}/rest/"
    return fields


def _single(value: object) -> object:
    """Return the one value of a field whose values come as a list."""
    if not isinstance(value, list):
        return value
    values = cast("list[object]", value)
    return values[0] if values else None


def _number(value: object) -> float:
    """Return a number that may be written as text; NaN for anything else."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return math.nan
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _is_time(value: object) -> bool:
    """True for a unix time that anything can write and read."""
    return isinstance(value, int | float) and abs(value) < 2**40


def _other_fields(content: Mapping[str, Any]) -> dict[str, Any]:
    known = {"access_token", "refresh_token", "expires"}
    return {name: value for name, value in content.items() if name not in known and _is_plain(value)}


def _is_plain(value: object) -> bool:
    """True for what any store can hold: neither nested nor large, whatever a server may send."""
    return len(value) <= _LONGEST_FIELD if isinstance(value, str) else isinstance(value, int | float | None)
