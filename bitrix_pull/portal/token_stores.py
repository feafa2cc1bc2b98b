"""Where OAuth tokens are kept between refreshes, in memory or wherever the user keeps them."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Protocol, TypeVar, runtime_checkable
from weakref import WeakValueDictionary

from bitrix_pull.errors import InvalidArgument, PullError, TokenStoreFailed
from bitrix_pull.portal.foreign_errors import described, is_failure
from bitrix_pull.portal.token_locks import ProcessLock
from bitrix_pull.portal.tokens import Tokens
from bitrix_pull.redaction import get_logger

_log = get_logger("portal")

T = TypeVar("T")

AUTHORISE = "Authorise the application on the portal, and store there what the OAuth server answers."
"""What helps where a store holds no tokens."""


def member_of(tokens: Tokens) -> str:
    """Return the ``member_id`` of the portal that tokens are for, or "" where they do not tell it."""
    member_id = tokens.fields.get("member_id")
    return member_id if isinstance(member_id, str) else ""


@runtime_checkable
class TokenStore(Protocol):
    """Keeps the tokens of one application on one portal. A store of your own needs these two.

    Where several processes share it, give it a method ``lock()`` too, which returns an
    async context manager: each refresh then happens inside. Without one, only the tasks of
    one process are kept from refreshing twice.

    ``save`` is also called with unchanged tokens before each refresh, to show that it
    works while the refresh token is still good.
    """

    async def load(self) -> Tokens:
        """Return the tokens that were saved last."""
        ...

    async def save(self, tokens: Tokens, /) -> None:
        """Keep new tokens; when it returns, a crash cannot undo it."""
        ...


class LockedStore(TokenStore, Protocol):
    """A store that can keep everyone else from refreshing the same tokens."""

    def lock(self, timeout_s: float) -> AbstractAsyncContextManager[TokenStore]:
        """Hold the store; what is entered loads and saves meanwhile.

        Raises:
            TokenStoreFailed: Somebody else held it for ``timeout_s``.
            InvalidArgument: It cannot be used.
        """
        ...


class MemoryTokenStore:
    """Keeps tokens for as long as the process lives: they are lost with it.

    Args:
        tokens: The first ones, if there are any yet.
    """

    def __init__(self, tokens: Tokens | None = None) -> None:
        self._tokens = tokens
        self._lock = ProcessLock()

    async def load(self) -> Tokens:
        """Return the tokens.

        Raises:
            InvalidArgument: There are none.
        """
        if self._tokens is None:
            raise InvalidArgument("the token store holds no tokens", advice=AUTHORISE)
        return self._tokens

    async def save(self, tokens: Tokens, /) -> None:
        """Replace the tokens."""
        self._tokens = tokens

    async def members(self) -> tuple[str, ...]:
        """Return whose tokens it holds: their portal's ``member_id``, "" where they do not tell."""
        return () if self._tokens is None else (member_of(self._tokens),)

    async def delete(self) -> None:
        """Forget the tokens, as where the application was uninstalled."""
        self._tokens = None

    @asynccontextmanager
    async def lock(self, timeout_s: float) -> AsyncGenerator[TokenStore]:
        """Keep others in this process from refreshing."""
        async with self._lock.held(timeout_s):
            yield self


_locks = WeakValueDictionary[int, ProcessLock]()
"""By the ids of users' stores. An entry goes with the last ``OAuth`` that has the store."""


class UsersStore:
    """Stands before a store of the user's own: locks it, gives it deadlines, reports what it raises.

    Texts of foreign errors are not passed on: they may hold the tokens that were saved.
    """

    def __init__(self, store: TokenStore) -> None:
        self._store = store
        self._name = type(store).__name__
        self._lock = _locks.setdefault(id(store), ProcessLock())

    @property
    def users(self) -> TokenStore:
        """The store that it stands before."""
        return self._store

    async def load(self) -> Tokens:
        """Load from the user's store.

        Raises:
            TokenStoreFailed: It raised something.
            InvalidArgument: It returned something else than tokens.
        """
        tokens = await self._told("load", self._store.load)
        if not isinstance(tokens, Tokens):
            raise InvalidArgument(
                f"load() of {self._name} returned {type(tokens).__name__}, not Tokens", advice=AUTHORISE
            )
        return tokens

    async def save(self, tokens: Tokens, /) -> None:
        """Save to the user's store.

        Raises:
            TokenStoreFailed: It raised something.
        """
        await self._told("save", lambda: self._store.save(tokens))

    @asynccontextmanager
    async def lock(self, timeout_s: float) -> AsyncGenerator[TokenStore]:
        """Hold the lock of this process, and the store's own if it has one."""
        async with self._lock.held(timeout_s):
            own = AsyncExitStack()
            await self._told("lock", lambda: _within(timeout_s, self._enter_its_own(own)))
            try:
                yield _Timed(self, timeout_s)
            finally:
                try:
                    await self._told("lock", lambda: _within(timeout_s, own.aclose()))
                except PullError as error:
                    # The tokens are stored by now.
                    _log.warning("the token store could not be unlocked: %s", error)

    async def _enter_its_own(self, stack: AsyncExitStack) -> None:
        lock: Callable[[], AbstractAsyncContextManager[object]] | None = getattr(self._store, "lock", None)
        if callable(lock):
            await stack.enter_async_context(lock())

    async def _told(self, method: str, call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await call()
        except PullError:
            raise
        except BaseException as error:
            if not is_failure(error):
                raise
            raise TokenStoreFailed(f"{method}() of {self._name} raised {described(error)}") from None


def own_store(store: TokenStore) -> TokenStore:
    """Return the store that the user has given, whatever stands before it."""
    return store.users if isinstance(store, UsersStore) else store


class _Timed:
    """A store whose every answer has a deadline."""

    def __init__(self, store: TokenStore, timeout_s: float) -> None:
        self._store = store
        self._timeout_s = timeout_s

    async def load(self) -> Tokens:
        return await _within(self._timeout_s, self._store.load())

    async def save(self, tokens: Tokens, /) -> None:
        await _within(self._timeout_s, self._store.save(tokens))


async def _within(timeout_s: float, awaitable: Awaitable[T]) -> T:
    deadline = asyncio.timeout(timeout_s)
    try:
        async with deadline:
            return await awaitable
    except TimeoutError:
        if not deadline.expired():
            raise  # The store's own.
        raise TokenStoreFailed(f"the token store did not answer within {timeout_s:g} s") from None
