"""An open connection that is being read, and looked after for what it left out."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from itertools import count
from typing import Any, Final, NoReturn

from bitrix_pull.connection.connector import Connection
from bitrix_pull.connection.continuity import Opening, Recovered, Resumption, Tally
from bitrix_pull.connection.cursor import Cursor
from bitrix_pull.connection.disconnects import Ended, Sign
from bitrix_pull.connection.history import History
from bitrix_pull.connection.intake import Intake
from bitrix_pull.connection.pause import Pause
from bitrix_pull.connection.stamps import stamp_of
from bitrix_pull.errors import MalformedFrame, PullError
from bitrix_pull.events import Continuity, Gap, Notice, PullEvent
from bitrix_pull.flag import Flag
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.redaction import get_logger
from bitrix_pull.telemetry import log_fields
from bitrix_pull.wire.close_codes import ClientClose
from bitrix_pull.wire.messages import Control, Incoming, Malformed, Unread
from bitrix_pull.wire.urls import START_OF_HISTORY

logger: Final = get_logger("connection")

AUDIT_AFTER_S = 4.0
"""How long after a connect the server is asked for what it may have left out."""

MISSED_AFTER_S = 2.0
"""The same where a replay must come and has not begun to."""

AUDIT_AGAIN_MAX_S = 300.0
"""Longest wait before the server is asked again, where it could not be asked."""

HELD_MAX_S = 45.0
"""How long the resume point waits for an answer: else each replay would be larger than the last."""

IN_FLIGHT_S = 1.0
"""How long a message may be on its way: the server gathers them for 0.4 s."""

_NO_REPLAY_S = 0.1
"""How long after a connect the server is asked for a sign that it has sent what it had to send."""

_KEPT_WITHIN_S = 8.0
"""The same where a replay must come: a server that answers and sends none is not waited for longer."""

HELD_BACK_S = 1.0
"""How long what has come of a replay waits for the rest, so that the verdict counts all of it."""

_MISSED_MAX = 500
_MISSED_MAX_BYTES = 2 * 1024 * 1024
"""Of what was left out, so much is delivered before more is read."""

_AUDIT = "audit"

_audits = count()


class Stream:
    """An open connection and the task that reads it."""

    def __init__(
        self,
        connection: Connection,
        config: PullConfig,
        intake: Intake,
        cursor: Cursor,
        obey: Callable[[Control], None],
        announce: Callable[[Notice], None],
        history: History,
        resumption: Resumption | None,
        paused: Callable[[], None],
        *,
        repeats: bool,
        catch_up_s: float,
    ) -> None:
        """Begin to read.

        Args:
            connection: What to read.
            config: The configuration that it was opened with.
            intake: Takes what is read.
            cursor: Says what is new.
            obey: Told of control messages; raises ``Ended`` for those that end the stream.
            announce: Takes notices.
            history: Asks the server for what this connection may have left out.
            resumption: What is known of a connection that resumes: its verdict, if it is still to be
                given, comes with the first frame. None where there is nothing to resume.
            paused: Called when handlers begin or cease to hold up the reading; see ``paused``.
            repeats: True if each request of the connection resumes anew, as in polling.
            catch_up_s: How long to wait for a replay where nothing but time shows that there is none.
        """
        self.connection = connection
        self.config = config
        self._intake = intake
        self._cursor = cursor
        self._obey = obey
        self._announce = announce
        self._history = history
        self._resumption = resumption
        self._repeats = repeats
        self._catch_up_s = catch_up_s
        self._pause = Pause(intake, announce, paused)
        self._opened_at = asyncio.get_running_loop().time()
        self._received_before = intake.received
        self._first_frame_begun = Flag()
        self._caught_up = Flag()
        self._again = Flag()
        self._hold_reason = f"{_AUDIT} {next(_audits)}"
        self._hold_timer: asyncio.TimerHandle | None = None
        self._from_start = False
        self._audit: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        if resumption is None:
            self._caught_up.set()
        elif 0 < config.server.version < 3:
            # Such a server has no mids to ask by.
            self._do(self._expect_no_replay(_NO_REPLAY_S), "replay")
        else:
            self._hold(due=True)
            self._audit = self._do(self._heal(after_s=AUDIT_AFTER_S), "audit")
            is_expected = resumption.opening.kept is not None
            self._do(self._expect_no_replay(_KEPT_WITHIN_S if is_expected else _NO_REPLAY_S), "replay")
        self.reader: asyncio.Task[Ended] = asyncio.create_task(self._read(), name="bitrix_pull reader")

    @property
    def age_s(self) -> float:
        """Seconds since it was opened."""
        return asyncio.get_running_loop().time() - self._opened_at

    @property
    def brought(self) -> bool:
        """True if anything new has come since it was opened."""
        return self._intake.received > self._received_before

    @property
    def paused(self) -> bool:
        """True while handlers hold up the reading: nothing shows then whether the server is there."""
        return self._pause.paused

    @property
    def catching_up(self) -> bool:
        """True while the replay is under way, or may still come."""
        return not self._caught_up.is_set()

    async def caught_up(self) -> None:
        """Wait until the replay was read or the server has shown that there is none, or the stream ended."""
        waiting = asyncio.create_task(self._caught_up.wait())
        try:
            await asyncio.wait({waiting, self.reader}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()

    async def close(self, code: ClientClose) -> None:
        """Stop reading and close the connection."""
        if self._hold_timer is not None:
            self._hold_timer.cancel()
        tasks = {self.reader, *self._tasks}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        self._pause.stop()
        await self.connection.close(code)

    def _do(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"bitrix_pull {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- reading --------------------------------------------------------------

    async def _read(self) -> Ended:
        try:
            if self._resumption is not None:
                await self._take_first_frame(self._resumption)
            await self._follow()
        except Ended as ended:
            return ended
        except MalformedFrame as error:
            return Ended(Sign.GARBLED, str(error))

    async def _follow(self) -> NoReturn:
        """Take what comes live."""
        connection, intake, cursor, pause = self.connection, self._intake, self._cursor, self._pause
        receive = connection.receive
        wanted_since = -1
        while True:
            if intake.full:
                await pause.room()
            messages = await receive()
            numbering = cursor.numbering
            events, controls = intake.sort(messages, cursor, from_start=self._from_start)
            if cursor.numbering != numbering:
                self._went_back()
            if events:
                intake.hand_on(events)
                if wanted_since != cursor.numbering:
                    wanted_since = cursor.numbering
                    cursor.is_wanted(events[0].mid)
            for control in controls:
                self._obey(control)
            if self._from_start and cursor.numbering == numbering:
                self._from_start = connection.amid_frame

    async def _take_first_frame(self, resumption: Resumption) -> None:
        """Take the frame in which the server sends the whole replay, if there is any (protocol §6)."""
        connection, from_start = self.connection, resumption.opening.from_start
        tally = Tally(resumption.opening, from_start=from_start)
        loop, begun_at = asyncio.get_running_loop(), 0.0
        wanted: list[Incoming] = []
        while True:
            await self._pause.room()
            # What is wanted is not known before the verdict: should the connection end here, it comes again.
            part, others = tally.look(await connection.receive())
            if not self._first_frame_begun.is_set():
                self._first_frame_begun.set()
                begun_at = loop.time()
            wanted += part
            self._take(others, from_start=from_start)
            is_late = tally.is_decided and loop.time() - begun_at >= HELD_BACK_S
            if tally.is_full or is_late or (tally.seen and not connection.amid_frame):
                break
        is_replay, ended = tally.is_replay, not connection.amid_frame
        self._take(wanted, tally, from_start=from_start, ended=ended, replayed=is_replay)
        try:
            while connection.amid_frame:
                await self._pause.room()
                self._take(await connection.receive(), from_start=from_start, replayed=is_replay)
        except (Ended, asyncio.CancelledError):
            if is_replay:
                self._keep_what_came(resumption.opening)
            raise
        # It has brought what earlier connections may have left out.
        for reason in self._cursor.held:
            if reason.startswith(_AUDIT) and reason != self._hold_reason:
                self._cursor.release(reason)
        self._caught_up.set()

    def _keep_what_came(self, opening: Opening) -> None:
        """Let the resume point go on from where a replay broke off.

        A replay goes up from mid to mid: past all that was known before, it has left nothing out. One
        that takes longer than its link lives would else begin at the same place for ever.
        """
        cursor = self._cursor
        if cursor.numbering == opening.numbering and cursor.newest > opening.newest:
            self._release()

    def _take(
        self,
        messages: Sequence[Incoming],
        tally: Tally | None = None,
        *,
        from_start: bool,
        ended: bool = False,
        replayed: bool = False,
        healed: bool = False,
    ) -> None:
        """Take what is, or may be, a replay of the history; say first whether it is whole.

        Args:
            messages: What has come.
            tally: What it is judged by, if no verdict was given yet.
            from_start: True if the start of history was asked for.
            ended: True if there was no more than that.
            replayed: True if it is older than the connection.
            healed: True if the server was asked for what it may have left out.
        """
        cursor, resumption = self._cursor, self._resumption
        numbering = cursor.numbering
        verdict: Recovered | None = None
        if tally is not None and resumption is not None and not resumption.judged:
            verdict = tally.recovered(ended=ended)
            if verdict == "no" and not resumption.opening.moved:
                cursor.begin_anew()
        events, controls = self._intake.sort(messages, cursor, from_start=from_start)
        went_back = cursor.numbering != numbering
        if verdict is not None and resumption is not None and tally is not None:
            verdict = "no" if went_back else verdict
            resumption.judge(verdict, replayed=len(events), duplicates=tally.known, more=not ended)
            if went_back:
                self._ask_from_start()
        elif went_back:
            self._went_back()
        if events:
            for event in events:
                # The last replay left it out, and this one has brought it.
                is_healed = healed or (
                    replayed and resumption is not None and resumption.opening.was_left_out(event.mid)
                )
                self._intake.healed += is_healed
                if type(event) is PullEvent:
                    event.replayed, event.healed = replayed, is_healed
            self._intake.hand_on(events)
        for control in controls:
            self._obey(control)

    def _went_back(self) -> None:
        """Say that the server's counter has gone back, and ask for what was dropped before that showed."""
        logger.warning("the push server hands out message ids a second time: it has lost data")
        self._announce(Gap("no", 0, 0, 0.0))
        self._ask_from_start()

    def _ask_from_start(self) -> None:
        if self._repeats:
            # The next poll begins at the start of history, and counts as live.
            self.connection.resume_after(START_OF_HISTORY)
            self._from_start = True
        self._hold(due=True)
        self._again.set()
        if self._audit is None or self._audit.done():
            self._audit = self._do(self._heal(), "audit")

    # -- catching up ----------------------------------------------------------

    async def _expect_no_replay(self, after_s: float) -> None:
        """Take it that there is no replay once the server has answered and none has begun."""
        await asyncio.sleep(after_s)
        # Before version 3 it answers no ping (protocol §4.1).
        limit_s = self._catch_up_s if self.config.server.version < 3 else None
        is_read = True
        with contextlib.suppress(TimeoutError, PullError):
            async with asyncio.timeout(limit_s):
                is_read = await self.connection.answered()
        if is_read and not self._first_frame_begun.is_set():
            self._caught_up.set()

    # -- what the server has left out -----------------------------------------

    def _hold(self, *, due: bool) -> None:
        """Keep the resume point where it was; not for ever, once the audit is due."""
        self._cursor.hold(self._hold_reason)
        if due and self._hold_timer is None:
            self._hold_timer = asyncio.get_running_loop().call_later(HELD_MAX_S, self._give_up)

    def _release(self) -> None:
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None
        for reason in self._cursor.held:
            if reason.startswith(_AUDIT):
                self._cursor.release(reason)

    def _give_up(self) -> None:
        self._release()
        logger.warning(
            "the push server could not be asked for %g s for what it may have left out at the last "
            "connect; if it did, that is lost",
            HELD_MAX_S,
        )
        self._announce(Continuity("unknown", 0, 0, 0.0, audited=False))

    async def _heal(self, *, after_s: float = 0.0) -> None:
        """Deliver what the server forgot to send.

        The server reads the history first and registers the connection then: what is
        published in between is neither replayed nor sent (protocol §6). Until that has
        come through, the resume point stays where it was for this connection.
        """
        cursor, delay_s = self._cursor, AUDIT_AFTER_S
        await self._first_chance(after_s)
        while True:
            self._again.clear()
            newest = cursor.newest
            try:
                await self._ask(cursor.resume_point or START_OF_HISTORY)
            except PullError as error:
                logger.info("the history could not be compared: %s", error, extra=log_fields(error))
                if self.catching_up:
                    self._do(self._expect_no_replay(0.0), "replay")
                await self._wait(delay_s)
                delay_s = min(2 * delay_s, AUDIT_AGAIN_MAX_S)
                continue
            self._caught_up.set()
            delay_s = AUDIT_AFTER_S
            if not self._again.is_set():
                self._release()
                if not self._repeats:
                    return
                self._hold(due=False)
                # Where nothing has come, nothing can have been overtaken.
                while not await self._wait(AUDIT_AFTER_S) and cursor.newest == newest:
                    pass
                self._hold(due=True)

    async def _first_chance(self, after_s: float) -> None:
        """Wait until a message that the server has left out would have come by itself."""
        if self._resumption is not None and self._resumption.opening.kept is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(after_s, MISSED_AFTER_S)):
                    await self._first_frame_begun.wait()
            if not self._first_frame_begun.is_set():
                return
        await asyncio.sleep(max(after_s - self.age_s, 0.0))
        if self._first_frame_begun.is_set():
            await self._caught_up.wait()

    async def _wait(self, seconds: float) -> bool:
        """Wait so long; return True at once if the server is to be asked again before that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._again.wait()
        return self._again.is_set()

    async def _ask(self, mid: str) -> None:
        """Ask for what the history holds after a mid, and deliver what of it did not come.

        Raises:
            PullError: The server could not be asked, or not to the end.
        """
        resumption, from_start = self._resumption, mid == START_OF_HISTORY
        tally: Tally | None = None
        if resumption is not None and not resumption.judged:
            tally = Tally(resumption.opening, from_start=from_start)
        missed: list[Incoming] = []
        missed_bytes = 0
        async with self._history(mid) as parts:
            # The answer has begun: of what it holds, nothing is on its way for longer than that.
            due_at = asyncio.get_running_loop().time() + IN_FLIGHT_S
            async for part in parts:
                for message in part if tally is None else tally.look(part)[0]:
                    if self._is_missed(message):
                        missed.append(message)
                        missed_bytes += message.size if isinstance(message, PullEvent | Unread) else 0
                if len(missed) >= _MISSED_MAX or missed_bytes >= _MISSED_MAX_BYTES:
                    await self._deliver(missed, due_at, tally, from_start=from_start, ended=False)
                    missed, missed_bytes = [], 0
        await self._deliver(missed, due_at, tally, from_start=from_start, ended=True)

    def _is_missed(self, message: Incoming) -> bool:
        # What has no mid cannot be told from what came already.
        if not isinstance(message, PullEvent | Unread | Control | Malformed) or not message.mid:
            return False
        return not self._cursor.knows(message.mid, stamp_of(message))

    async def _deliver(
        self, missed: Sequence[Incoming], due_at: float, tally: Tally | None, *, from_start: bool, ended: bool
    ) -> None:
        if missed:
            # What is on its way by the open connection needs no healing.
            await asyncio.sleep(due_at - asyncio.get_running_loop().time())
            await self._intake.room()
        replayed = self._resumption is not None
        with contextlib.suppress(Ended):
            self._take(missed, tally, from_start=from_start, ended=ended, replayed=replayed, healed=True)
