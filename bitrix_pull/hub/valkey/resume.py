"""Resume points in Valkey or Redis, under the fence of who may write them."""

from collections.abc import Iterable
from typing import Any, Final

import orjson

from bitrix_pull.connection.resume_point import ResumePoint
from bitrix_pull.connection.stamps import UNKNOWN
from bitrix_pull.connection.stores import ConfigStore
from bitrix_pull.errors import InvalidArgument, LeaseLost, ResumeStoreFailed
from bitrix_pull.hub.cluster import Lease, checked_keys
from bitrix_pull.hub.fences import Seal
from bitrix_pull.hub.valkey.configs import FencedConfigs
from bitrix_pull.hub.valkey.engine import Engine, Script, as_engine, text
from bitrix_pull.redaction import get_logger

_log: Final = get_logger("hub")

_LOAD, _SAVE = Script("load"), Script("save")

FENCED: Final = -1


class FencedPoints:
    """A ``ResumeStore`` of one portal, for one owner of it. See ``GrowingStore``.

    Args:
        engine: Where to keep them.
        keys: Where a portal's state and its settled messages are.
        lease: Whose right it is; None where nobody else has it.
    """

    _by = ""

    def __init__(self, engine: Engine, keys: tuple[str, str], lease: Lease | None) -> None:
        self._engine = engine
        self._keys = keys
        self._lease = lease
        self.confirmed: int = 0
        """How many writes the engine has confirmed: it must never know of fewer."""
        self.begun: bool = lease is None
        """True once earlier owners are shut out: an engine that does not know of it has gone back."""
        self.configs: ConfigStore | None = None
        """Where the portal's configuration is kept for the next owner; None: nowhere."""

    def keep_configs(self, seal: Seal) -> None:
        """From now on, keep the portal's configuration for its next owner, as secret as its tokens."""
        if self._lease is not None:
            self.configs = FencedConfigs(self._engine, self._keys[0], self._lease, seal)

    async def open(self) -> None:
        """Connect."""
        await self._engine.open()

    async def close(self) -> None:
        """Let go."""
        await self._engine.close()

    @property
    def epoch(self) -> int:
        """What its writes are fenced with."""
        return 0 if self._lease is None else self._lease.epoch

    async def load(self, key: str) -> ResumePoint | None:
        """Return what was kept last, with all that is settled since, and shut earlier owners out.

        Raises:
            LeaseLost: A later owner was here.
            InvalidArgument: What is kept cannot be read.
            EngineUnavailable: The engine does not answer.
        """
        self._require()
        answer = await self._engine.run(_LOAD, self._keys, self.epoch, key)
        if answer[0] == FENCED:
            raise self.refused(FENCED)
        writes, whole, advance, *members = answer
        self.confirmed, self.begun = writes, True
        if not whole:
            return None
        try:
            point = ResumePoint.read(orjson.loads(whole))
            last = ResumePoint.read(orjson.loads(advance)) if advance else point
        except ValueError:
            raise InvalidArgument(
                f"the resume point of {key!r:.80} in {self._engine.name} is damaged",
                advice="Delete it, and fetch the portal's state anew over REST.",
            ) from None
        mids, stamps = _read_members(members)
        news = ResumePoint(last.mid, mids, stamps=stamps, kept=last.kept, stamp=last.stamp)
        return point.joined([news])

    async def save(self, key: str, point: ResumePoint) -> None:
        """Keep this in place of what was kept before.

        Raises:
            LeaseLost: A later owner was here, or the engine has gone back.
            EngineUnavailable: The engine does not answer.
        """
        await self._write(key, orjson.dumps(point.write()), b"", point.mid, ())

    async def advance(self, key: str, news: ResumePoint) -> None:
        """Keep what is new; see ``GrowingStore.advance``. Raises as ``save`` does."""
        told = ResumePoint(news.mid, kept=news.kept, stamp=news.stamp)
        stamps = news.stamps or (UNKNOWN,) * len(news.settled)
        members = [member(mid, stamp) for mid, stamp in zip(news.settled, stamps, strict=True)]
        await self._write(key, b"", orjson.dumps(told.write()), news.mid, members)

    async def _write(self, key: str, whole: bytes, advance: bytes, mid: str, members: Iterable[str]) -> None:
        self._require()
        await self.begin()
        answer = await self._engine.run(
            _SAVE, self._keys, self.epoch, self.confirmed, key, whole, advance, mid, self._by, *members
        )
        if answer < 0:
            raise self.refused(answer)
        self.confirmed = max(self.confirmed, answer)

    async def begin(self) -> None:
        """Shut earlier owners out, if that is still to be done. Raises as ``load`` does."""
        if not self.begun:
            await self.load("")

    def _require(self) -> None:
        if self._lease is not None:
            self._lease.require()

    def refused(self, answer: int) -> LeaseLost | ResumeStoreFailed:
        """End the lease, and return what an answer says."""
        if self._lease is None:
            # Whoever has no lease cannot lose it: what it knows is newer than what the engine has.
            self.confirmed = 0
            return ResumeStoreFailed(f"the engine at {self._engine.name} has gone back to an older state")
        self._lease.end("fenced" if answer == FENCED else "gone_back")
        if answer == FENCED:
            return LeaseLost(f"another worker has the portal {self._lease.key!r:.60} by now")
        _log.warning(
            "the engine at %s has lost what it had confirmed for %r: the portal is begun anew from there",
            self._engine.name,
            self._lease.key,
        )
        return LeaseLost(f"the engine at {self._engine.name} has lost what it had confirmed")


