"""OAuth: an installed application's tokens, and their refresh (protocol §2)."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, TypeVar
from urllib.parse import urlsplit

from bitrix_pull.errors import InvalidArgument, NotRunning, PortalError, PullError
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.addresses import (
    named_oauth_address,
    oauth_address,
    read_address,
    rest_endpoint,
)
from bitrix_pull.portal.answers import read_token_answer
from bitrix_pull.portal.auth import Credentials, Owner, check_credentials
from bitrix_pull.portal.destinations import Destinations
from bitrix_pull.portal.foreign_errors import described
from bitrix_pull.portal.http import HttpAnswer, HttpSession
from bitrix_pull.portal.portal_clock import Moment
from bitrix_pull.portal.token_files import DiskTokenStore, FileTokenStore
from bitrix_pull.portal.token_stores import (
    LockedStore,
    MemoryTokenStore,
    TokenStore,
    UsersStore,
)
from bitrix_pull.portal.tokens import Tokens, require_token
from bitrix_pull.portal.user_ids import read_user_id
from bitrix_pull.redaction import get_logger, quoted
from bitrix_pull.telemetry import log_fields

_log = get_logger("portal")

T = TypeVar("T")
OnToken = Callable[[Tokens], Awaitable[object] | object]

OAUTH_URL = "https://oauth.bitrix.info/oauth/token/"
"""Where tokens are refreshed unless they name another of Bitrix24's OAuth servers (protocol §2)."""

_OTHERS_SAVE_AFTER_S = (0.0, 0.1, 0.4)
"""When to look whether a refresh token was refused because another program has just spent it."""

_REFUSED_FOR_S = 60.0
"""How long what the OAuth server has refused is not asked for again."""

