"""``bitrix-pull emulator``: a portal and its push server on this machine."""

import asyncio
import errno
import os
from shlex import quote

import orjson

from bitrix_pull.cli.output import people_console
from bitrix_pull.cli.streams import say, write_line
from bitrix_pull.emulator import Emulator
from bitrix_pull.errors import InvalidArgument, PullError
from bitrix_pull.portal.addresses import is_loopback


async def emulator(host: str, port: int, security_key: str | None, *, as_json: bool) -> None:
    """Serve until cancelled.

    Raises:
        InvalidArgument: The host is no name and no IPv4 address.
        PullError: It cannot listen there.
    """
    if not host or ":" in host or "/" in host:
        raise InvalidArgument("--host must be a name or an IPv4 address")
    if not is_loopback(host):
        say(f"Careful: whoever can reach {host} can use this portal. Its traffic is not encrypted.")
    portal = Emulator(host, port, security_key)
    try:
        await portal.start()
    except OSError as error:
        raise _cannot_listen(host, port, error) from None
    try:
        if as_json:
            write_line(orjson.dumps(_addresses(portal)))
        else:
            _explain(portal)
        await asyncio.Event().wait()
    finally:
        await portal.close()
        say("the emulator has stopped")


def _addresses(portal: Emulator) -> dict[str, str]:
    return {
        "portal": portal.portal_url,
        "webhook": portal.webhook_url,
        "token": portal.token,
        "sub": portal.sub_url,
        "subws": portal.subws_url,
        "pub": portal.pub_url,
        "rest": portal.rest_url,
        "stat": portal.stat_url,
    }


def _explain(portal: Emulator) -> None:
    console = people_console()
    console.print("An emulated Bitrix24 portal and its push server. Ctrl-C stops them.\n", style="bold")
    for name, address in _addresses(portal).items():
        console.print(f"  {name:<9}{address}", soft_wrap=True)
    commands = (
        f"export BITRIX_PULL_PORTAL={quote(portal.portal_url)}",
        f"export BITRIX_PULL_TOKEN={quote(portal.token)}",
        "bitrix-pull listen",
        """bitrix-pull publish order_update --params '{"id": 7}'""",
    )
    console.print("\nIn other terminals:\n", style="bold")
    for command in commands:
        # Never folded: it is there to be copied.
        console.print(f"  {command}", style="cyan", soft_wrap=True)


def _cannot_listen(host: str, port: int, error: OSError) -> PullError:
    if error.errno == errno.EADDRINUSE:
        return PullError(f"port {port} on {host} is in use", advice="Choose another one with --port.")
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    return PullError(f"cannot listen on {host}:{port}: {reason or 'unknown host'}")
