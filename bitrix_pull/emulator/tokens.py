"""Tokens that the portal and its OAuth server hand out, and recognise without remembering them.

What a token says and its seal both come from the security key, so an emulator that is
killed and started again with the same key takes the tokens that it gave out before.
"""

import hmac
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bitrix_pull.emulator.channels import derive

TokenKind = Literal["access", "refresh", "code"]

_CONTENT = struct.Struct(">QQI")


@dataclass(slots=True, frozen=True)
class Grant:
    """What a sound token says.

    Attributes:
        expired: It was good once.
    """

    user_id: int
    expired: bool


class Tokens:
    """Issues tokens and opens them."""

    def __init__(self, security_key: str, clock: Callable[[], float]) -> None:
        self._key = security_key
        self._clock = clock
        self._issued = Counter[tuple[TokenKind, int]]()
        self._expired: set[str] = set()

    def issue(self, kind: TokenKind, user_id: int, expires_in_s: float | None = None) -> str:
        """Return a new token; one that never expires by itself if no life is given."""
        serial = self._issued[kind, user_id]
        self._issued[kind, user_id] += 1
        expires_ms = 0 if expires_in_s is None else int((self._clock() + expires_in_s) * 1000)
        content = _CONTENT.pack(user_id, expires_ms, serial)
        return (content + self._seal(kind, content)).hex()

    def open(self, kind: TokenKind, token: str) -> Grant | None:
        """Return what a token says, or None if it is none of ours."""
        try:
            raw = bytes.fromhex(token)
        except ValueError:
            return None
        content, seal = raw[: _CONTENT.size], raw[_CONTENT.size :]
        if not hmac.compare_digest(self._seal(kind, content), seal):
            return None
        user_id, expires_ms, _ = _CONTENT.unpack(content)
        expired = token in self._expired or 0 < expires_ms <= self._clock() * 1000
        return Grant(user_id, expired)

    def expire(self, token: str) -> None:
        """Let a token be expired from now on."""
        self._expired.add(token)

    def _seal(self, kind: TokenKind, content: bytes) -> bytes:
        return derive(self._key, "token", kind, content.hex())[:16]
