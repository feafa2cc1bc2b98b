"""Clients that speak to a test for a while."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bitrix_pull.client import PullClient, give_runs, runs_of
from bitrix_pull.connection.states import Lifecycle
from bitrix_pull.portal.auth import Caller, Credentials, Mode
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.publish.publisher import Publishing
from bitrix_pull.reception import Reception
from bitrix_pull.runs import Runs


@dataclass(slots=True, frozen=True)
class Loan:
    """A client that speaks to somebody else for a while, with nothing kept of it.

    Attributes:
        reception: Where its events arrive.
        lifecycle: Its state.
        mode: Whose channels it follows.
        end: Closes the client, and lets it be as it was.
    """

    reception: Reception
    lifecycle: Lifecycle
    mode: Mode
    end: Callable[[], Awaitable[None]]


def lend(
    client: PullClient,
    auth: Callable[[Mode], Credentials | Caller],
    *,
    rest: Callable[[RestClient], RestClient],
    publishing: Callable[[Publishing, Mode], Publishing],
    reception: tuple[Reception, Lifecycle] | None = None,
    options: Mapping[str, Any] = {},
) -> Loan:
    """Let a client speak to somebody else.

    Args:
        client: One that is not in use.
        auth: Gives what calls are made with, for the client's mode.
        rest: Returns what its users' own calls go through, in the place of what it is given.
        publishing: The same for what they publish, by a client of some mode.
        reception: Where events arrive, in the place of its own, and its state.
        options: Those that differ from its own.

    Raises:
        RuntimeError: It is in use.
    """
    own = runs_of(client)
    if own.run.serving or own.is_borrowed:
        raise RuntimeError(
            "this client is in use already: a TestClient takes one that is not started,"
            " and each client is in one TestClient at a time"
        )
    arriving, lifecycle = reception or (own.reception, own.lifecycle)
    changed = replace(own.options, **options)
    borrowed = Runs(
        portal=own.portal,
        rest=RestClient(auth(own.mode), options=changed),
        mode=own.mode,
        options=changed,
        reception=arriving,
        lifecycle=lifecycle,
    )
    borrowed.run.publisher = publishing(borrowed.run.publisher, own.mode)
    borrowed.rest = rest(borrowed.rest)
    borrowed.around_publishing = own.around_publishing
    borrowed.is_borrowed = True
    give_runs(client, borrowed)

    async def end() -> None:
        await client.close(drain=0)
        await borrowed.rest.close()
        give_runs(client, own)

    return Loan(arriving, lifecycle, own.mode, end)
