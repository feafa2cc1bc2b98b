"""OAuth tokens: what the OAuth server gives out, and a refresh replaces."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bitrix_pull.errors import InvalidArgument


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
    """

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires: float | None = None
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)

    def __post_init__(self) -> None:
        require_token("access_token", self.access_token)
        require_token("refresh_token", self.refresh_token)
        if self.expires is not None and not math.isfinite(self.expires):
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
        end = now + _number(answer.get("expires_in"))
        if not math.isfinite(end):
            end = _number(answer.get("expires"))
        return Tokens(
            access_token=answer["access_token"],
            refresh_token=answer["refresh_token"],
            expires=end if math.isfinite(end) else None,
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


def _other_fields(content: Mapping[str, Any]) -> dict[str, Any]:
    known = {"access_token", "refresh_token", "expires"}
    return {name: value for name, value in content.items() if name not in known}
