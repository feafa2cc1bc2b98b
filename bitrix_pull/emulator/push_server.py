"""The push server: who listens, what is kept, what is sent to whom (protocol §3 to §9)."""

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import orjson

from bitrix_pull.emulator.channels import Refused, Signer, derive
from bitrix_pull.emulator.clock import machine_time
from bitrix_pull.emulator.frames import Outgoing, channel_stats, server_stats
from bitrix_pull.emulator.history import NO_ADDITIONS, Additions, History, Message, Snapshot
from bitrix_pull.emulator.journal import Journal
from bitrix_pull.emulator.jwt import JwtSigner
from bitrix_pull.emulator.presence import Presence
from bitrix_pull.emulator.publications import (
    ChannelStats,
    Limits,
    Publish,
    Request,
    ServerStats,
)
from bitrix_pull.emulator.push_faults import PushFaults
from bitrix_pull.emulator.subscribers import PollSubscriber, Registry, Subscriber, WebSocketSubscriber
from bitrix_pull.events import BACKEND_SENDER, Sender, SenderType
from bitrix_pull.wire.close_codes import ServerClose

SUBSCRIBE_PATHS = ("/bitrix/sub/", "/bitrix/subws/")
PUBLISH_PATH = "/bitrix/pub/"
CLIENT_PUBLISH_PATH = "/bitrix/rest/"
STAT_PATH = "/server-stat/"

VERSIONS = (2, 3, 4, 5)

Mode = Literal["personal", "shared"]
"""A portal's own push server, or one in the cloud that serves many portals."""


@dataclass(slots=True)
class Counters:
    """What a push server has done since it was made, over all its restarts."""

    websockets: int = 0
    pollings: int = 0
    refused: int = 0
    requests: int = 0
    messages: int = 0


