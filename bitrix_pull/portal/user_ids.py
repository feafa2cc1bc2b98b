"""Users, as they are named to a portal."""

import re
from collections.abc import Iterable
from typing import Final

from bitrix_pull.errors import InvalidArgument

_USER_ID: Final = re.compile(r"0*([1-9][0-9]{0,17})")


def check_user_ids(users: int | Iterable[int]) -> tuple[int, ...]:
    """Return the ids of some users, at least one, each of them once and in their order.

    Raises:
        InvalidArgument: They are none.
    """
    if isinstance(users, str | bytes) or not isinstance(users, int | Iterable):
        raise InvalidArgument(f"users must be user ids as integers, not {type(users).__name__}")
    ids = (users,) if isinstance(users, int) else tuple(users)
    if not ids:
        raise InvalidArgument("users is empty: name at least one, or leave it out where that is possible")
    for user in ids:
        if not isinstance(user, int) or isinstance(user, bool) or user < 1:
            raise InvalidArgument(f"{user!r:.40} is no user id: use integers from 1")
    return tuple(dict.fromkeys(ids))


def read_user_id(told: object) -> int | None:
    """Return the id of a user as a portal tells it, a number or its digits; None if it is none."""
    found = _USER_ID.fullmatch(str(told)) if isinstance(told, int | str) else None
    return None if found is None else int(found[1])
