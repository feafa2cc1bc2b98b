"""Asks hubs to publish: for services that have no portals themselves."""

import asyncio
import contextlib
import secrets
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from bitrix_pull.errors import EngineUnavailable, InvalidArgument, OutcomeUnknown, PullError
from bitrix_pull.hub.valkey.answers import Answers
from bitrix_pull.hub.valkey.desk import FORGOTTEN_MS, PUBLISH_S
from bitrix_pull.hub.valkey.engine import Engine, as_engine, text
from bitrix_pull.hub.valkey.requests import (
    EXPIRED,
    EXPIRES_IN_S,
    LASTS_MAX_S,
    REQUESTS_MAX,
    VERSION,
    PublishAnswer,
    prefix_of,
    shard_of,
)
from bitrix_pull.publish.message import Message, Params
from bitrix_pull.publish.publisher import Route, checked
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.json_text import encode_json

_PAUSE_S = 0.5
_SLACK_S = 1.0
_LATEST_S = PUBLISH_S + FORGOTTEN_MS / 1000 + 30.0
"""How long after its time is over a request that was taken is answered at the latest."""


class ValkeyPublisher:
    """Asks the hub that has a portal to publish there, and waits for what became of it.

    The hub is one with a ``ValkeyStream``. What is promised, and how to ask in other languages:
    ``bitrix_pull.hub.valkey.requests``.

    Example:
        async with ValkeyPublisher("redis://…") as publisher:
            answer = await publisher.publish("member-id", "order_paid", {"id": 7}, users=[1])
            print(answer.outcome, answer.error)

    Args:
        engine: Its address (see ``Engine``), or one that others use too.
        name: The log's.
        shards: How many the log has.
        timeout_s: For how long to wait for the engine, where its address is given.

    Raises:
        InvalidArgument: An argument cannot work.
    """

    def __init__(
        self, engine: str | Engine, *, name: str = "bitrix-pull", shards: int = 1, timeout_s: float = 5.0
    ) -> None:
        if shards < 1:
            raise InvalidArgument("shards must be 1 or more")
        self._engine = as_engine(engine, timeout_s=timeout_s)
        self._name = name
        self._shards = shards
        self._own = secrets.token_hex(16)
        # By shard, as they are needed; None while it is not open.
        self._answers: dict[int, Answers] | None = None

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            InvalidArgument: The engine cannot be used.
            EngineUnavailable: It does not answer.
        """
        await self._engine.open()
        self._answers = {}
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let go."""
        answers, self._answers = self._answers or {}, None
        for each in answers.values():
            await each.close()
        await self._engine.close()

    async def publish(
        self,
        portal: str,
        command: str,
        params: Params | None = None,
        *,
        module: str = "application",
        users: int | Iterable[int] | None = None,
        channels: str | PublicChannel | Iterable[str | PublicChannel] | None = None,
        route: Route = "auto",
        expires_in_s: float = EXPIRES_IN_S,
    ) -> PublishAnswer:
        """Ask for an event to be published, and return what became of it.

        An engine that does not answer is asked again: it is published once all the same.

        Args:
            portal: The portal's key in the hub.
            command: See ``PullClient.publish``, also for the next ones.
            params: The payload.
            module: The module that sends it.
            users: User ids.
            channels: Public channels.
            route: The way to go.
            expires_in_s: Seconds in which its turn must come; else it is not published.

        Returns:
            Its ``outcome`` is to be looked at. Where no answer comes, it is "unknown".

        Raises:
            InvalidArgument: It can be no event; nobody was asked.
            EngineUnavailable: It is not open.
        """
        message = Message(command, params, module=module, users=users, channels=channels)
        checked([message], route, "never", None)
        if not 0 < expires_in_s <= LASTS_MAX_S:
            raise InvalidArgument(f"expires_in_s must be more than 0, and {LASTS_MAX_S:.0f} at most")
        request_id = secrets.token_hex(16)
        request: dict[str, Any] = {"v": VERSION, "portal": portal, "command": command}
        request |= {"id": request_id, "reply_to": self._own}
        request |= {"params": message.params, "module": module, "route": route, "expires_in_s": expires_in_s}
        if message.users:
            request["users"] = message.users
        if message.channels:
            request["channels"] = [channel.text for channel in message.channels]
        return await self._ask(portal, request_id, encode_json(request, "the request"), expires_in_s)

    async def _ask(self, portal: str, request_id: str, request: bytes, lasts_s: float) -> PublishAnswer:
        shard = shard_of(portal, self._shards)
        requests = f"{prefix_of(self._name, shard)}:publish"
        loop = asyncio.get_running_loop()
        expires_at = loop.time() + lasts_s
        unknown = PublishAnswer(request_id, portal, "unknown", OutcomeUnknown.__name__, "no answer came")
        with self._answers_of(shard).expected(request_id) as answer:
            try:
                async with asyncio.timeout_at(expires_at):
                    entry = await self._added(requests, request)
            except TimeoutError:
                return unknown
            if (told := await _within(expires_at - loop.time() + _SLACK_S, answer)) is not None:
                return told
            with contextlib.suppress(PullError):
                if await self._engine.call("XDEL", requests, entry):
                    nobody = f"nobody came to publish it within {lasts_s:g} s"
                    return PublishAnswer(request_id, portal, "refused", EXPIRED, nobody, retryable=True)
            return await _within(_LATEST_S, answer) or unknown

    def _answers_of(self, shard: int) -> Answers:
        if self._answers is None:
            raise EngineUnavailable("this publisher is not open", advice="async with ValkeyPublisher(…).")
        answers = self._answers.get(shard)
        if answers is None:
            key = f"{prefix_of(self._name, shard)}:answer:{self._own}"
            answers = self._answers[shard] = Answers(self._engine, key)
        return answers

    async def _added(self, requests: str, request: bytes) -> str:
        """Put a request into the stream, and return its entry's id. It may be there twice: it has a name."""
        while True:
            try:
                return text(
                    await self._engine.call(
                        "XADD", requests, "MAXLEN", "~", REQUESTS_MAX, "*", "request", request
                    )
                )
            except EngineUnavailable:
                await asyncio.sleep(_PAUSE_S)


async def _within(timeout_s: float, answer: "asyncio.Future[PublishAnswer]") -> PublishAnswer | None:
    await asyncio.wait({answer}, timeout=max(timeout_s, 0.0))
    return answer.result() if answer.done() else None