class PushServer:
    """A push server: version 2 or 3 (text), 4 (protobuf, or text) or 5 (JSON-RPC).

    Every attribute but version, mode and client id may be changed while it runs; what is
    connected already keeps its old ways.

    Attributes:
        version: What it speaks.
        mode: "shared": every address needs the right ``clientId``.
        client_id: That id, of the first portal; "" in personal mode.
        poll_timeout_s: How long a poll hangs before it is answered with 304.
        ping_interval_s: Seconds between the server's pings; who has not answered one
            after half of that is dropped, but by version 2, which looks at no answer.
        rpc_ping_interval_s: Seconds between the pings that version 5 sends as text; who
            has not answered one by the time of the next is dropped.
        dates_handshakes: Its 101 carries a ``Date``, as one that came through a proxy may; the
            server itself writes none there (protocol §6).
        gather_s: How long messages to a WebSocket are gathered after one has gone out.
        max_connections_per_channel: On a private channel with a public part.
        limits: What a request may hold.
        counters: What it has done so far.
        presence: Who is online, as version 5 knows it.
        acknowledged: When each message was first acknowledged (unix time), by mid. That is
            all that comes of it: what a client names as its ``mid`` decides what it gets.
        faults: How it misbehaves.
        journal: What clients did there.
    """

    def __init__(
        self,
        security_key: str,
        clock: Callable[[], float] = machine_time,
        *,
        version: int = 4,
        mode: Mode = "personal",
        epoch: int | None = None,
        journal: Journal | None = None,
    ) -> None:
        if version not in VERSIONS:
            raise ValueError(f"there is no version {version}, only {VERSIONS}")
        if mode == "shared" and version != 4:
            raise ValueError("in shared mode the version is always 4")
        self.version = version
        self.mode: Mode = mode
        self.client_id: str = derive(security_key, "push client id")[:16].hex() if mode == "shared" else ""
        self._client_ids = {self.client_id}
        self.poll_timeout_s: float = 40.0
        self.ping_interval_s: float = 40.0 if version == 2 else 120.0
        self.rpc_ping_interval_s: float = 15.0
        self.dates_handshakes = False
        self.gather_s: float = 0.4
        self.max_connections_per_channel = 100
        self.limits: Limits = Limits()
        self.counters: Counters = Counters()
        self.acknowledged: dict[str, float] = {}
        self.faults: PushFaults = PushFaults()
        self.journal: Journal = journal or Journal(clock)
        self.signer: Signer = Signer(security_key)
        self.jwt: JwtSigner = JwtSigner(security_key)
        self._clock = clock
        self.presence: Presence = Presence(clock)
        self._history = History(clock, epoch)
        self._registry = Registry()
        self._evictions: set[asyncio.Task[None]] = set()

    # -- what tests and demos do with it ----------------------------------------

    @property
    def connections(self) -> Sequence[Subscriber]:
        """Everyone who is subscribed now, the oldest first."""
        return self._registry.subscribers

    def publish(
        self,
        channels: Iterable[str],
        body: bytes | str,
        expiry_s: int = 0,
        additions: Additions = NO_ADDITIONS,
        sender: Sender = BACKEND_SENDER,
    ) -> str:
        """Send a message as the portal's backend does, and return its mid.

        Args:
            channels: Ids as in a ``CHANNEL_ID``; signatures may be there or not.
            body: Anything: JSON that a client can read, or not.
            expiry_s: How long to keep it for replay; 0: not at all.
            additions: ``user_params`` and ``dictionary``, which only version 5 sends.
            sender: Who it is said to come from.

        Raises:
            Refused: An id is malformed.
        """
        ids = [self.signer.read(channel, trusted=True).id for channel in channels]
        raw = body.encode() if isinstance(body, str) else body
        return self.send(ids, raw, expiry_s, sender, additions)

    def change_security_key(self, security_key: str) -> None:
        """Let the server have another key than its portals sign with: it knows none of their channels."""
        self.signer, self.jwt = Signer(security_key), JwtSigner(security_key)

    async def disconnect_all(self, code: int | None = None, reason: str = "") -> None:
        """End every connection: with a close code, or without one, as a dying network does.

        Returns when nobody is subscribed any more.
        """
        subscribers = self._registry.subscribers
        for subscriber in subscribers:
            self.dismiss(subscriber, code)
            if code is None:
                subscriber.abort()
        if code is not None:
            await asyncio.gather(*(subscriber.close(code, reason) for subscriber in subscribers))

    def drop_history(self, until: str | None = None) -> None:
        """Lose what is kept for replay: all of it, or the messages up to and with a mid."""
        self._history.drop(until)

    @property
    def epoch(self) -> int:
        """The first 10 digits of the next mid."""
        return self._history.epoch

    def flush(self) -> None:
        """Empty the server's Redis while it runs.

        The history is lost, and the counter of the mids begins again with the epoch that
        it has: mids are given out a second time, for other messages (protocol §6). A later
        start of the server brings a new epoch.
        """
        self._history.flush()

    def snapshot(self) -> Snapshot:
        """Return what the server's Redis holds: counter, epoch and history."""
        return self._history.snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        """Set the server's Redis back to an older state while it runs."""
        self._history.restore(snapshot)

    def begin_process(self, *, keep_history: bool) -> None:
        """Start as a new process: with the Redis as it is, or with an empty one."""
        if not keep_history:
            self._history.flush()
        self._history.begin_process()

    async def finish(self) -> None:
        """Wait for what still runs once all connections have gone."""
        await asyncio.gather(*self._evictions)

    # -- what its endpoints do with it --------------------------------------------

    def now(self) -> float:
        """Return the push server's time: unix time. The portal may have another."""
        return self._clock()

    def add_portal(self, client_id: str) -> None:
        """Serve one more portal, in shared mode: its clients come with this id."""
        self._client_ids.add(client_id)

    def check_client_id(self, client_id: str | None) -> None:
        """Refuse who comes to a shared server without the portal's id there.

        Raises:
            Refused: It is missing or wrong (4036).
        """
        if self.mode == "shared" and client_id not in self._client_ids:
            raise Refused(ServerClose.WRONG_CLIENT)

    def admit(self, subscriber: Subscriber, resume_after: str | None) -> None:
        """Replay what a subscriber missed and let it get what is new.

        With no gap between, unless the faults open one.

        Args:
            subscriber: Who has just connected.
            resume_after: The mid of the last message that it had, or None: it wants no replay.
        """
        if resume_after is not None:
            missed = self._history.since(subscriber.ids, resume_after)
            if missed:
                subscriber.send(self._outgoing(missed, self._clock()))
        if self.faults.replay_race is not None:
            self.faults.replay_race(subscriber)
        self._registry.add(subscriber)
        self.journal.note(
            "subscribed",
            connection=subscriber.number,
            transport=subscriber.transport,
            channels=[channel.id.hex() for channel in subscriber.channels],
            format=subscriber.wire_format.name.lower(),
            mid=resume_after,
        )
        for channel in subscriber.channels:
            if channel.public_id is not None:
                self._evict_beyond_limit(channel.id)

    def dismiss(self, subscriber: Subscriber, code: int | None = None) -> None:
        """Send nothing more to a subscriber, which is or will be closed, with a code or without."""
        if self._registry.remove(subscriber):
            self.journal.note("ended", connection=subscriber.number, code=code)

    def _evict_beyond_limit(self, channel_id: bytes) -> None:
        listening = list(self._registry.on(channel_id))
        code = ServerClose.TOO_MANY_CONNECTIONS
        for subscriber in listening[: max(0, len(listening) - self.max_connections_per_channel)]:
            self.dismiss(subscriber, code)
            eviction = asyncio.create_task(subscriber.close(code, str(Refused(code))))
            self._evictions.add(eviction)
            eviction.add_done_callback(self._evictions.discard)

    def send(
        self,
        channels: Sequence[bytes],
        body: bytes,
        expiry_s: int,
        sender: Sender,
        additions: Additions = NO_ADDITIONS,
    ) -> str:
        """Send a message to who listens on the channels, keep it for them, and return its mid."""
        self.counters.messages += 1
        kept_s = 0 if self.faults.keeps_nothing else expiry_s
        message = self._history.take(channels, body, kept_s, sender, additions)
        if sender.type is SenderType.CLIENT:
            self.journal.note(
                "published",
                mid=message.mid,
                channels=[channel.hex() for channel in channels],
                body=body.decode(errors="replace"),
                expiry=expiry_s,
                sender=sender.id,
            )
        outgoing = self._outgoing([message], message.created)
        for subscriber in self._registry.on_any(channels):
            subscriber.send(outgoing)
        return message.mid

    def tell(self, subscribers: Iterable[Subscriber], body: bytes) -> None:
        """Send a message to these alone, whatever they listen on. It is not kept."""
        message = self._history.take((), body, 0, BACKEND_SENDER)
        outgoing = self._outgoing([message], message.created)
        for subscriber in subscribers:
            subscriber.send(outgoing)

    def _outgoing(self, messages: Sequence[Message], sent_at: float) -> Outgoing:
        return Outgoing(messages, sent_at, with_mids=self.version >= 3)

    def serve(self, request: Request) -> bytes:
        """Do what a request asks for; return the answer, empty if there is none."""
        match request:
            case Publish(messages):
                for message in messages:
                    self.send(message.channels, message.body, message.expiry_s, message.sender)
                return b""
            case ChannelStats(channels):
                on = self.is_online
                return channel_stats(
                    (channel_id, private, on(channel_id)) for channel_id, private in channels
                )
            case ServerStats():
                return server_stats(self.stats())

    def refuse(self, what: str, reason: object) -> None:
        """Count something that a client was refused, and write it down."""
        self.counters.refused += 1
        self.journal.note("refused", what=what, reason=str(reason))

    def acknowledge(self, mid: str) -> None:
        """Take note that a client has a message safe."""
        self.acknowledged.setdefault(mid, self._clock())
        self.journal.note("acknowledged", mid=mid)

    def is_online(self, channel_id: bytes) -> bool:
        """True if anybody listens on a channel."""
        return bool(self._registry.on(channel_id))

    def newest_mid(self, subscriber: Subscriber) -> str:
        """Return the newest mid that the subscriber's channels keep, or ""."""
        return self._history.newest_mid(subscriber.ids)

    def stats(self) -> bytes:
        """Return the statistics as JSON (protocol §9)."""
        stats = {
            "pid": os.getpid(),
            "date": int(self._clock() * 1000),
            "processUniqueId": str(os.getpid()),
            "channels": self._registry.channels,
            "limits": {
                "maxPayload": self.limits.request_bytes,
                "maxConnPerChannel": self.max_connections_per_channel,
                "maxMessagesPerRequest": self.limits.messages,
                "maxChannelsPerRequest": self.limits.receivers,
            },
            "clusterMode": False,
            "websockets": self._registry.count(WebSocketSubscriber),
            "pollings": self._registry.count(PollSubscriber),
            # What the real server counts here is not known; these are the emulator's own.
            "daily": asdict(self.counters),
        }
        return orjson.dumps([stats])