class ValkeyResumeStore:
    """Keeps resume points in Valkey or Redis (6.2 or newer); one of many clients, on any machines.

    Example:
        pull = PullClient(auth, resume=ValkeyResumeStore("redis://…"))

    Args:
        engine: Its address (see ``Engine``), or one that others use too.
        name: Tells these points from others on the same engine.
        timeout_s: For how long to wait for the engine, where its address is given.

    Raises:
        InvalidArgument: The address is none.
    """

    def __init__(self, engine: str | Engine, *, name: str = "bitrix-pull", timeout_s: float = 5.0) -> None:
        self._engine = as_engine(engine, timeout_s=timeout_s)
        self._name = name
        self._points: dict[str, FencedPoints] = {}

    def under(self, lease: Lease) -> FencedPoints:
        """Return the store of one portal for one owner of it: once a later one has loaded, it refuses."""
        return self._of(lease.key, lease)

    async def open(self) -> None:
        """Connect; see ``ResumeStore``."""
        await self._engine.open()

    async def load(self, key: str) -> ResumePoint | None:
        """Return what was kept last; see ``ResumeStore``."""
        return await self._point(key).load(key)

    async def save(self, key: str, point: ResumePoint) -> None:
        """Keep this in place of what was kept before; see ``ResumeStore``."""
        await self._point(key).save(key, point)

    async def advance(self, key: str, news: ResumePoint) -> None:
        """Keep what is new; see ``GrowingStore``."""
        await self._point(key).advance(key, news)

    async def close(self) -> None:
        """Let go of the engine; it may be opened again."""
        await self._engine.close()

    def _point(self, key: str) -> FencedPoints:
        return self._points.setdefault(key, self._of(key, None))

    def _of(self, portal: str, lease: Lease | None) -> FencedPoints:
        checked_keys([portal])
        return FencedPoints(self._engine, point_keys(f"{self._name}:{{{_tag(portal)}}}", portal), lease)

    def __repr__(self) -> str:
        return f"ValkeyResumeStore({self._engine.name})"


def point_keys(prefix: str, portal: str) -> tuple[str, str]:
    """Return where a portal's state and its settled messages are; both in the slot of the prefix."""
    return f"{prefix}:at:{portal}", f"{prefix}:seen:{portal}"


def member(mid: str, stamp: float) -> str:
    """Return how a settled message is written down."""
    return f"{mid} {stamp!r}"


def _read_members(members: Iterable[Any]) -> tuple[tuple[str, ...], tuple[float, ...]]:
    settled = dict[str, float]()
    for each in members:
        mid, _, stamp = text(each).partition(" ")
        try:
            settled[mid] = float(stamp)
        except ValueError:
            settled[mid] = UNKNOWN
    return tuple(settled), tuple(settled.values())


def _tag(portal: str) -> str:
    # A brace would end the tag, or begin another one.
    return portal.replace("{", "(").replace("}", ")")
