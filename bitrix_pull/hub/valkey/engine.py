"""The engine itself: connections to Valkey or Redis, scripts, and what their errors mean."""

import asyncio
import contextlib
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final, cast

import orjson

from bitrix_pull.errors import EngineUnavailable, InvalidArgument, PullError
from bitrix_pull.hub.cancelling import cancellable
from bitrix_pull.redaction import get_logger, one_line

try:
    from redis.asyncio import Redis, RedisCluster
    from redis.asyncio.connection import parse_url
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import (
        AskError,
        AuthenticationError,
        AuthorizationError,
        ClusterDownError,
        MasterDownError,
        MovedError,
        NoPermissionError,
        NoScriptError,
        OutOfMemoryError,
        ReadOnlyError,
        RedisClusterException,
        RedisError,
        TryAgainError,
    )
    from redis.exceptions import ConnectionError as NotConnected
    from redis.exceptions import TimeoutError as NotInTime
except ImportError as _missing:  # pragma: no cover - the tests have it
    raise ImportError("this needs the redis package: pip install 'bitrix-pull[hub]'") from _missing

_log: Final = get_logger("hub")

LOWEST_VERSION: Final = (6, 2)
_PASSES = (
    "LOADING",
    "BUSY",
    "MASTERDOWN",
    "READONLY",
    "read only",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "NOREPLICAS",
    "MISCONF",
    "UNBLOCKED",
)
"""What stands in answers that another attempt may not get. Some are errors of their own, too."""

_PASSING = (
    AskError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NotConnected,
    NotInTime,
    OSError,
    ReadOnlyError,
    RedisClusterException,
    TryAgainError,
)
_CALLS_AT_ONCE: Final = 50
"""Each takes a connection, and the redis package refuses to have more than a hundred."""

_REFUSALS = (AuthenticationError, AuthorizationError, NoPermissionError)


