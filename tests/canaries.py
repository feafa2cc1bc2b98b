"""No secret shows: every secret that a test uses is looked for in all that the test let out.

A pytest plugin. It watches, from outside, the places where secrets are made and taken in (the
emulator's, and what users pass), and everything that a person or a log service could get to
see: log records of every logger at DEBUG with their arguments, extra fields and tracebacks;
stdout and stderr, of child processes too; warnings; the texts of the library's errors with
all that they are chained to; notices; ``health()``; the inspector's page; the files of resume
stores. A test in whose output a secret is found fails at its end.
"""

import functools
import logging
import re
import subprocess
import traceback
import warnings
import weakref
from asyncio.base_subprocess import ReadSubprocessPipeProto
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from bitrix_pull.client import PullClient
from bitrix_pull.connection.file_store import FileStore
from bitrix_pull.connection.sqlite_store import SqliteStore
from bitrix_pull.dispatch.notices import NoticeBoard
from bitrix_pull.emulator.channels import Signer
from bitrix_pull.emulator.jwt import JwtSigner
from bitrix_pull.emulator.portal import Portal
from bitrix_pull.emulator.tokens import Tokens as EmulatedTokens
from bitrix_pull.errors import CallerFailed, PullError
from bitrix_pull.events import Notice
from bitrix_pull.inspector.tape import Tape
from bitrix_pull.portal.auth import AccessToken, Webhook
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.portal.oauth import OAuth
from bitrix_pull.portal.tokens import Tokens
from bitrix_pull.wire.channel_ids import PublicChannel
from tests.forked import Output

SHORTEST = 8
"""Shorter texts are words rather than secrets; real ones have 16 characters and more."""

SHAPES = {
    "a signed channel": r"\b[0-9a-f]{32}(?::[0-9a-f]{32})?\.[0-9a-f]{40}\b",
    "a token": r"\b[0-9a-f]{64,}\b",
    "a JWT": r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}",
    "a webhook": r"/rest/\d+/\w{8,}/",
    "an address with a secret": r"[?&](?:auth|token|\w+_token|client_secret|CHANNEL_ID|clientId)=\w{8,}",
    "a password in an address": r"://[^\s/:@]*:[^\s/:@*]+@",
}
"""What a secret looks like, also one that was made where nobody watched: in a child process."""

DELIBERATE = {
    "aiohttp.access": "The log of servers that tests put in a portal's place; the emulator writes none.",
    "websockets.server": "The log of those that tests put in a push server's place.",
    "websockets.client": "In tests of the emulator, which speak to it without our client.",
    "the cause of CallerFailed": "What a user's own REST client raised: theirs to word.",
    "bitrix-pull emulator, replay": "Print the token and the webhook of their own portal, as they should.",
    "sender of an event": "`listen --json` gives programs the whole event, and its sender is part of it.",
    "a test's own program": "Its stdout is how it talks to the test; its stderr is looked at.",
}
"""Where secrets may show, and why. Everywhere else they may not."""

_FIGURES = ("leaks", "secrets", "characters", "tests")

_SENDER = re.compile(r'"sender":\{"type":"client","id":"[0-9a-f]{32}"\}')
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def forms(secret: str) -> Iterator[str]:
    """Yield a secret as it may be written."""
    yield secret
    if (quoted := quote(secret, safe="")) != secret:
        yield quoted
    if re.fullmatch(r"(?:[0-9a-f]{2}){16,}", secret):
        raw = bytes.fromhex(secret)
        yield raw.hex(" ")
        yield repr(raw)[2:-1]


