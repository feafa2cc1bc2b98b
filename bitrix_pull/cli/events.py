"""``bitrix-pull events``: which of the portal's own events there are, and which are queued."""

from collections.abc import Sequence

import orjson
from rich.text import Text

from bitrix_pull.cli.account import Account
from bitrix_pull.cli.credentials import credentials_of, options_of
from bitrix_pull.cli.output import people_console
from bitrix_pull.cli.streams import say, write_line
from bitrix_pull.dispatch.patterns import PortalPattern
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.portal_events.binding import Bindings

_ALL = "all"


async def events(account: Account, *, connector: str, unbind: Sequence[str], as_json: bool) -> None:
    """Print the events by name, after unbinding some."""
    credentials = credentials_of(account)
    rest = RestClient(credentials, options=options_of(account))
    bindings = Bindings(rest, credentials.mode, connector)
    try:
        bound = await bindings.fetch()
        if unbind:
            named = bound if [*unbind] == [_ALL] else PortalPattern.of(unbind).events
            count = await bindings.unbind(named)
            say(f"unbound {count} event{'' if count == 1 else 's'}")
            bound -= named
        names = sorted({*await bindings.available(), *bound})
    finally:
        await rest.close()
    console = people_console()
    for name in names:
        if as_json:
            write_line(orjson.dumps({"event": name, "bound": name in bound}))
        else:
            mark = ("bound  ", "green") if name in bound else ("       ", "")
            console.print(Text.assemble(mark, (name, "bold" if name in bound else "")))
