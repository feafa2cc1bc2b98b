"""``bitrix-pull emulator``: portals and their push servers on this machine."""

import asyncio
import errno
import os
import re
import tempfile
from collections.abc import Generator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from bitrix_pull.cli.emulator_options import EmulatorOptions, PushMode
from bitrix_pull.cli.output import people_console
from bitrix_pull.cli.streams import say, write_line
from bitrix_pull.emulator.certificates import NoOpenssl
from bitrix_pull.emulator.orders import Faults, User
from bitrix_pull.emulator.stand import Setup, Stand
from bitrix_pull.errors import InvalidArgument, PullError
from bitrix_pull.portal.addresses import is_loopback

T = TypeVar("T")


async def emulator(options: EmulatorOptions, *, as_json: bool) -> None:
    """Serve until cancelled.

    Raises:
        InvalidArgument: An option or a file is no good.
        PullError: It cannot listen there, or has no certificate.
    """
    setup = _setup(options)
    if not is_loopback(setup.host):
        encrypted = "" if setup.tls else " Its traffic is not encrypted."
        say(f"Careful: whoever can reach {setup.host} can use this portal.{encrypted}")
    with ExitStack() as end:
        async with AsyncExitStack() as stack:
            try:
                stand = await stack.enter_async_context(Stand(setup))
            except OSError as error:
                raise _cannot_listen(setup.host, setup.port, error) from None
            except NoOpenssl as missing:
                raise PullError(f"--tls: {missing}", advice="Install openssl, or do without --tls.") from None
            end.callback(say, "the emulator has stopped")
            ca_file = stack.enter_context(_authority_file(stand.authority))
            described = stand.described() | ({"ca_file": ca_file} if ca_file else {})
            if as_json:
                write_line(orjson.dumps(described))
            else:
                explain(described)
            await asyncio.Event().wait()


def _setup(options: EmulatorOptions) -> Setup:
    """Return what is to be served.

    Raises:
        InvalidArgument: An option or a file is no good.
    """
    if not options.host or ":" in options.host or "/" in options.host:
        raise InvalidArgument("--host must be a name or an IPv4 address")
    if options.mode is PushMode.SHARED and options.push_version != 4:
        raise InvalidArgument("in --mode shared the --push-version is always 4")
    if options.port + options.portals > 65_536:
        raise InvalidArgument("--port and --portals together go beyond the last port")
    return Setup(
        host=options.host,
        port=options.port,
        control_port=options.control,
        portals=options.portals,
        security_key=options.security_key,
        version=options.push_version,
        mode=options.mode.value,
        channel_life_s=options.channel_life,
        licence=options.licence.value,
        users=_read(options.users, TypeAdapter(list[User]), "--users") or [],
        faults=_faults(options.faults, options.seed),
        static=dict(map(_read_static, options.static or ())),
        gather_s=options.gather,
        latency_s=options.latency,
        rest_limit=None if options.rest_limit is None else _read_limit(options.rest_limit),
        tls=options.tls,
    )


@contextmanager
def _authority_file(authority: str) -> Generator[str]:
    """Put the authority's certificate into a file that is gone at the end; "" where there is none."""
    if not authority:
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix="bitrix-pull-") as directory:
        file = Path(directory, "ca.pem")
        file.write_text(authority)
        yield str(file)


def _faults(file: Path | None, seed: int | None) -> Faults | None:
    faults = _read(file, TypeAdapter(Faults), "--faults")
    if seed is None:
        return faults
    return Faults.model_validate({**(faults.model_dump(exclude_unset=True) if faults else {}), "seed": seed})


def _read(file: Path | None, adapter: TypeAdapter[T], option: str) -> T | None:
    if file is None:
        return None
    try:
        return adapter.validate_json(file.read_bytes())
    except OSError as error:
        raise InvalidArgument(f"{option}: {file}: {error.strerror}") from None
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise InvalidArgument(f"{option}: {file}: {place + ': ' if place else ''}{problem['msg']}") from None


def _read_static(text: str) -> tuple[str, Any]:
    method, equals, result = text.partition("=")
    try:
        if method and equals:
            return method, orjson.loads(result)
    except orjson.JSONDecodeError:
        pass
    raise InvalidArgument('--static must be METHOD=JSON, such as user.get=\'[{"ID": "1"}]\'')


def _read_limit(text: str) -> tuple[int, float]:
    burst, slash, per_s = text.partition("/")
    try:
        limit = int(burst), float(per_s) if slash else 2.0
    except ValueError:
        limit = 0, 0.0
    if not (0 < limit[0] < 10**9 and 0 < limit[1] < 10**9):
        raise InvalidArgument("--rest-limit must be BURST/PER_S, such as 50/2")
    return limit


def explain(described: dict[str, Any], *, user_mode: bool = False) -> None:
    """Tell people where the portal is, and how to use it from another terminal."""
    console = people_console()
    console.print("An emulated Bitrix24 portal and its push server. Ctrl-C stops them.\n", style="bold")
    others: list[dict[str, str]] = described.get("others", [])
    first = [(name, address) for name, address in described.items() if name != "others"]
    for name, address in first + [("portal", other["portal"]) for other in others]:
        console.print(f"  {name:<14}{address}", soft_wrap=True)
    of_application = (
        f"export BITRIX_PULL_PORTAL={quote(described['portal'])}",
        f"export BITRIX_PULL_TOKEN={quote(described['token'])}",
    )
    commands = (
        *((f"export BITRIX_PULL_WEBHOOK={quote(described['webhook'])}",) if user_mode else of_application),
        *((f"export SSL_CERT_FILE={quote(described['ca_file'])}",) if "ca_file" in described else ()),
        "bitrix-pull listen",
        """bitrix-pull publish order_update --params '{"id": 7}'""",
    )
    console.print("\nIn other terminals:\n", style="bold")
    for command in commands:
        # Never folded: it is there to be copied.
        console.print(f"  {command}", style="cyan", soft_wrap=True)


def _cannot_listen(host: str, port: int, error: OSError) -> PullError:
    if error.errno == errno.EADDRINUSE:
        # asyncio names the address: it may be that of the control API, or of another portal.
        taken = re.search(r"', (\d+)\)", str(error))
        port = int(taken[1]) if taken else port
        advice = "Choose another one with --port, or --control."
        return PullError(f"port {port} on {host} is in use", advice=advice)
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    return PullError(f"cannot listen on {host}:{port}: {reason or 'unknown host'}")
