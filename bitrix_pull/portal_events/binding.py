"""Which of its events the portal queues for this application (protocol §10)."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, cast

from bitrix_pull.errors import EventNotFound, PortalError, PullError, WrongAuthType, WrongLicense
from bitrix_pull.flag import Flag
from bitrix_pull.portal.auth import Mode
from bitrix_pull.portal.batches import BATCH_MAX, Call, call_batch
from bitrix_pull.portal.config import ConfigFetcher
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.redaction import get_logger
from bitrix_pull.wire.messages import is_object

logger: Final = get_logger("portal_events")

_ALREADY_BOUND = "already binded"


class Bindings:
    """Binds offline handlers of one connector, and unbinds them only when told to.

    What somebody else binds at the same time is as good as bound by us.
    """

    def __init__(self, rest: RestClient, mode: Mode, connector: str) -> None:
        """Call the portal through ``rest``."""
        self._rest = rest
        self._mode: Mode = mode
        self._connector = connector
        self._common: Mapping[str, Any] = {"auth_connector": connector} if connector else {}
        self.names: frozenset[str] = frozenset()
        """What is bound, as far as it is known."""

    async def fetch(self) -> frozenset[str]:
        """Ask the portal what is bound, and return it.

        Raises:
            PullError: It did not say.
        """
        self._check_mode()
        try:
            handlers = await self._rest.call("event.get", self._common)
        except WrongLicense as error:
            raise self._without_connector(error) from None
        self.names = frozenset(
            handler["event"].upper()
            for handler in _items(handlers)
            if is_object(handler)
            and isinstance(handler.get("event"), str)
            and str(handler.get("offline")) == "1"
            and (handler.get("connector_id") or "") == self._connector
        )
        return self.names

    async def ensure(self, names: Collection[str]) -> None:
        """Bind what is not known to be bound; see ``bind``."""
        if not self.names.issuperset(names):
            await self.bind(names)

    async def bind(self, names: Collection[str]) -> None:
        """Bind what is not bound yet.

        Raises:
            WrongAuthType: These are no credentials of an application.
            AccessDenied: They are not an administrator's.
            EventNotFound: The portal does not know one of the events, or the application
                lacks its scope; the text names all of them.
            WrongLicense: The portal's plan has no connectors.
            PullError: The portal could not be asked.
        """
        missing = sorted(frozenset(names) - await self.fetch())
        outcomes = await self._each("event.bind", missing)
        unknown = [name for name, outcome in outcomes.items() if isinstance(outcome, EventNotFound)]
        if unknown:
            raise EventNotFound(
                f"the portal has no event {', '.join(unknown)} for this application",
                code="ERROR_EVENT_NOT_FOUND",
                method="event.bind",
            )
        for name, outcome in outcomes.items():
            if isinstance(outcome, PullError) and _ALREADY_BOUND not in str(outcome):
                raise outcome
            logger.info("bound %s", name)
        self.names |= frozenset(missing)

    async def unbind(self, names: Collection[str]) -> int:
        """Let the portal queue these no more; return how many of them it did queue.

        Raises:
            PullError: The portal refused it, or could not be asked.
        """
        self._check_mode()
        outcomes = await self._each("event.unbind", sorted(names))
        self.names -= frozenset(names)
        for outcome in outcomes.values():
            if isinstance(outcome, PullError):
                raise outcome
        counts = [outcome.get("count") for outcome in outcomes.values() if is_object(outcome)]
        return sum(count for count in counts if isinstance(count, int))

    async def available(self) -> list[str]:
        """Return the names that the application may bind, as the portal has them.

        Raises:
            PullError: It did not say.
        """
        self._check_mode()
        names = await self._rest.call("events", self._common)
        return [name for name in _items(names) if isinstance(name, str)]

    async def _each(self, method: str, names: list[str]) -> dict[str, Any]:
        """Call a method for each name, in few requests; errors are among the results."""
        outcomes: dict[str, Any] = {}
        for begin in range(0, len(names), BATCH_MAX):
            chunk = names[begin : begin + BATCH_MAX]
            calls: list[Call] = [(method, {"event": name, "event_type": "offline"}) for name in chunk]
            if len(calls) == 1:
                try:
                    results = [await self._rest.call(method, {**calls[0][1], **self._common})]
                except PortalError as error:
                    results = [error]
            else:
                results = await call_batch(self._rest, calls, self._common)
            outcomes.update(zip(chunk, results, strict=True))
        return outcomes

    def _check_mode(self) -> None:
        if self._mode != "application":
            raise WrongAuthType(
                "the portal's events are queued for applications only",
                code="WRONG_AUTH_TYPE",
                advice="Use OAuth or AccessToken of an installed application, of an administrator;"
                " a webhook has no queue.",
            )

    def _without_connector(self, error: WrongLicense) -> WrongLicense:
        return WrongLicense(
            f"the portal's plan has no exchange channels, so connector={self._connector!r} cannot be used",
            code=error.code,
            status=error.status,
            method=error.method,
            advice="Leave out options.connector, or extend the portal's plan.",
        )


def _items(answer: object) -> list[object]:
    return cast("list[object]", answer) if isinstance(answer, list) else []


class BindingFetcher(ConfigFetcher):
    """Binds what is wanted before the first configuration is fetched.

    So nothing that happens after a client is live goes by unnoticed, and an event that
    cannot be bound is an error of its start like any other.
    """

    def __init__(
        self, rest: RestClient, mode: Mode, bindings: Bindings, wanted: Callable[[], Collection[str]]
    ) -> None:
        """Bind what ``wanted`` gives."""
        super().__init__(rest, mode)
        self._bindings = bindings
        self._wanted = wanted
        self.fetched: Flag = Flag()
        """Set once there was a configuration, so that everything is bound."""

    async def fetch(self, *, cache: bool = True) -> PullConfig:
        """See ``ConfigFetcher``; the errors of ``Bindings.bind`` are added."""
        await self._bind()
        config = await super().fetch(cache=cache)
        self.fetched.set()
        return config

    async def inherit(self, config: PullConfig) -> None:
        """See ``ConfigFetcher``; raises as ``Bindings.bind`` does."""
        await self._bind()
        await super().inherit(config)
        self.fetched.set()

    async def _bind(self) -> None:
        if not self.fetched.is_set() and (wanted := self._wanted()):
            await self._bindings.bind(wanted)