_ON_TOKEN_S = 5.0
"""How long ``close()`` waits for a callback that is under way."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """What the OAuth server refused for good."""

    refresh_token: str = field(repr=False)
    error: PortalError
    at: Moment


class OAuth(Credentials):
    """An installed application's tokens, which are refreshed when they have expired.

    Every refresh replaces the refresh token, and two at once lose the grant (protocol §2).
    So there is never more than one at a time among all who share a store, it is not cut off
    when its caller is cancelled, and new tokens are stored before they are used.

    Args:
        portal: The portal's domain, its address, or what it gives as ``client_endpoint``.
        client_id: The application's id.
        client_secret: The application's secret key.
        tokens: Where the tokens are: the path of a JSON file that holds them as the OAuth
            server writes them (see ``FileTokenStore``), any other ``TokenStore``, or the
            tokens themselves, which are then renewed in memory only.
        oauth_url: The OAuth server's token endpoint. By default the one that the tokens
            name as their ``server_endpoint``, if that is one of Bitrix24's own.
        on_token: Called with the new ``Tokens`` when this object has refreshed and stored them.
            Async or not; what it raises is logged. Nothing waits for it but ``close()``, and
            that for 5 s only.

    Raises:
        InvalidArgument: One of them cannot work.
    """

    def __init__(
        self,
        portal: str,
        *,
        client_id: str,
        client_secret: str,
        tokens: str | PathLike[str] | Tokens | Mapping[str, Any] | TokenStore,
        oauth_url: str | None = None,
        on_token: OnToken | None = None,
    ) -> None:
        self.endpoint: str = rest_endpoint(portal)
        self._client_id = require_token("client_id", client_id)
        self._client_secret = require_token("client_secret", client_secret)
        self._oauth_url = None if oauth_url is None else oauth_address(oauth_url)
        if on_token is not None and not callable(on_token):
            raise InvalidArgument("on_token must be a function that takes Tokens")
        self._on_token = on_token
        self._store = _as_store(tokens)
        self._tokens: Tokens | None = None
        self.refreshes: int = 0
        self.failed_refreshes: Mapping[str, int] = {}
        self._unsaved: tuple[Tokens, Tokens] | None = None
        """Tokens that were spent, and the new ones that could not be stored yet."""
        self._refusal: _Refusal | None = None
        self._renewal: asyncio.Task[Tokens] | None = None
        self._telling = set[asyncio.Task[None]]()

    @classmethod
    async def authorize(
        cls,
        code: str,
        portal: str,
        *,
        client_id: str,
        client_secret: str,
        tokens: str | PathLike[str] | TokenStore | None = None,
        oauth_url: str | None = None,
        on_token: OnToken | None = None,
        options: PullOptions | None = None,
    ) -> "OAuth":
        """Trade the code of an authorisation for the first tokens, and store them (protocol §2).

        The code is what the OAuth server sends the user's browser back with, beside the
        portal's ``domain``. It is good once, and for half a minute.

        Example:
            query = request.query
            auth = await OAuth.authorize(
                query["code"], query["domain"], client_id=…, client_secret=…, tokens="acme.json"
            )

        Args:
            code: From the address that the browser came back to.
            portal: As for ``OAuth``.
            client_id: The application's id.
            client_secret: The application's secret key.
            tokens: Where to keep them: a path, or a ``TokenStore``; None: in memory only.
            oauth_url: As for ``OAuth``.
            on_token: As for ``OAuth``; it is called with these tokens too.
            options: Deadlines, proxy and TLS.

        Returns:
            Credentials to make clients with.

        Raises:
            InvalidArgument: An argument cannot work; nothing was sent.
            TokenStoreFailed: The store raised something, or was locked for too long.
            PortalError: The OAuth server refused; GrantRefused if the code is not good (any more).
            Unreachable: It did not answer.
        """
        require_token("the code", code)
        if isinstance(tokens, Tokens | Mapping):
            raise InvalidArgument("authorize() gets the tokens: name the file or store to keep them in")
        auth = cls(
            portal,
            client_id=client_id,
            client_secret=client_secret,
            tokens=MemoryTokenStore() if tokens is None else tokens,
            oauth_url=oauth_url,
            on_token=on_token,
        )
        options = options or PullOptions()
        check_credentials(auth, options)
        http = HttpSession(options, None, Destinations(options, portal=auth.endpoint, named=auth.addresses))
        try:
            # Whoever shares the store must not refresh what is replaced. It also shows that the
            # tokens can be stored, before the code is spent.
            async with auth._store.lock(options.rest_timeout_s) as store:
                await _to_the_end(auth._first_trade(code, store, http, options))
        finally:
            await http.close()
        return auth

    @property
    def identity(self) -> str:
        """The portal's domain and the application's id."""
        return f"{super().identity} {self._client_id}"

    async def owner(self) -> Owner:
        """Return portal, application and user, as far as the tokens name them."""
        fields = (await self._present()).fields
        member_id = fields.get("member_id")
        return Owner(
            urlsplit(self.endpoint).netloc,
            member_id if isinstance(member_id, str) and member_id.isalnum() else "",
            self._client_id,
            read_user_id(fields.get("user_id")),
        )

    @property
    def store(self) -> TokenStore:
        """Where the tokens are kept."""
        return self._store

    def record(self) -> dict[str, Any]:
        """Return, as JSON values, what makes these credentials again, beside the tokens. A secret is in it.

        Raises:
            InvalidArgument: ``on_token`` is set, which nobody can write down.
        """
        if self._on_token is not None:
            raise InvalidArgument(
                "credentials with on_token= cannot be written down", advice="Watch the token store instead."
            )
        application = {"client_id": self._client_id, "client_secret": self._client_secret}
        return {"portal": self.endpoint, **application, "oauth_url": self._oauth_url}

    @property
    def addresses(self) -> tuple[str, ...]:
        """The portal and the OAuth server, as far as the user names them."""
        return (self.endpoint, self._oauth_url or OAUTH_URL)

    @property
    def secrets(self) -> Iterable[str]:
        """The application's secret and the tokens."""
        yield self._client_secret
        for tokens in (self._tokens, *(self._unsaved or ())):
            if tokens is not None:
                yield from (tokens.access_token, tokens.refresh_token)

    # -- what calls are made with -----------------------------------------------

    async def token(self, http: HttpSession, options: PullOptions) -> str:
        """Return an access token that has not expired, by the portal's clock."""
        tokens = await self._present()
        if tokens.expired(http.clock.now()):
            return await self.renew(tokens.access_token, http, options)
        return tokens.access_token

    async def expires_unix(self) -> float | None:
        """Return when the present access token expires, as it says itself."""
        return (await self._present()).expires

    async def _present(self) -> Tokens:
        if self._tokens is None:
            loaded = await self._store.load()
            # Another call may have renewed them meanwhile.
            self._tokens = self._tokens or loaded
        return self._tokens

    async def renew(self, refused: str, http: HttpSession, options: PullOptions) -> str:
        """Return an access token other than the refused one, refreshing it if need be.

        Raises:
            InvalidArgument: The tokens cannot be read or written.
            TokenStoreFailed: The store raised something, or was locked for too long.
            PortalError: The OAuth server refused; GrantRefused if for good.
            Unreachable: The OAuth server did not answer.
            NotRunning: ``close()`` was called before the refresh began.
        """
        if self._tokens is not None and self._tokens.access_token != refused:
            return self._tokens.access_token
        renewal = self._under_way()
        if renewal is None:
            renewal = self._renewal = asyncio.create_task(self._renew(refused, http, options))
            # Whoever waited may be gone by then; the next call refreshes again.
            renewal.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.wait({renewal})
        if renewal.cancelled():
            raise NotRunning("the client was closed before its access token was refreshed")
        return renewal.result().access_token

    def _under_way(self) -> asyncio.Task[Tokens] | None:
        """Return the refresh under way. One of an event loop that is gone does not count."""
        renewal = self._renewal
        if renewal is None or renewal.done() or renewal.get_loop() is not asyncio.get_running_loop():
            return None
        return renewal

    @property
    def unsaved(self) -> bool:
        """True while there are new tokens that could not be stored yet."""
        return self._unsaved is not None

    async def store_unsaved(self) -> None:
        """Store new tokens that could not be stored, for whoever refreshes next; a client does so by itself.

        It takes no lock: what is stored was spent for them, so nobody can get others meanwhile.

        Raises:
            TokenStoreFailed: The store still fails.
            InvalidArgument: The tokens there cannot be read, or written.
        """
        if self._unsaved is None or self._under_way() is not None:
            return
        # A call that needs another token meanwhile waits for it, as for a refresh.
        renewal = self._renewal = asyncio.create_task(self._store_renewed(*self._unsaved))
        renewal.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.wait({renewal})
        if not renewal.cancelled():
            renewal.result()

    async def _store_renewed(self, spent: Tokens, renewed: Tokens) -> Tokens:
        stored = await self._store.load()
        if stored.refresh_token == spent.refresh_token:
            await self._keep(spent, renewed, self._store)
            return renewed
        # They were stored after all, or somebody has authorised the application again.
        self._unsaved = None
        return stored

    async def close(self) -> None:
        """Wait for a refresh under way: its answer is the only copy of the new tokens."""
        renewal = self._under_way()
        if renewal is not None:
            if not renewal.cancelling():
                renewal.cancel()  # Only what has not begun yet heeds it.
            await asyncio.wait({renewal})
        here = asyncio.get_running_loop()
        telling = {task for task in self._telling if task.get_loop() is here} - {asyncio.current_task()}
        if telling:
            _, late = await asyncio.wait(telling, timeout=_ON_TOKEN_S)
            for task in late:
                task.cancel()

    # -- one refresh -----------------------------------------------------------

    async def _renew(self, refused: str, http: HttpSession, options: PullOptions) -> Tokens:
        refusal = self._refusal
        try:
            return await self._renewed(refused, http, options)
        except PullError as error:
            # What is only said again was not tried again.
            if refusal is None or error is not refusal.error:
                name = type(error).__name__
                self.failed_refreshes = {
                    **self.failed_refreshes,
                    name: self.failed_refreshes.get(name, 0) + 1,
                }
            raise

    async def _renewed(self, refused: str, http: HttpSession, options: PullOptions) -> Tokens:
        async with self._store.lock(options.rest_timeout_s) as store:
            stored = await self._stored(store)
            if stored.access_token != refused and not stored.expired(http.clock.now()):
                # Somebody else has renewed what is in the store.
                self._tokens = stored
                return stored
            self._raise_refusal(stored)
            # Shows that tokens can be stored, before the one refresh token is spent.
            await store.save(stored)
            self._tokens = stored
            self._tokens = await _to_the_end(self._trade(stored, store, http, options))
            return self._tokens

    async def _stored(self, store: TokenStore) -> Tokens:
        """Return the tokens in the store, after putting there what could not be stored before."""
        stored = await store.load()
        if self._unsaved is None:
            return stored
        spent, renewed = self._unsaved
        if stored.refresh_token == spent.refresh_token:
            await self._keep(spent, renewed, store)
            return renewed
        # They were stored after all, or somebody has authorised the application again.
        self._unsaved = None
        if stored.refresh_token == renewed.refresh_token:
            self._tell(renewed)
        return stored

    async def _trade(
        self, spent: Tokens, store: TokenStore, http: HttpSession, options: PullOptions
    ) -> Tokens:
        """Trade a refresh token for new tokens, and store these."""
        answer = await self._ask(
            http, options, self._oauth_address(spent), "refresh_token", refresh_token=spent.refresh_token
        )
        try:
            renewed = spent.renewed(read_token_answer(answer, self.secrets), http.clock.now())
        except PortalError as error:
            return await self._renewed_by_others(spent, store, error)
        self.refreshes += 1
        await self._keep(spent, renewed, store)
        self._report_move(renewed)
        return renewed

    async def _first_trade(
        self, code: str, store: TokenStore, http: HttpSession, options: PullOptions
    ) -> None:
        """Trade a code for tokens, and store these."""
        answer = await self._ask(http, options, self._oauth_url or OAUTH_URL, "authorization_code", code=code)
        content = read_token_answer(answer, (*self.secrets, code))
        self._tokens = Tokens.granted(content, http.clock.now())
        await store.save(self._tokens)
        self._tell(self._tokens)
        self._report_move(self._tokens)

    async def _ask(
        self, http: HttpSession, options: PullOptions, address: str, grant_type: str, **grant: str
    ) -> HttpAnswer:
        application = {"client_id": self._client_id, "client_secret": self._client_secret}
        answer = await http.request(
            "GET",
            address,
            query={"grant_type": grant_type, **application, **grant},
            timeout_s=options.rest_timeout_s,
            max_bytes=options.max_rest_bytes,
        )
        _log.debug("OAuth %s: HTTP %d", grant_type, answer.status, extra=log_fields(status=answer.status))
        return answer

    async def _keep(self, spent: Tokens, renewed: Tokens, store: TokenStore) -> None:
        self._unsaved = spent, renewed
        await store.save(renewed)
        self._unsaved = None
        self._tell(renewed)

    def _tell(self, tokens: Tokens) -> None:
        """Let the user's callback run in a task of its own: no call waits for it."""
        if self._on_token is not None:
            task = asyncio.create_task(_call(self._on_token, tokens))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _renewed_by_others(self, spent: Tokens, store: TokenStore, error: PortalError) -> Tokens:
        """Return what a program that does not know our lock has stored meanwhile, or raise."""
        if error.code.lower() == "invalid_grant":
            for pause_s in _OTHERS_SAVE_AFTER_S:
                await asyncio.sleep(pause_s)
                stored = await store.load()
                if stored.refresh_token != spent.refresh_token:
                    return stored
        if error.code and not error.retryable:
            self._refusal = _Refusal(spent.refresh_token, error, Moment.now())
        raise error

    def _raise_refusal(self, tokens: Tokens) -> None:
        """Leave the OAuth server alone for a while if it has just refused the same tokens."""
        refusal = self._refusal
        if refusal is None or refusal.refresh_token != tokens.refresh_token:
            return
        if refusal.at.elapsed_s < _REFUSED_FOR_S:
            raise refusal.error.with_traceback(None)

    # -- what tokens say about addresses --------------------------------------------

    def _oauth_address(self, tokens: Tokens) -> str:
        """Return where to refresh: credentials go to no host because a server names it."""
        named = tokens.fields.get("server_endpoint")
        if self._oauth_url is not None or not isinstance(named, str):
            return self._oauth_url or OAUTH_URL
        try:
            return named_oauth_address(named)
        except ValueError as error:
            _log.warning("server_endpoint of the tokens %s: %s is used", error, OAUTH_URL)
            return OAUTH_URL

    def _report_move(self, tokens: Tokens) -> None:
        """Say that the portal has another address, which is not followed.

        A renamed portal answers at its old domain with a redirect, which is an error.
        """
        own = read_address(self.endpoint, ("https", "http")).host
        try:
            named = read_address(str(tokens.fields.get("client_endpoint")), ("https", "http")).host
        except ValueError:
            return
        if named != own:
            _log.warning(
                "the OAuth server names another address for %s: %s. Configure it if the portal was renamed",
                own,
                quoted(named, [secret.lower() for secret in self.secrets]),
            )

    def __repr__(self) -> str:
        return f"OAuth({self.endpoint})"


def _as_store(tokens: str | PathLike[str] | Tokens | Mapping[str, Any] | TokenStore) -> LockedStore:
    match tokens:
        case str() | PathLike():
            return FileTokenStore(tokens)
        case Tokens():
            return MemoryTokenStore(tokens)
        case Mapping():
            return MemoryTokenStore(Tokens.read(tokens))
        case MemoryTokenStore() | DiskTokenStore():
            return tokens
        case TokenStore():
            return UsersStore(tokens)
        case _:
            raise InvalidArgument("the tokens are no path, Tokens, mapping or TokenStore")


async def _call(on_token: OnToken, tokens: Tokens) -> None:
    try:
        result = on_token(tokens)
        if inspect.isawaitable(result):
            await result
    except Exception as error:
        # Not its text, which may hold the tokens.
        _log.error("on_token raised %s", described(error))


async def _to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Finish something even if the caller is cancelled meanwhile."""
    doing = asyncio.create_task(work)
    # Whoever was cancelled does not ask how it ended.
    doing.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait({doing})
        raise
