"""OAuth tokens: what the OAuth server gives out, and a refresh replaces."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bitrix_pull.errors import InvalidArgument

_LONGEST_FIELD = 1000


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
                expires=None if expires is None else _number(expires),
                fields=_other_fields(content),
            )
        except InvalidArgument as error:
            raise InvalidArgument(f"{what}: {error}") from None

    def write(self) -> dict[str, Any]:
        """Return them as the OAuth server writes them."""
        content = {**self.fields, "access_token": self.access_token, "refresh_token": self.refresh_token}
        if self.expires is not None:
            content["expires"] = int(self.expires)
        return content

    def renewed(self, answer: Mapping[str, Any], now: float) -> "Tokens":
        """Return the tokens that a refresh gave.

        Their end is counted from ``now`` (unix), so that a wrong clock here does no harm.
        What the server says about it decides nothing else: an odd value is no reason to
        lose the tokens.
        """
        ends = (now + _number(answer.get("expires_in")), _number(answer.get("expires")))
        return Tokens(
            access_token=answer["access_token"],
            refresh_token=answer["refresh_token"],
            expires=next(filter(_is_time, ends), None),
            fields=_other_fields({**self.fields, **answer}),
        )

    def expired(self, now: float) -> bool:
        """True if the access token has certainly expired at ``now`` (unix)."""
        return self.expires is not None and self.expires <= now


def _number(value: object) -> float:
    """Return a number that may be written as text; NaN for anything else."""
    try:
        return float(value) if isinstance(value, int | float | str) else math.nan
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
