"""The token that stands for the channels from version 5 on: a JWT (HS256, by the security key)."""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from typing import Any, cast

import orjson

from bitrix_pull.emulator.channels import (
    Owner,
    PortalChannel,
    Refused,
    Subscription,
    channel_ids,
)
from bitrix_pull.wire.close_codes import ServerClose

_HEADER = b'{"typ":"JWT","alg":"HS256"}'


@dataclass(slots=True, frozen=True)
class Session:
    """What a sound token admits to: all that is a user's own, and the shared channel that it names.

    The token says nothing about an application: one that connects with it gets its user's
    portal-wide events too (protocol §1).
    """

    user_id: int
    shared: Subscription
    channels: tuple[Subscription, ...]


class JwtSigner:
    """Makes tokens for the portal, and reads them for the push server."""

    def __init__(self, security_key: str) -> None:
        self._key = security_key

    def issue(self, user_id: int, shared: PortalChannel, issuer: str) -> str:
        """Return the token of a user. It ends with the shared channel that it names."""
        claims = {
            "iss": issuer,
            "iat": int(shared.start),
            "exp": int(shared.end),
            "sub": str(user_id),
            "chan": shared.id,
        }
        content = f"{_encode(_HEADER)}.{_encode(orjson.dumps(claims))}"
        return f"{content}.{_encode(self._signature(content))}"

    def open(self, token: str, now: float) -> Session:
        """Read a token.

        Raises:
            Refused: It is none of ours, or it has expired (4010).
        """
        content, _, signature = token.rpartition(".")
        try:
            sound = hmac.compare_digest(_decode(signature), self._signature(content))
        except (binascii.Error, ValueError):
            sound = False
        if not sound:
            raise Refused(ServerClose.WRONG_CHANNEL)
        claims = cast("dict[str, Any]", orjson.loads(_decode(content.partition(".")[2])))
        if claims["exp"] <= now:
            raise Refused(ServerClose.WRONG_CHANNEL)
        user_id = int(claims["sub"])
        shared = Subscription(bytes.fromhex(claims["chan"]))
        return Session(user_id, shared, (*self.subscriptions(user_id), shared))

    def subscriptions(self, user_id: int) -> tuple[Subscription, Subscription]:
        """Return the channels of a user, the portal-wide one first: version 5 knows them by the id."""
        portal_wide, applications = (
            channel_ids(self._key, Owner(audience, user_id)) for audience in ("user", "application")
        )
        return _subscription(*portal_wide), _subscription(*applications)

    def address(self, user_id: int) -> bytes:
        """Return the raw public id under which a user is reached, and publishes."""
        return self.subscriptions(user_id)[0].ids[-1]

    def _signature(self, content: str) -> bytes:
        return hmac.digest(self._key.encode(), content.encode(), hashlib.sha256)


def _subscription(private: str, public: str) -> Subscription:
    return Subscription(bytes.fromhex(private), bytes.fromhex(public))


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
