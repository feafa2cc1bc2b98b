"""Tokens on disk: in a file of their own. What holds for every store on disk is here too.

A refresh spends the old refresh token when the server answers, so the new one must be on
disk as soon as may be, and must survive whatever happens to the process from then on.
"""

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Generator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from os import PathLike
from pathlib import Path
from typing import ClassVar

import orjson

from bitrix_pull.errors import InvalidArgument, PullError
from bitrix_pull.files import NO_LOCKS_HERE, LocksUnavailable, in_thread, sync, sync_folder
from bitrix_pull.portal.token_locks import FileLock
from bitrix_pull.portal.token_stores import AUTHORISE, TokenStore, member_of
from bitrix_pull.portal.tokens import Tokens
from bitrix_pull.redaction import get_logger
from bitrix_pull.wire.messages import is_object

_log = get_logger("portal")

_MAX_BYTES = 16 * 1024 * 1024
_SAVE_TIMEOUT_S = 60.0
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)  # A pipe is not waited for.
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINKS


class DiskTokenStore(ABC):
    """Tokens on disk, which only their owner can read, under a lock between processes.

    Work on the disk is done in a thread. It is waited for even when the caller is
    cancelled: nothing else must happen to the store meanwhile.

    Args:
        path: The file. If it is a symbolic link, what it points to is meant. A relative path
            is so to the working directory of now.

    Raises:
        InvalidArgument: It cannot be a path.
    """

    what: ClassVar[str]

    def __init__(self, path: str | PathLike[str]) -> None:
        try:
            self._path = Path(path).absolute()
            usable = b"\0" not in os.fsencode(self._path)
        except (TypeError, ValueError):
            usable = False
        if not usable:
            raise InvalidArgument(f"the path of the {self.what} is none")

    async def load(self) -> Tokens:
        """Return the tokens that were saved last.

        Raises:
            InvalidArgument: There are none, or they cannot be read.
        """
        return await in_thread(self._load)

    async def save(self, tokens: Tokens, /) -> None:
        """Keep new tokens, durably. Waits for a refresh under way.

        Raises:
            InvalidArgument: They cannot be written.
            TokenStoreFailed: The store stayed locked.
        """
        async with self.lock(_SAVE_TIMEOUT_S) as locked:
            await locked.save(tokens)

    async def members(self) -> tuple[str, ...]:
        """Return whose tokens are kept in the file, each portal once.

        Raises:
            InvalidArgument: It cannot be read.
        """
        return await in_thread(self._members)

    async def delete(self) -> None:
        """Forget the tokens, as where the application was uninstalled. Waits for a refresh under way.

        Raises:
            InvalidArgument: The file cannot be written.
            TokenStoreFailed: The store stayed locked.
        """
        async with self.lock(_SAVE_TIMEOUT_S):
            await in_thread(self._delete)

    @asynccontextmanager
    async def lock(self, timeout_s: float) -> AsyncGenerator[TokenStore]:
        """Hold the store; what is entered loads and saves meanwhile.

        Raises:
            TokenStoreFailed: Somebody else held it for ``timeout_s``.
            InvalidArgument: The folder cannot be used, or is no safe place for secrets.
        """
        async with AsyncExitStack() as stack:
            with self._problems("used"):
                target = self._path.resolve()
                check_folder(target.parent, self._name)
                lock = FileLock(target.with_name(f"{target.name}{self._lock_suffix}"))
                await stack.enter_async_context(lock.held(timeout_s))
            yield await stack.enter_async_context(self._locked())

    @property
    def _name(self) -> str:
        return f"the {self.what} {self._path}"

    @property
    def _lock_suffix(self) -> str:
        return ".lock"

    @abstractmethod
    def _load(self) -> Tokens: ...

    @abstractmethod
    def _members(self) -> tuple[str, ...]: ...

    @abstractmethod
    def _delete(self) -> None:
        """Forget the tokens; called under the lock."""

    @abstractmethod
    def _locked(self) -> AbstractAsyncContextManager[TokenStore]:
        """Make ready to load and save; called under the lock."""

    @contextmanager
    def _problems(self, done: str) -> Generator[None]:
        try:
            yield
        except PullError:
            raise  # Some are OSErrors too.
        except LocksUnavailable as error:
            raise InvalidArgument(f"{self._name}: {error.strerror}", advice=NO_LOCKS_HERE) from None
        except OSError as error:
            raise InvalidArgument(
                f"{self._name} cannot be {done}: {error.strerror}",
                advice=AUTHORISE
                if done == "read"
                else "Refreshed tokens are stored there: make it and its folder writable.",
            ) from None


