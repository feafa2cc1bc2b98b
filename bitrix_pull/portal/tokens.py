"""OAuth tokens and where they are kept."""

import asyncio
import math
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import orjson

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.wire.messages import is_object


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
    def read(cls, content: Mapping[str, Any], what: str) -> "Tokens":
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


class TokenStore(Protocol):
    """Where tokens are kept between refreshes."""

    async def load(self) -> Tokens:
        """Return the tokens that were saved last."""
        ...

    async def save(self, tokens: Tokens) -> None:
        """Keep new tokens; when it returns, the old ones may be forgotten."""
        ...


class GivenTokens:
    """Tokens in memory."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def load(self) -> Tokens:
        """Return the tokens."""
        return self._tokens

    async def save(self, tokens: Tokens) -> None:
        """Replace the tokens."""
        self._tokens = tokens


class TokenFile:
    """Tokens in a JSON file, which only its owner can read once it has been rewritten.

    Args:
        path: The file. It is replaced as a whole, so its folder must be writable.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = Path(path)

    async def load(self) -> Tokens:
        """Read the file.

        Raises:
            InvalidArgument: It is missing or unreadable, or holds no tokens.
        """
        return await asyncio.to_thread(self._load)

    async def save(self, tokens: Tokens) -> None:
        """Replace the file, so that a reader finds the old tokens or the new ones.

        Raises:
            InvalidArgument: It cannot be written.
        """
        await asyncio.to_thread(self._save, tokens)

    def _load(self) -> Tokens:
        try:
            content = orjson.loads(self._path.read_bytes())
        except OSError as error:
            raise InvalidArgument(
                f"the token file {self._path} cannot be read: {error.strerror}",
                advice="Authorise the application and store what the OAuth server answers there, as JSON.",
            ) from None
        except orjson.JSONDecodeError:
            # The cause holds the file's content.
            raise InvalidArgument(f"the token file {self._path} is no JSON") from None
        if not is_object(content):
            raise InvalidArgument(f"the token file {self._path} holds no JSON object")
        return Tokens.read(content, f"the token file {self._path}")

    def _save(self, tokens: Tokens) -> None:
        # A link is followed: what it points to is replaced, not the link.
        target = self._path.resolve()
        try:
            # Made with mode 0600.
            descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            try:
                with open(descriptor, "wb") as file:
                    file.write(orjson.dumps(tokens.write(), option=orjson.OPT_INDENT_2))
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, target)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            raise InvalidArgument(
                f"the token file {self._path} cannot be written: {error.strerror}",
                advice="Refreshed tokens are stored there: make it and its folder writable.",
            ) from None