class CanaryNet:
    """Collects secrets and what is shown, and compares them at the end of each test.

    Attributes:
        tests: How many were looked at.
        secrets: How many different secrets they used.
        characters: How much text was looked through.
        leaks: How many leaks were found.
    """

    def __init__(self) -> None:
        self.tests = self.secrets = self.characters = self.leaks = 0
        self._known: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._shown: dict[str, str] = {}
        self._pipes: dict[object, tuple[Any, int, bytearray]] = {}
        self._errors = weakref.WeakSet[PullError]()
        self._seen_alive: set[int] = set()
        self._stores: set[Path] = set()
        self._module: Path | None = None
        self._records = _Records(self._see_record)
        self._patch = pytest.MonkeyPatch()

    def keep(self, kind: str, *secrets: str) -> None:
        """Take note of secrets; of a channel's id every part is one."""
        for secret in secrets:
            for part in {secret, *(re.split(r"[.:]", secret) if kind == "channel" else ())}:
                if len(part) >= SHORTEST and part not in self._known:
                    self._known[part] = (kind, tuple(forms(part)))
                    self.secrets += 1

    def see(self, place: str, text: str) -> None:
        """Take note of what was shown, and where."""
        self._shown.setdefault(text, place)

    def leaks_found(self) -> list[str]:
        """Return which secrets were shown since the last call, and where."""
        self._see_what_lasts()
        shown, self._shown = self._shown, {}
        self.characters += sum(map(len, shown))
        # As a rule there is none: looked for in all texts at once, and only what is found in each.
        if not any(self._secrets_in("\n".join(shown))):
            return []
        found = [
            f"{secret} in {place}:\n    {text[:1_000]!r}"
            for text, place in shown.items()
            for secret in self._secrets_in(text)
        ]
        self.leaks += len(found)
        return found

    def _secrets_in(self, text: str) -> Iterator[str]:
        for secret, (kind, written) in self._known.items():
            if any(map(text.__contains__, written)):
                yield f"{kind} {secret!r}"
        for kind, shape in SHAPES.items():
            if match := re.search(shape, text):
                yield f"{kind} {match[0]!r}"

    def _see_what_lasts(self) -> None:
        """Look at what was only remembered: errors that are still there, files, pipes."""
        for error in list(self._errors):
            self._see_error(error)
            self._seen_alive.add(id(error))
        self._errors.clear()
        for path in self._stores:
            if _holds_portals(path):
                continue  # Tokens are in it by right.
            for file in path.parent.glob(f"{path.name}*"):
                self.see(f"the resume store {path.name}", file.read_bytes().decode(errors="replace"))
        self._stores.clear()
        for command, fd, written in self._pipes.values():
            self._see_process(command, fd, written.decode(errors="replace"))
        self._pipes.clear()

    def _see_error(self, error: BaseException | None) -> None:
        """Look at an error and its chain, as far as a traceback shows it."""
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            shown = f"{error} {error!r} {vars(error)}"
            self.see(f"the text of {type(error).__name__}", shown)
            if isinstance(error, CallerFailed):
                break
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)

    def _see_record(self, record: logging.LogRecord) -> None:
        """Look at all that a log record carries, whether the usual format shows it or not."""
        is_emulators = self._module is not None and self._module.parent.name == "emulator"
        if record.name in DELIBERATE and (is_emulators or record.name != "websockets.client"):
            return
        shown = [record.getMessage(), repr(record.args), record.stack_info or "", record.exc_text or ""]
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            shown += traceback.format_exception(record.exc_info[1])
        shown += [f"{name}={value!r}" for name, value in vars(record).items() if name not in _STANDARD]
        self.see(f"a log record of {record.name}", "\n".join(shown))

    def _see_process(self, command: Any, fd: int, written: str) -> None:
        program = [str(part) for part in command[1:]]
        is_ours = program[:2] == ["-m", "bitrix_pull"] or "examples" in " ".join(program)
        if fd == 1 and (not is_ours or program[2:3] in (["emulator"], ["replay"])):
            return
        if fd == 1 and "--json" in program:
            written = _SENDER.sub("", written)
        self.see(f"the output of {' '.join(program)[:40]!r} ({fd})", written)

    # -- where secrets are made and taken in ----------------------------------------

    def _watch(self, owner: type, name: str, then: Callable[[Any, Any], object]) -> None:
        """Call ``then`` with the object and the result after each call of a method."""
        method = getattr(owner, name)

        @functools.wraps(method)
        def watched(this: Any, *args: Any, **kwargs: Any) -> Any:
            result = method(this, *args, **kwargs)
            then(this, result)
            return result

        self._patch.setattr(owner, name, watched)

    def _watch_secrets(self) -> None:
        keep, watch = self.keep, self._watch
        watch(EmulatedTokens, "issue", lambda _, token: keep("token", token))
        watch(JwtSigner, "issue", lambda _, jwt: keep("JWT", jwt))
        watch(Signer, "sign", lambda _, channel: keep("channel", channel))
        watch(Portal, "webhook_code", lambda _, code: keep("webhook code", code))
        watch(Portal, "__init__", lambda portal, _: keep("client secret", portal.client_secret))
        for kind in (AccessToken, Webhook, OAuth):
            watch(kind, "__init__", lambda credentials, _: keep("credential", *credentials.secrets))
        watch(Tokens, "__post_init__", lambda both, _: keep("token", both.access_token, both.refresh_token))
        watch(PublicChannel, "__init__", lambda it, _: keep("channel", it.id.hex(), it.signature.hex()))
        channel_ids = vars(PullConfig)["channel_ids"].fget

        def watched_ids(config: PullConfig) -> tuple[str, ...]:
            ids: tuple[str, ...] = channel_ids(config)
            keep("channel", *ids, config.client_id)
            keep("JWT", config.jwt)
            for channel in config.public_channels.values():
                keep("channel", channel.public_id, channel.signature)
            return ids

        self._patch.setattr(PullConfig, "channel_ids", property(watched_ids))

    # -- where texts come out ---------------------------------------------------------

    def _watch_texts(self) -> None:
        see, watch = self.see, self._watch
        post = NoticeBoard.post
        append = Tape.append

        def appended(tape: Tape, entry: bytes) -> None:
            see("the inspector's page", entry.decode())
            append(tape, entry)

        def posted(board: NoticeBoard, notice: Notice) -> None:
            see("a notice", repr(notice))
            post(board, notice)

        def going(error: PullError) -> None:
            if id(error) in self._seen_alive:
                self._seen_alive.remove(id(error))
            else:
                self._see_error(error)

        self._patch.setattr(NoticeBoard, "post", posted)
        self._patch.setattr(Tape, "append", appended)
        watch(pytest.CaptureFixture, "readouterr", lambda _, texts: [see("output", text) for text in texts])
        watch(warnings.WarningMessage, "__init__", lambda warning, _: see("a warning", str(warning)))
        watch(PullClient, "health", lambda _, health: see("health()", repr(health)))
        for store in (FileStore, SqliteStore):
            watch(store, "__init__", lambda store, _: self._stores.add(store._path))
        watch(PullError, "__init__", lambda error, _: self._errors.add(error))
        # Most errors are gone before the test ends. When they go, their chain is still whole.
        self._patch.setattr(PullError, "__del__", going, raising=False)

    def _watch_processes(self) -> None:
        read, feed = ReadSubprocessPipeProto.data_received, Output.feed_data

        def data_received(pipe: Any, data: bytes) -> None:
            if pipe not in self._pipes:
                self._pipes[pipe] = (pipe.proc._proc.args, pipe.fd, bytearray())
            self._pipes[pipe][2].extend(data)
            read(pipe, data)

        def fed(output: Output, data: bytes) -> None:
            if output not in self._pipes:
                self._pipes[output] = (output.command, output.descriptor, bytearray())
            self._pipes[output][2].extend(data)
            feed(output, data)

        def communicated(process: subprocess.Popen[Any], told: tuple[Any, Any]) -> None:
            for fd, text in enumerate(told, 1):
                self._see_process(process.args, fd, str(text or ""))

        self._patch.setattr(ReadSubprocessPipeProto, "data_received", data_received)
        self._patch.setattr(Output, "feed_data", fed)
        self._watch(subprocess.Popen, "communicate", communicated)

    # -- when -----------------------------------------------------------------------

    def pytest_configure(self) -> None:
        self._watch_secrets()
        self._watch_texts()
        self._watch_processes()
        root = logging.getLogger()
        root.addHandler(self._records)
        root.setLevel(logging.DEBUG)

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        # Tests capture what they did before: warnings, and more where they ask for it.
        pytests = session.config.pluginmanager.get_plugin("logging-plugin")
        for handler in (pytests.caplog_handler, pytests.report_handler) if pytests else ():
            handler.setLevel(logging.WARNING)

    def pytest_unconfigure(self) -> None:
        logging.getLogger().removeHandler(self._records)
        self._patch.undo()

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if item.path != self._module:
            # Not forgotten sooner: fixtures may live as long as their module.
            self._module = item.path
            self._known.clear()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        report: pytest.TestReport = yield
        if call.when == "teardown":
            self.tests += 1
            self.see("stdout", report.capstdout)
            self.see("stderr", report.capstderr)
            if found := self.leaks_found():
                report.outcome = "failed"
                report.longrepr = "\n".join(["Secrets were shown.", *found])
        return report

    # Under pytest-xdist each worker has a net of its own, and tells what it has found at its end.

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        told = getattr(session.config, "workeroutput", None)
        if told is not None:
            told["canaries"] = {name: getattr(self, name) for name in _FIGURES}

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        for name, figure in getattr(node, "workeroutput", {}).get("canaries", {}).items():
            setattr(self, name, getattr(self, name) + figure)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.write_line(
            f"canaries: {self.leaks} leaks of {self.secrets:,} secrets "
            f"in {self.characters / 1e6:.1f} MB of what {self.tests:,} tests showed"
        )


class _Records(logging.Handler):
    def __init__(self, see: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self._see = see

    def emit(self, record: logging.LogRecord) -> None:
        self._see(record)


def _holds_portals(path: Path) -> bool:
    """Tell whether a database of resume points is also where a hub keeps its portals."""
    files = [file for file in path.parent.glob(f"{path.name}*") if file.is_file()]
    return any(b"CREATE TABLE portal (" in file.read_bytes() for file in files)
