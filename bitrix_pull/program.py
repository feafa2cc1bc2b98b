"""``bitrix_pull.run``: a client as a whole program, with a log, signals and an exit code."""

import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import Callable, Generator
from typing import Final, Literal, Protocol, get_args

from bitrix_pull.errors import InvalidArgument, PullError
from bitrix_pull.exits import exit_code
from bitrix_pull.redaction import get_logger
from bitrix_pull.telemetry import JsonFormatter

logger: Final = get_logger("program")

LogFormat = Literal["text", "json"]

_USUAL_THRESHOLDS: Final = {(700, 10, 10), (2000, 10, 10), (2000, 10, 0)}
"""Those that Python 3.11 to 3.14 begin with."""

_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


class Service(Protocol):
    """What runs until it is closed, such as a ``PullClient``."""

    async def run(self) -> None:
        """Serve until closed."""
        ...

    async def close(self, drain: float | None = None) -> None:
        """Finish what was begun, and end ``run``."""
        ...


def run(service: Service, *, log_level: int | str = "INFO", log_format: LogFormat = "text") -> None:
    """Run a client until Ctrl-C or SIGTERM, as the whole of a program.

    Logging goes to stderr from ``log_level`` on, and Python's garbage collector runs less often
    (see ``collect_less_often``), unless the program has set them up itself: what you have
    configured stays as it is. The first signal ends the client as
    ``close()`` does: handlers may finish within ``options.close_drain_s``. A second one ends
    it at once.

    Example:
        pull = PullClient(AccessToken("acme.bitrix24.com", "…"))

        @pull.on("order_update")
        async def handle(event: PullEvent) -> None:
            print(event.params)

        bitrix_pull.run(pull)

    Args:
        service: What to run.
        log_level: A level of ``logging``, by name or number.
        log_format: "json" for one JSON object a line; see ``telemetry.LogFields``.

    Raises:
        InvalidArgument: There is no such level or format.
        RuntimeError: An event loop runs here already, as in a notebook.
        SystemExit: The client failed for good; the log says why. The code is that of the
            command line: 3 if a person must act, 2 if an argument cannot work, else 1.
    """
    _refuse_to_run_in_a_loop()
    _set_up_logging(log_level, log_format)
    collect_less_often()
    try:
        asyncio.run(_until_stopped(service))
    except PullError as error:
        # A failure of the stream stands in the log already.
        raise SystemExit(exit_code(error)) from None
    except KeyboardInterrupt:
        # Where the loop takes no signal handlers, as on Windows.
        return


def collect_less_often() -> None:
    """Let the garbage collector look for cycles less often, unless that was set up already.

    A hub with 250 portals has so many objects that Python, as it comes, looks through all of them
    several times while they start: 0.3 to 0.6 s each time, in which nothing else happens, and a
    seventh of all CPU time. With this it is a tenth of a second now and then.
    """
    if gc.get_threshold() in _USUAL_THRESHOLDS:
        gc.set_threshold(10_000, 10, 10)


def _refuse_to_run_in_a_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "bitrix_pull.run() is a whole program, and an event loop runs here already: await it there: "
        "await pull.run(), or: async with pull:"
    )


async def _until_stopped(service: Service) -> None:
    serving = asyncio.ensure_future(service.run())
    closing: list[asyncio.Task[None]] = []

    def stop(signal_number: int) -> None:
        if not closing:
            logger.info("%s: finishing; again to end at once", signal.Signals(signal_number).name)
        # Whoever asks twice has waited long enough for the handlers.
        closing.append(asyncio.ensure_future(service.close(drain=0 if closing else None)))

    with stop_signals(stop):
        await serving
        await asyncio.gather(*closing)


@contextlib.contextmanager
def stop_signals(stop: Callable[[int], None]) -> Generator[None]:
    """Call ``stop`` with the number of each SIGINT and SIGTERM, in the event loop.

    On Windows, and in other threads than the main one, nothing is changed.
    """
    loop = asyncio.get_running_loop()
    handled: list[signal.Signals] = []
    with contextlib.suppress(NotImplementedError, RuntimeError):
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
            handled.append(number)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


def _set_up_logging(level: int | str, log_format: LogFormat) -> None:
    """Show the log on stderr, unless the program has said where its log goes."""
    try:
        level = logging.Handler(level.upper() if isinstance(level, str) else level).level
    except (ValueError, TypeError):
        raise InvalidArgument(
            f"there is no log level {level!r:.40}", advice='Name one of logging\'s, such as "INFO".'
        ) from None
    if log_format not in get_args(LogFormat):
        raise InvalidArgument(f'log_format must be "text" or "json", not {log_format!r:.40}')
    if not logging.getLogger("bitrix_pull").handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(_FORMAT) if log_format == "text" else JsonFormatter())
        # It does nothing where the root logger has a handler.
        logging.basicConfig(level=level, handlers=[handler])
