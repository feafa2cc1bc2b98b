"""The long-polling transport (protocol §4.4): one HTTP request after the other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set

from bitrix_pull.connection.cursor import latest_mid
from bitrix_pull.connection.disconnects import Ended, Sign, ended_by_close, ended_by_status
from bitrix_pull.connection.frame_reader import FrameReader, Part
from bitrix_pull.errors import AnswerTooLarge, RouteUnavailable, Unreachable
from bitrix_pull.events import PullEvent
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.http import HttpAnswer, HttpSession, HttpStream
from bitrix_pull.portal.portal_clock import date_of
from bitrix_pull.wire.close_codes import read_refusal
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.messages import Control, Incoming, Malformed, Position, Unread
from bitrix_pull.wire.skim import NO_TOPICS, Topic
from bitrix_pull.wire.urls import START_OF_HISTORY

TRUSTED_EXPIRES = "Thu, 01 Jan 1973 11:11:01 GMT"
"""The ``Expires`` by which the push server marks an answer as its own, not a proxy's."""


OPTIONS_MAX_BYTES = 64 * 1024
"""Largest answer to an ``OPTIONS``; the server's own is empty."""


class LongPollConnection:
    """A stream made of polls. Each carries the mid up to which the one before has come."""

    def __init__(
        self,
        http: HttpSession,
        url: Callable[[str | None, Position | None], str],
        mid: str | None,
        position: Position | None,
        wire_format: WireFormat,
        options: PullOptions,
        server_unix: float | None,
        unwanted: Set[Topic],
    ) -> None:
        """Begin to poll; use ``open`` instead."""
        self._http = http
        self._url = url
        self._mid = mid
        self._position = position
        self._reader = FrameReader(wire_format, options.max_message_bytes, unwanted)
        self._options = options
        self._body: HttpStream | None = None
        # True if the next body goes on where one has broken off.
        self._goes_on = False
        self._has_ended = False
        # From where the poll was asked for that is being answered.
        self._asked: tuple[str | None, Position | None] = (mid, position)
        self.server_unix = server_unix
        self.heard_at: float = asyncio.get_running_loop().time()
        """When the server was heard from last; see ``Connection``."""

    @classmethod
    async def open(
        cls,
        http: HttpSession,
        url: Callable[[str | None, Position | None], str],
        mid: str | None,
        position: Position | None,
        wire_format: WireFormat,
        options: PullOptions,
        unwanted: Set[Topic] = NO_TOPICS,
    ) -> "LongPollConnection":
        """Prove that the server answers there, as a poll itself may stay silent for 40 s.

        Args:
            http: Makes the requests.
            url: Gives the address to poll, from where to resume.
            mid: The first resume point.
            position: The same for a server without mids.
            wire_format: What the bodies are written in.
            options: Deadlines and limits.
            unwanted: See ``FrameReader``.

        Raises:
            Ended: The server refused, or nothing answered.
        """
        answer = await _request(
            http, "OPTIONS", url(mid, position), options.connect_timeout_s, OPTIONS_MAX_BYTES
        )
        if answer.status >= 500:
            raise ended_by_status(answer.status, poll=True)
        server_unix = date_of(answer.headers)
        if mid is None and server_unix is not None:
            # What is published before the first poll has arrived would be lost without one;
            # by the server's clock, what is too old can be told from it.
            mid = START_OF_HISTORY
        return cls(http, url, mid, position, wire_format, options, server_unix, unwanted)

    async def receive(self) -> list[Incoming]:
        """Return what the next poll brings, or the next part of it; see ``Connection.receive``."""
        if self._reader.is_due:
            await self._reader.turn()
        while self._body is None:
            answer = await self._poll()
            if answer.status == 200:
                self._body = answer
                break
            self._advance(answer.headers)
            if self._goes_on:
                self._goes_on = False
                return []
        try:
            return self._noted(await self._read_on(self._body))
        except Unreachable as error:
            self._reader.give_up()
            self._let_go()
            if self._asked == (self._mid, self._position):
                raise Ended(Sign.UNANSWERED, str(error)) from None
            # What has come is not asked for again.
            self._goes_on = True
            return []

    async def _poll(self) -> HttpStream:
        """Return the answer to one poll: 200, or 304 where there was nothing.

        Raises:
            Ended: It was refused, or nothing answered.
        """
        options, self._asked = self._options, (self._mid, self._position)
        try:
            answer = await self._http.open(
                "GET",
                self._url(self._mid, self._position),
                timeout_s=options.poll_timeout_s,
                silence_s=options.ping_interval_s + options.ping_timeout_s,
            )
            self.heard_at = asyncio.get_running_loop().time()
            if answer.status == 200:
                return answer
            with contextlib.closing(answer):
                if answer.status != 304:
                    raise _refused(answer.status, await answer.read())
                return answer
        except Unreachable as error:
            raise Ended(Sign.UNANSWERED, str(error)) from None

    async def _read_on(self, body: HttpStream) -> list[Incoming]:
        """Return some of what a body holds; the last part may be empty.

        Raises:
            Unreachable: It broke off.
            MalformedFrame: It cannot be read.
        """
        if self._reader.has_rest:
            messages = self._reader.go_on()
        else:
            content = await body.read()
            self.heard_at = asyncio.get_running_loop().time()
            self._has_ended = not content
            messages = self._reader.take(Part(content, self._has_ended))
        if self._has_ended and not self._reader.amid_frame:
            self._goes_on = False
            self._let_go()
        return messages

    def _let_go(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    async def replay(self) -> AsyncIterator[Sequence[Incoming]]:
        """Yield what one poll brings: what the history holds, or what came while it hung."""
        answer = await self._poll()
        if answer.status == 304:
            if answer.headers.get("Expires") != TRUSTED_EXPIRES:
                raise Ended(Sign.GARBLED, "a poll was answered with 304 by another than the push server")
            return
        self._body, is_empty = answer, True
        while self.amid_frame:
            try:
                part = await self._read_on(answer)
            except Unreachable as error:
                raise Ended(Sign.UNANSWERED, str(error)) from None
            if part:
                is_empty = False
                yield part
            await self._reader.turn()
        if is_empty:
            raise Ended(Sign.GARBLED, "a poll was answered with 200 and no message")

    async def answered(self) -> bool:
        """Wait as long as an answer that does not hang takes at most."""
        await asyncio.sleep(self._options.catch_up_s)
        return not self.amid_frame

    def resume_after(self, mid: str) -> None:
        """Let the next poll name this mid."""
        self._mid = mid

    @property
    def amid_frame(self) -> bool:
        """True if there is more of the body; see ``Connection``."""
        return self._reader.amid_frame or self._body is not None or self._goes_on

    def _noted(self, messages: list[Incoming]) -> list[Incoming]:
        """Note from where to poll next."""
        latest = latest_mid(self.server_unix)
        for message in messages:
            if isinstance(message, PullEvent | Unread | Control | Malformed) and (
                (self._mid or "") < message.mid <= latest
            ):
                self._mid = message.mid
            elif isinstance(message, Position):
                self._position = message
        return messages

    def _advance(self, headers: Mapping[str, str]) -> None:
        """Take the first mid from an idle poll's answer."""
        mid = headers.get("Last-Message-Id", "")
        trusted = headers.get("Expires") == TRUSTED_EXPIRES and len(mid) == 26 and mid.isdecimal()
        if trusted and mid <= latest_mid(self.server_unix):
            self._mid = max(mid, self._mid or "")

    async def send(self, frame: bytes) -> None:
        """Refuse: polling is one-way."""
        raise RouteUnavailable(
            "the client is on long polling, which cannot send", advice='Use route="rest" or route="endpoint".'
        )

    async def acknowledge(self, mids: Sequence[str]) -> None:
        """Do nothing: the next poll's mid says what has arrived."""

    async def close(self, code: int) -> None:
        """Let go of a body that is being read; between two polls there is nothing open."""
        self._let_go()


async def _request(http: HttpSession, verb: str, url: str, timeout_s: float, max_bytes: int) -> HttpAnswer:
    try:
        return await http.request(verb, url, timeout_s=timeout_s, max_bytes=max_bytes)
    except Unreachable as error:
        raise Ended(Sign.UNANSWERED, str(error)) from None
    except AnswerTooLarge as error:
        raise Ended(Sign.GARBLED, str(error)) from None


def _refused(status: int, body: bytes) -> Ended:
    refusal = read_refusal(body) if status == 400 else None
    if refusal is not None:
        return ended_by_close(refusal)
    return ended_by_status(status, poll=True)