class FileTokenStore(DiskTokenStore):
    """Keeps the tokens of one application on one portal in a JSON file, mode 0600.

    The file is as the OAuth server writes it: ``access_token``, ``refresh_token``,
    ``expires``. Each save puts a new, synced file in the place of the old one, so a reader
    finds the old tokens or the new ones. Beside it lies an empty ``.lock`` file.
    """

    what = "token file"

    @asynccontextmanager
    async def _locked(self) -> AsyncGenerator[TokenStore]:
        await in_thread(self._recover)
        yield _LockedFile(self)

    def _load(self) -> Tokens:
        with (
            self._problems("read"),
            open(self._path, "rb", opener=lambda path, _: os.open(path, _READ)) as file,
        ):
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidArgument(f"{self._name} is no regular file")
            keep_private(file.fileno(), self._name)
            text = file.read(_MAX_BYTES + 1)
        if not os.access(self._path.resolve().parent, os.W_OK):
            _log.warning("%s lies in a folder that is not writable: it cannot be refreshed", self._name)
        return read_tokens(text, self._name)

    def _members(self) -> tuple[str, ...]:
        return (member_of(self._load()),) if self._path.exists() else ()

    def _delete(self) -> None:
        target, _ = self._places()
        with self._problems("written"), suppress(FileNotFoundError):
            os.unlink(target)
            sync_folder(target.parent)

    def note(self, tokens: Tokens) -> None:
        """Write new tokens beside the file, where a kill cannot undo it. Needs the lock."""
        _, new = self._places()
        with self._problems("written"):
            with suppress(FileNotFoundError):
                os.unlink(new)
            with open(os.open(new, _CREATE, 0o600), "wb") as file:
                file.write(write_tokens(tokens))

    def put_in_place(self) -> None:
        """Let what was noted take the place of the file, durably. Needs the lock."""
        target, new = self._places()
        with self._problems("written"):
            sync(new, os.O_RDWR | _NO_LINKS)
            os.replace(new, target)
            sync_folder(target.parent)

    def _recover(self) -> None:
        """Put in place what somebody noted who was killed then, unless the file was written since.

        It is the only copy of the newest tokens: those in the file are spent.
        """
        target, new = self._places()
        with self._problems("written"):
            try:
                file = open(new, "rb", opener=lambda path, _: os.open(path, _READ | _NO_LINKS))  # noqa: SIM115
            except FileNotFoundError:
                return
            with file, suppress(InvalidArgument):
                noted = os.fstat(file.fileno())
                read_tokens(file.read(_MAX_BYTES + 1), self._name)
                if _is_own(noted) and noted.st_mtime_ns >= _mtime_ns(target):
                    self.put_in_place()
                    return
            os.unlink(new)

    def _places(self) -> tuple[Path, Path]:
        """Return the file, and the one that is to take its place."""
        target = self._path.resolve()
        return target, target.with_name(f".{target.name}.new")


class _LockedFile:
    """A token file while it is locked."""

    def __init__(self, file: FileTokenStore) -> None:
        self._file = file

    async def load(self) -> Tokens:
        return await self._file.load()

    async def save(self, tokens: Tokens, /) -> None:
        # At once: a thread begins some milliseconds later on a busy machine.
        self._file.note(tokens)
        await in_thread(self._file.put_in_place)


def check_folder(folder: Path, name: str) -> None:
    """Refuse a folder in which anybody could put other files in the place of ours.

    Raises:
        InvalidArgument: It is writable by everyone, and not sticky as ``/tmp`` is.
        OSError: It is none.
    """
    mode = folder.stat().st_mode
    if os.name == "posix" and mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise InvalidArgument(
            f"{name} lies in a folder that everyone can write to", advice=f"Run: chmod o-w {folder}"
        )


def keep_private(file: int | Path, name: str) -> None:
    """Take away others' rights to a file, and say so; where that is impossible, say that.

    Args:
        file: An open file's descriptor, or a path.
        name: What it is, for texts.

    Raises:
        InvalidArgument: It belongs to another user, who can read and change what is in it.
    """
    status = os.stat(file)
    mode = stat.S_IMODE(status.st_mode)
    if os.name != "posix":
        return
    if os.geteuid() and status.st_uid not in (0, os.geteuid()):
        raise InvalidArgument(f"{name} belongs to another user", advice="It must be your own, or root's.")
    if not mode & 0o077:
        return
    try:
        os.chmod(file, 0o600)
    except OSError:
        _log.warning("%s can be read by others (mode %o), and that could not be changed", name, mode)
    else:
        _log.warning("%s could be read by others (mode %o): it is now mode 600", name, mode)


def write_tokens(tokens: Tokens) -> bytes:
    """Return tokens as JSON.

    Raises:
        InvalidArgument: Their fields are none.
    """
    try:
        return orjson.dumps(tokens.write(), option=orjson.OPT_INDENT_2)
    except orjson.JSONEncodeError:
        # The cause holds the content.
        raise InvalidArgument("the fields of the tokens cannot be written as JSON") from None


def read_tokens(text: bytes | str, name: str) -> Tokens:
    """Read tokens from JSON.

    Raises:
        InvalidArgument: It is none, or holds none.
    """
    if len(text) > _MAX_BYTES:
        raise InvalidArgument(f"{name} is too large to be one")
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError:
        # The cause holds the content.
        raise InvalidArgument(f"{name} is no JSON") from None
    if not is_object(content):
        raise InvalidArgument(f"{name} holds no JSON object")
    return Tokens.read(content, name)


def _is_own(status: os.stat_result) -> bool:
    return os.name != "posix" or status.st_uid == os.geteuid()


def _mtime_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
