"""Where owners of portals find what other services ask them to publish: one desk for each shard."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import orjson

from bitrix_pull.errors import (
    EngineUnavailable,
    InvalidArgument,
    LeaseLost,
    OutcomeUnknown,
    PublishBusy,
    PullError,
)
from bitrix_pull.flag import Flag
from bitrix_pull.hub.cluster import Lease
from bitrix_pull.hub.log import Publish
from bitrix_pull.hub.valkey.engine import Engine, Script, pairs, text
from bitrix_pull.hub.valkey.requests import (
    EXPIRED,
    REQUESTS_MAX,
    BadRequest,
    PublishAnswer,
    PublishRequest,
    shard_of,
)
from bitrix_pull.hub.valkey.resume import FencedPoints
from bitrix_pull.redaction import get_logger

_log: Final = get_logger("hub")

_TAKE, _ANSWER, _REFUSE = Script("take"), Script("answer"), Script("refuse")
_GONE, _TAKEN, _EXPIRED = 0, 1, 2

_ANSWERS_KEPT_MS = 600_000
_ANSWERS_MAX = 10_000
"""In one stream of answers, about."""

_NAMES_KEPT_MS = 3_600_000
PUBLISH_S: Final = 30.0
"""For how long it is tried to publish one."""

FORGOTTEN_MS: Final = 60_000
"""What was taken so long ago and is not answered, its owner has not lived to answer."""

_EVER_MS = 10**20
_READ_AT_ONCE = 50
_WAIT_S = 1.0
_LOOK_S = 10.0
"""How often all that waits is looked through: for what has expired, or was left by somebody."""

_WAITING_MAX = 500
"""Requests that a clerk has heard of and not taken. The others are in the stream alone."""

_TRIES_KEPT = 10_000
_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)

T = TypeVar("T")


class Desk:
    """Reads the requests of a shard, and gives each to the clerk of its portal, if that is here.

    Args:
        engine: Where they are.
        prefix: What the shard's keys begin with.
        number: The shard's.
        shards: How many there are.
    """

    def __init__(self, engine: Engine, prefix: str, number: int, shards: int) -> None:
        self.engine: Engine = engine
        self.requests: str = f"{prefix}:publish"
        self.taken: str = f"{prefix}:publish:taken"
        self.asked: str = f"{prefix}:publish:asked"
        self._prefix = prefix
        self._number = number
        self._shards = shards
        self._clerks: dict[str, Clerk] = {}
        self._staffed = Flag()
        self._look_now = False
        # What this process has begun to publish, and what became of it: an engine may go back.
        self._tries: OrderedDict[str, PublishAnswer | None] = OrderedDict()

    def enter(self, clerk: "Clerk") -> None:
        """Let a clerk have the requests of its portal, those that wait already included."""
        self._clerks[clerk.lease.key] = clerk
        self._staffed.set()
        self.look()

    def leave(self, clerk: "Clerk") -> None:
        """Give it no more."""
        if self._clerks.get(clerk.lease.key) is clerk:
            del self._clerks[clerk.lease.key]
            if not self._clerks:
                self._staffed.clear()

    def look(self) -> None:
        """Look through all that waits, within a second."""
        self._look_now = True

    # -- reading --------------------------------------------------------------

    async def run(self) -> None:
        """Hand on what comes, through every outage. Nothing is read before there is a clerk."""
        pauses = iter(_PAUSES_S)
        while True:
            await self._staffed.wait()
            client = self.engine.blocking_client(_WAIT_S)
            try:
                while self._clerks:
                    await self._serve(client)
                    pauses = iter(_PAUSES_S)
            except PullError as error:
                pause_s = next(pauses, None)
                if pause_s == _PAUSES_S[0]:
                    _log.error("requests to publish are not taken for now: %s", error)
                await asyncio.sleep(_PAUSES_S[-1] if pause_s is None else pause_s)
            finally:
                await client.aclose()

    async def _serve(self, client: Any) -> None:
        """Look through all that waits, and then take what comes, for some seconds."""
        self._look_now = False
        now_ms = await self._now_ms()
        await self._answer_forgotten(now_ms)
        for clerk in self._clerks.values():
            clerk.hear_anew()
        last, over = "0-0", int(await self.engine.call("XLEN", self.requests)) - REQUESTS_MAX
        while entries := await self._read(client, last):
            last = await self._hand_on(entries, now_ms, over)
            over -= len(entries)
        loop = asyncio.get_running_loop()
        until = loop.time() + _LOOK_S
        while self._clerks and not self._look_now and loop.time() < until:
            if entries := await self._read(client, last, "BLOCK", round(_WAIT_S * 1000)):
                last = await self._hand_on(entries, now_ms)

    async def _read(self, client: Any, last: str, *wait: str | int) -> list[Any]:
        command = ("XREAD", "COUNT", _READ_AT_ONCE, *wait, "STREAMS", self.requests, last)
        answer = await self.engine.call(*command, by=client)
        return [entry for _, entries in answer or () for entry in entries]

    async def _now_ms(self) -> int:
        seconds, micros = await self.engine.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def _hand_on(self, entries: list[Any], now_ms: int, over: int = 0) -> str:
        """Give requests to their clerks, and answer what nobody will take; return the last one's id.

        Args:
            entries: The requests, in order.
            now_ms: The engine's time, about.
            over: How many of them are too many.
        """
        for number, (entry_id, fields) in enumerate(entries):
            entry = text(entry_id)
            try:
                request = PublishRequest.read(fields.get(b"request"), entry)
                if shard_of(request.portal, self._shards) != self._number:
                    raise BadRequest.of(request, "its portal has another shard: see how N is found")
            except BadRequest as bad:
                answer = PublishAnswer(bad.request_id, bad.portal, "refused", "InvalidArgument", str(bad))
                await self._refuse(entry, answer, bad.reply_to)
                continue
            clerk = self._clerks.get(request.portal)
            if number < over:
                await self._refuse(entry, _too_many(request), request.reply_to)
            elif clerk is not None:
                clerk.hear(entry, request)
            elif _time_ms(entry) + request.lasts_ms <= now_ms:
                await self.expire(entry, request)
        return text(entries[-1][0])

    # -- answering ------------------------------------------------------------

    async def expire(self, entry: str, request: PublishRequest) -> None:
        """Answer a request whose time is over, if it waits still."""
        told = f"no worker came to publish it for {request.portal!r:.60} within {request.expires_in_s:g} s"
        answer = PublishAnswer(request.id, request.portal, "refused", EXPIRED, told, retryable=True)
        await self._refuse(entry, answer, request.reply_to, request.lasts_ms)

    async def _refuse(self, entry: str, answer: PublishAnswer, reply_to: str, lasts_ms: int = 0) -> None:
        keys = [self.requests, self._answers(reply_to)]
        # An entry's id may be of a time to come: what is no request goes whatever it says.
        lasts = lasts_ms or -_EVER_MS
        await self._run(_REFUSE, keys, entry, answer.write(), _ANSWERS_KEPT_MS, _ANSWERS_MAX, lasts)

    async def answer(self, entry: str, answer: PublishAnswer, reply_to: str) -> None:
        """Say what became of a request that was taken, unless somebody has said so."""
        keys = [self.taken, self._answers(reply_to)]
        await self._run(_ANSWER, keys, entry, answer.write(), _ANSWERS_KEPT_MS, _ANSWERS_MAX)

    async def _run(self, script: Script, keys: list[str], *values: str | bytes | float) -> None:
        try:
            await self.engine.run(script, keys, *values)
        except InvalidArgument as error:
            # It is over with all the same: what else is under that key is nobody's business here.
            _log.warning("an answer is not written: %s", error)

    def _answers(self, reply_to: str) -> str:
        return f"{self._prefix}:answer:{reply_to}"

    async def answer_left(self, portal: str, epoch: int) -> None:
        """Answer what earlier owners of a portal have taken, and have not lived to answer."""
        for entry, _, about in await self._all_taken():
            if about.get("portal") == portal and int(about.get("epoch", 0)) <= epoch:
                await self._answer_unknown(entry, about)

    async def _answer_forgotten(self, now_ms: int) -> None:
        for entry, taken_ms, about in await self._all_taken():
            if now_ms - taken_ms > FORGOTTEN_MS:
                await self._answer_unknown(entry, about)

    async def _all_taken(self) -> list[tuple[str, int, dict[str, Any]]]:
        rows = pairs(await self.engine.call("HGETALL", self.taken))
        return [(entry, *_read_taken(told)) for entry, told in rows]

    async def _answer_unknown(self, entry: str, about: dict[str, Any]) -> None:
        request_id, portal = str(about.get("id", entry)), about.get("portal")
        answer = self._tries.get(entry) or PublishAnswer(
            request_id,
            portal,
            "unknown",
            OutcomeUnknown.__name__,
            "the worker that had begun to publish it has not lived to tell",
            epoch=about.get("epoch"),
        )
        await self.answer(entry, answer, str(about.get("to", request_id)))

    async def once(
        self,
        entry: str,
        request: PublishRequest,
        publish: Callable[[PublishRequest], Awaitable[PublishAnswer]],
    ) -> PublishAnswer:
        """Publish a request, unless this process has begun that before: an engine may have gone back."""
        if entry in self._tries:
            return self._tries[entry] or PublishAnswer(
                request.id, request.portal, "unknown", OutcomeUnknown.__name__, "it was begun before"
            )
        while len(self._tries) >= _TRIES_KEPT:
            self._tries.popitem(last=False)
        self._tries[entry] = None
        answer = self._tries[entry] = await publish(request)
        return answer


class Clerk:
    """Publishes what is asked of one portal, one after the other, for as long as its lease lasts.

    Args:
        desk: Where it is asked.
        lease: The right to.
        points: The portal's resume point, which holds the fence.
        at: The key of the fence.
        publish: Publishes a message at the portal.
    """

    def __init__(self, desk: Desk, lease: Lease, points: FencedPoints, at: str, publish: Publish) -> None:
        self.lease: Lease = lease
        self._desk = desk
        self._points = points
        self._at = at
        self._publish_by = publish
        self._waiting: dict[str, PublishRequest] = {}
        self._arrived = Flag()
        # True if it was told of more than it can keep in mind: it hears no more then, for the order's sake.
        self._deaf = False
        self._stopping = False

    async def run(self) -> None:
        """Publish what is asked for; see ``Requests.run``."""
        desk, lease = self._desk, self.lease
        try:
            # First the fence: nobody before this owner takes anything after it.
            await self._through(self._points.begin)
            await self._through(lambda: desk.answer_left(lease.key, lease.epoch))
            desk.enter(self)
            while not self._stopping:
                if self._deaf and len(self._waiting) < _WAITING_MAX / 2:
                    desk.look()
                if self._waiting:
                    entry, request = next(iter(self._waiting.items()))
                    await self._serve(entry, request)
                    del self._waiting[entry]
                else:
                    self._arrived.clear()
                    await self._arrived.wait()
        except LeaseLost:
            pass
        except PullError as error:
            _log.error("nothing is published for %r by request: %s", lease.key, error)
        finally:
            desk.leave(self)

    def stop(self) -> None:
        """Take nothing more; see ``Requests.stop``."""
        self._stopping = True
        self._arrived.set()

    def hear(self, entry: str, request: PublishRequest) -> None:
        """Take note of a request. They are told in order, and may be told again."""
        if entry in self._waiting or self._deaf:
            return
        if len(self._waiting) >= _WAITING_MAX:
            self._deaf = True
            return
        self._waiting[entry] = request
        self._arrived.set()

    def hear_anew(self) -> None:
        """Listen: all that waits is told from its beginning."""
        self._deaf = False

    async def _serve(self, entry: str, request: PublishRequest) -> None:
        desk = self._desk
        result = await self._through(lambda: self._take(entry, request))
        if result < 0:
            raise self._points.refused(result)
        if result == _EXPIRED:
            await self._through(lambda: desk.expire(entry, request))
        elif result == _TAKEN:
            answer = await desk.once(entry, request, self._publish)
            await self._through(lambda: desk.answer(entry, answer, request.reply_to), fenced=False)

    async def _take(self, entry: str, request: PublishRequest) -> int:
        """Take a request; again gives the same answer, as one may be lost on its way."""
        about = {
            "portal": request.portal,
            "epoch": self.lease.epoch,
            "id": request.id,
            "to": request.reply_to,
        }
        result: int = await self._desk.engine.run(
            _TAKE,
            [self._desk.requests, self._at, self._desk.taken, self._desk.asked],
            self.lease.epoch,
            entry,
            request.lasts_ms,
            f"{request.portal} {request.id}" if request.named else "",
            _NAMES_KEPT_MS,
            orjson.dumps(about),
        )
        return result

    async def _publish(self, request: PublishRequest) -> PublishAnswer:
        epoch = self.lease.epoch
        try:
            message, route = request.message(), request.route
            # Not by who was held up since: whoever has the portal says that nobody knows.
            self.lease.require()
            receipt = await self._publish_by(message, route, PUBLISH_S)
        except LeaseLost:
            raise
        except OutcomeUnknown as error:
            return PublishAnswer.failed(request, epoch, error, "unknown")
        except PullError as error:
            return PublishAnswer.failed(request, epoch, error)
        except Exception as error:
            _log.exception("publishing for %r by request has failed", request.portal)
            doubt = OutcomeUnknown(f"the worker that published it met with a {type(error).__name__}")
            return PublishAnswer.failed(request, epoch, doubt, "unknown")
        return PublishAnswer.of(request, epoch, receipt)

    async def _through(self, ask: Callable[[], Awaitable[T]], *, fenced: bool = True) -> T:
        """Ask the engine until it answers, while the lease lasts."""
        pauses = iter(_PAUSES_S)
        while True:
            if fenced:
                self.lease.require()
            try:
                return await ask()
            except EngineUnavailable:
                pass
            except PullError:
                raise
            except Exception:
                # Ours to mend, or the redis package's; but requests must be answered.
                _log.critical("a request to publish for %r met with a fault", self.lease.key, exc_info=True)
            await asyncio.sleep(next(pauses, _PAUSES_S[-1]))


def _too_many(request: PublishRequest) -> PublishAnswer:
    told = f"more than {REQUESTS_MAX} requests to publish wait: this one is the oldest"
    return PublishAnswer(request.id, request.portal, "refused", PublishBusy.__name__, told, retryable=True)


def _time_ms(entry: str) -> int:
    return int(entry.partition("-")[0])


def _read_taken(told: Any) -> tuple[int, dict[str, Any]]:
    """Return when a request was taken, and what was noted of it."""
    at_ms, _, about = text(told).partition(" ")
    try:
        return int(at_ms), orjson.loads(about)
    except ValueError:
        return 0, {}
