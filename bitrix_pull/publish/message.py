"""What a user wants to publish, checked before anything is sent."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.wire.json_text import encode_json

_COMMAND = re.compile(r"[A-Za-z0-9_:|.-]+")
_MODULE = re.compile(r"[a-z0-9._]+")


@dataclass(slots=True, frozen=True)
class Message:
    """A checked message.

    Attributes:
        users: The users whose private channels get it; None for the shared channel.
    """

    command: str
    params: Mapping[str, Any]
    module: str
    users: tuple[int, ...] | None

    @classmethod
    def check(
        cls,
        command: str,
        params: Mapping[str, Any] | None,
        module: str,
        users: int | Iterable[int] | None,
    ) -> "Message":
        """Return the message, if a portal could accept it.

        Raises:
            InvalidArgument: It could not; the text says what is wrong (the portal's own
                rules, protocol §2: COMMAND_ERROR, MODULE_ID_ERROR, PARAMS_ERROR).
        """
        if not isinstance(command, str) or not _COMMAND.fullmatch(command):
            raise InvalidArgument(
                f"command {command!r:.60} is not valid: use letters, digits and _ : | . - only "
                "(COMMAND_ERROR)"
            )
        if not isinstance(module, str) or not _MODULE.fullmatch(module):
            raise InvalidArgument(
                f"module {module!r:.60} is not valid: use lower-case letters, digits, dots "
                "and underscores only (MODULE_ID_ERROR)"
            )
        params = {} if params is None else params
        if not isinstance(params, Mapping):
            raise InvalidArgument(
                f"params must be a mapping that becomes a JSON object, not {type(params).__name__} "
                "(PARAMS_ERROR)"
            )
        message = cls(command, params, module, _check_users(users))
        message.body()
        return message

    def body(self) -> bytes:
        """Return the message as push servers carry it (protocol §5).

        Raises:
            InvalidArgument: The params are no JSON: a value of another type, NaN, a lone
                surrogate, or a cycle.
        """
        content = {"module_id": self.module, "command": self.command, "params": self.params}
        return encode_json(content)


def _check_users(users: int | Iterable[int] | None) -> tuple[int, ...] | None:
    if users is None:
        return None
    if isinstance(users, str | bytes) or not isinstance(users, int | Iterable):
        raise InvalidArgument(f"users must be user ids as integers, not {type(users).__name__}")
    ids = (users,) if isinstance(users, int) else tuple(users)
    if not ids:
        raise InvalidArgument("users is empty: leave it out to publish to the shared channel")
    for user in ids:
        if not isinstance(user, int) or isinstance(user, bool) or user < 1:
            raise InvalidArgument(f"{user!r:.40} is no user id: use integers from 1")
    return tuple(dict.fromkeys(ids))