class Script:
    """A script as it stands in a file of this package.

    Args:
        name: The file's name without ``.lua``.
    """

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.text: str = resources.files("bitrix_pull.hub.valkey").joinpath(f"{name}.lua").read_text("utf-8")
        self.sha: str = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class Engine:
    """A Valkey or Redis server, or a cluster of them: what the address leads to decides.

    It may be opened by several tasks of one event loop; it counts. No command is sent twice by
    itself: whoever calls knows what that would do.

    Args:
        url: ``redis://[[user]:password@]host[:port][/database]``, ``rediss://…`` with TLS, or
            ``unix://path``. Of a cluster, any node.
        timeout_s: For how long to wait for a connection, and for an answer.

    Raises:
        InvalidArgument: The address is none.
    """

    def __init__(self, url: str, *, timeout_s: float = 2.0) -> None:
        try:
            parts = parse_url(url)
        except (ValueError, TypeError, AttributeError):
            # Not its text: the address may hold a password.
            raise InvalidArgument(
                "the engine's address is none", advice="Write redis://HOST:PORT, or rediss:// with TLS."
            ) from None
        self._url = url
        self._timeout_s = timeout_s
        self.name: str = str(
            parts.get("path") or f"{parts.get('host', 'localhost')}:{parts.get('port', 6379)}"
        )
        """What it is called in errors and logs: host and port."""
        self._client: Redis | RedisCluster | None = None
        self._opened = 0
        self._opening = asyncio.Lock()
        self._turns = asyncio.Semaphore(_CALLS_AT_ONCE)

    async def open(self) -> None:
        """Connect, and look whether it can be used.

        Raises:
            InvalidArgument: It cannot: its version is too old, it refuses us, it may forget keys.
            EngineUnavailable: It does not answer. Later it may.
        """
        async with self._opening:
            if self._client is None:
                self._client = await self._connected()
            self._opened += 1

    async def close(self) -> None:
        """Close all connections, once for each ``open``."""
        async with self._opening:
            self._opened = max(self._opened - 1, 0)
            if self._opened == 0 and self._client is not None:
                client, self._client = self._client, None
                await client.aclose()

    @property
    def client(self) -> "Redis | RedisCluster":
        """The client of the redis package.

        Raises:
            EngineUnavailable: It is not open.
        """
        if self._client is None:
            raise EngineUnavailable(f"the engine at {self.name} is not open")
        return self._client

    async def run(self, script: Script, keys: Sequence[str], *values: str | bytes | float) -> Any:
        """Run a script, and return its answer, with texts as bytes.

        Args:
            script: Which one.
            keys: What it touches; all in one slot of a cluster.
            values: Its arguments.

        Raises:
            EngineUnavailable: No answer; whether it has run is unknown. Or it takes nothing now.
            InvalidArgument: It is not allowed, or finds something that is not its own.
        """
        try:
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *values)
        except _NotLoadedError:
            return await self.call("EVAL", script.text, len(keys), *keys, *values)

    async def call(self, *command: str | bytes | float, by: "Redis | RedisCluster | None" = None) -> Any:
        """Run a command, by another client if one is given; see ``run``.

        Of those that are given no client, a few dozen are under way at once; the others wait.
        """
        if by is not None:
            return await self._call(by, command)
        async with self._turns:
            return await self._call(self.client, command)

    async def _call(self, client: Any, command: Sequence[str | bytes | float]) -> Any:
        with cancellable():
            try:
                return await client.execute_command(*command)
            except NoScriptError:
                raise _NotLoadedError from None
            except (NotConnected, NotInTime, OSError) as error:
                await _drop_idle(client)
                raise self.meaning(error) from None
            except (RedisError, RedisClusterException) as error:
                raise self.meaning(error) from None
            except AttributeError:
                # A cluster's client that reads the map anew takes the connections of commands under way
                # for that; and asyncio of Python 3.12 meets a write to a connection that was reset so.
                await _drop_idle(client)
                raise EngineUnavailable(f"the engine at {self.name} was cut off") from None

    def blocking_client(self, wait_s: float) -> "Redis | RedisCluster":
        """Return another client, for commands that the engine answers late; to be closed by the caller."""
        return self._make(type(self.client), self._timeout_s + wait_s)

    def meaning(self, error: Exception) -> PullError:
        """Return what an error of the redis package, or of the system, says."""
        told = one_line(str(error))[:200].rstrip(".")
        if isinstance(error, _REFUSALS) or "NOPERM" in told or "can't run this command" in told:
            return InvalidArgument(
                f"the engine at {self.name} refuses us ({told})",
                advice="See to user, password and rights (ACL): scripts, and the keys that they touch.",
            )
        if isinstance(error, OutOfMemoryError) or "OOM" in told or "maxmemory" in told:
            return EngineUnavailable(f"the engine at {self.name} is full (maxmemory)")
        if isinstance(error, _PASSING) or any(word in told for word in _PASSES):
            return EngineUnavailable(
                f"the engine at {self.name} does not answer ({told or type(error).__name__})"
            )
        return InvalidArgument(
            f"the engine at {self.name} lacks a command, or holds something else under a key of ours ({told})"
        )

    # -- the first connection -------------------------------------------------

    def _make(self, kind: Any, timeout_s: float) -> "Redis | RedisCluster":
        made: Redis | RedisCluster = kind.from_url(
            self._url,
            # Every version of engine and package speaks it, and answers alike.
            protocol=2,
            socket_timeout=timeout_s,
            socket_connect_timeout=self._timeout_s,
            # A node that does not have a slot any more says who has it: that is an answer too.
            retry=Retry(NoBackoff(), 3 if kind is RedisCluster else 0),
        )
        return made

    async def _connected(self) -> "Redis | RedisCluster":
        client: Redis | RedisCluster = self._make(Redis, self._timeout_s)
        try:
            with cancellable():
                about = await self._about(client)
            self._check(about)
            if "cluster" in (about.get("server_mode"), about.get("redis_mode")):  # Valkey, Redis
                await client.aclose()
                client = self._make(RedisCluster, self._timeout_s)
                with cancellable():
                    await client.initialize()
        except BaseException as error:
            await client.aclose()
            if isinstance(error, RedisError | RedisClusterException | OSError):
                raise self.meaning(error) from None
            raise
        return client

    async def _about(self, client: Any) -> dict[str, Any]:
        try:
            server, memory = await client.info("server"), await client.info("memory")
        except NoPermissionError:
            _log.warning("the engine at %s does not tell its version (INFO): it is not checked", self.name)
            await client.ping()
            return {}
        return {**server, **memory}

    def _check(self, about: dict[str, Any]) -> None:
        version = str(about.get("redis_version", ""))
        digits = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
        if digits and digits < LOWEST_VERSION:
            raise InvalidArgument(
                f"the engine at {self.name} is of version {version}",
                advice="Valkey, or Redis 6.2 or newer, is needed.",
            )
        policy = str(about.get("maxmemory_policy", ""))
        if policy.startswith("allkeys") and about.get("maxmemory"):
            raise InvalidArgument(
                f"the engine at {self.name} throws away any key when it is full (maxmemory-policy {policy})",
                advice="Set maxmemory-policy to noeviction: fences and resume points must stay.",
            )


def as_engine(engine: str | Engine, *, timeout_s: float) -> Engine:
    """Return the engine that a user means: an address stands for one of its own.

    Raises:
        InvalidArgument: It is none.
    """
    if isinstance(engine, Engine):
        return engine
    return Engine(engine, timeout_s=timeout_s)


async def _drop_idle(client: "Redis | RedisCluster") -> None:
    """Close the connections that lie idle after one was cut off, or reset: each would fail once.

    Not every version of the package finds that out by itself.
    """
    if isinstance(client, Redis):
        with contextlib.suppress(RedisError, OSError):
            await client.connection_pool.disconnect(inuse_connections=False)


class _NotLoadedError(Exception):
    """The engine does not know a script by its digest."""


def text(value: Any) -> str:
    """Return a text of an answer."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def pairs(answer: Any) -> list[tuple[str, Any]]:
    """Return what a flat list holds as pairs, or what the redis package has made a map of."""
    if isinstance(answer, dict):
        made: dict[Any, Any] = answer  # pyright: ignore[reportUnknownVariableType]
        return [(text(key), value) for key, value in made.items()]
    return [(text(key), value) for key, value in zip(answer[::2], answer[1::2], strict=True)]


def read_object(told: Any) -> dict[str, Any]:
    """Return the JSON object that a worker has told; an empty one for anything else."""
    try:
        read = orjson.loads(told)
    except (orjson.JSONDecodeError, TypeError):
        return {}
    return cast("dict[str, Any]", read) if isinstance(read, dict) else {}
